"""What a segmenter is given and what it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from PIL import Image

from sslk.data import Annotation


@dataclass(frozen=True)
class Scene:
    """One image of a data set, before any transform, with what the data set knows about it.

    Attributes:
        image: RGB.
        image_name: its path in the data set, or its number.
        classes: class names of the data set.
        annotate: reads the image's masks or boxes; raises ValueError where the data set has none.
    """

    image: Image.Image
    image_name: str
    classes: Sequence[str]
    annotate: Callable[[], Annotation]

    def reduced(self, side: int | None) -> Scene:
        """The scene with a shorter side of `side` pixels, image (bilinear, antialiased), boxes and label maps alike.

        A scene that is no larger, and any for None, stays as it is.

        >>> scene = Scene(Image.new("RGB", (400, 300)), "a", [], lambda: Annotation(boxes=np.array([[40, 30, 80, 60]])))
        >>> small = scene.reduced(30); small.image.size, small.box().tolist(), scene.reduced(500) is scene
        ((40, 30), [4.0, 3.0, 8.0, 6.0], True)
        """
        width, height = self.image.size
        if side is None or min(width, height) <= side:
            return self
        size = round(width * side / min(width, height)), round(height * side / min(width, height))
        image = self.image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
        return replace(self, image=image, annotate=lambda: _reduced(self.annotate(), (width, height), size))

    def box(self) -> np.ndarray:
        """x0 y0 x1 y1 around all boxes of the image, the far edges exclusive.

        Raises:
            ValueError: the data set has no boxes for it.
        """
        boxes = self.annotate().boxes
        if boxes is None or not len(boxes):
            raise ValueError(f"image {self.image_name} has no bounding box: the data set must come with boxes.")
        return np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])


def _reduced(annotation: Annotation, old: tuple[int, int], new: tuple[int, int]) -> Annotation:
    scale = np.array([new[0] / old[0], new[1] / old[1]] * 2)
    boxes = None if annotation.boxes is None else annotation.boxes * scale
    mask = annotation.mask
    if mask is not None:
        mask = np.array(Image.fromarray(mask).resize(new, Image.Resampling.NEAREST))
    return replace(annotation, boxes=boxes, mask=mask)


class Segmenter(Protocol):
    """Finds the object: `segmenter(scene)` is bool `[H, W]`, true inside.

    `settings` is text that states all that decides its masks; caches are told apart by it. A segmenter that looks at
    pixels may have a `side`, stated in its settings: `build_masks` shows it images reduced to that shorter side.
    """

    @property
    def settings(self) -> str: ...

    def __call__(self, scene: Scene) -> np.ndarray: ...


def box_mask(height: int, width: int, box: np.ndarray) -> np.ndarray:
    """True inside a box x0 y0 x1 y1, rounded to whole pixels and cut to the image.

    >>> box_mask(3, 4, np.array([1.0, 0.0, 9.0, 2.0])).astype(int)
    array([[0, 1, 1, 1],
           [0, 1, 1, 1],
           [0, 0, 0, 0]])
    """
    x0, y0, x1, y1 = (max(0, round(float(edge))) for edge in box)
    mask = np.zeros((height, width), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask
