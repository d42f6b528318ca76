"""Foreground from the data set's own annotation: label maps and bounding boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sslk.masked.segmenters.scene import Scene, box_mask


class LabelMapSegmenter:
    """Pixels of the named classes of the data set's label maps.

    Args:
        classes: names in the data set's `classes`, such as car and pedestrian.

    >>> from PIL import Image
    >>> from sslk.data import Annotation
    >>> labels = np.array([[0, 1], [2, 1]], dtype=np.uint8)
    >>> scene = Scene(Image.new("RGB", (2, 2)), "a", ["sky", "car", "tree"], lambda: Annotation(mask=labels))
    >>> LabelMapSegmenter(["car"])(scene).tolist()
    [[False, True], [False, True]]
    """

    def __init__(self, classes: Sequence[str]) -> None:
        if not classes:
            raise ValueError("classes must name at least one class of the label maps, got none.")
        self.classes = tuple(classes)

    @property
    def settings(self) -> str:
        return f"labels:{','.join(sorted(self.classes))}"

    def __call__(self, scene: Scene) -> np.ndarray:
        """True where the label is one of the classes.

        Raises:
            ValueError: the data set has no label maps, or no class of that name (the names are listed).
        """
        unknown = [name for name in self.classes if name not in scene.classes]
        if unknown:
            raise ValueError(f"classes must be among {', '.join(scene.classes)}, got {unknown[0]!r}.")
        labels = scene.annotate().mask
        if labels is None:
            raise ValueError(f"image {scene.image_name} has no label map: the data set must come with masks.")
        return np.isin(labels, [list(scene.classes).index(name) for name in self.classes])


class BoxSegmenter:
    """The inside of the data set's bounding boxes, all boxes of an image together."""

    settings = "boxes"

    def __call__(self, scene: Scene) -> np.ndarray:
        """True inside the boxes.

        Raises:
            ValueError: the data set has no boxes.
        """
        scene.box()
        boxes = scene.annotate().boxes
        assert boxes is not None
        return np.any([box_mask(scene.image.height, scene.image.width, box) for box in boxes], axis=0)
