"""What a segmenter is given and what it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

    def box(self) -> np.ndarray:
        """x0 y0 x1 y1 around all boxes of the image, the far edges exclusive.

        Raises:
            ValueError: the data set has no boxes for it.
        """
        boxes = self.annotate().boxes
        if boxes is None or not len(boxes):
            raise ValueError(f"image {self.image_name} has no bounding box: the data set must come with boxes.")
        return np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])


class Segmenter(Protocol):
    """Finds the object: `segmenter(scene)` is bool `[H, W]`, true inside.

    `settings` is text that states all that decides its masks; caches are told apart by it.
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
