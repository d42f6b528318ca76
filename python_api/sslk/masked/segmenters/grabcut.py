"""GrabCut: foreground by colour and position alone, no weights needed."""

from __future__ import annotations

from typing import Literal

import numpy as np

from sslk.masked.segmenters.scene import Scene
from sslk.models.architectures import optional_import


class GrabCutSegmenter:
    """OpenCV's GrabCut (Rother, Kolmogorov and Blake, SIGGRAPH 2004), begun from a box.

    Everything outside the box is background for certain; inside, two colour mixtures and a graph cut decide. Where
    they leave nothing inside, or the box leaves no outside to learn from, the box itself is the mask.

    Args:
        start: `center`: a box around the middle; `box`: the data set's bounding box.
        share: side of the middle box as a share of the image's sides.
        iterations: of fitting and cutting.
        side: shorter side to which larger images are reduced before, about that of the networks' inputs: the cut's time
            grows faster than the pixels, and finer edges than the network sees are no use. None for no reduction.

    >>> from PIL import Image
    >>> pixels = np.full((32, 32, 3), 30, np.uint8); pixels[10:22, 12:20] = 220
    >>> scene = Scene(Image.fromarray(pixels), "a", [], lambda: None)
    >>> mask = GrabCutSegmenter()(scene); int(mask.sum()), bool(mask[10:22, 12:20].all())
    (96, True)
    """

    def __init__(
        self, start: Literal["center", "box"] = "center", share: float = 0.8, iterations: int = 5, side: int | None = 256
    ) -> None:
        if start not in ("center", "box"):
            raise ValueError(f"start must be 'center' or 'box', got {start!r}.")
        if not 0 < share < 1:
            raise ValueError(f"share must lie between 0 and 1, got {share}.")
        if iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {iterations}.")
        self.start, self.share, self.iterations, self.side = start, share, iterations, side

    @property
    def settings(self) -> str:
        where = f"center({self.share:g})" if self.start == "center" else "box"
        return f"grabcut:{where} x{self.iterations}" + ("" if self.side is None else f" {self.side}px")

    def __call__(self, scene: Scene) -> np.ndarray:
        """True where GrabCut finds the object.

        Raises:
            ValueError: start is `box` and the data set has no boxes.
            ImportError: OpenCV is not installed.
        """
        cv2 = optional_import("cv2", "the segmenter 'grabcut'", "opencv-python-headless")
        pixels = np.ascontiguousarray(np.array(scene.image.convert("RGB"))[..., ::-1])
        height, width = pixels.shape[:2]
        x0, y0, x1, y1 = self._box(scene, height, width)
        inside = np.zeros((height, width), dtype=bool)
        inside[y0:y1, x0:x1] = True
        if inside.all() or not inside.any():
            return inside
        labels = np.where(inside, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.setRNGSeed(0)  # its k-means draws from a global generator
        try:
            cv2.grabCut(pixels, labels, None, *models, self.iterations, cv2.GC_INIT_WITH_MASK)
        except cv2.error:  # fewer pixels on a side than mixture components
            return inside
        mask = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
        return mask if mask.any() else inside

    def _box(self, scene: Scene, height: int, width: int) -> tuple[int, int, int, int]:
        if self.start == "center":
            dx, dy = round(width * (1 - self.share) / 2), round(height * (1 - self.share) / 2)
            return dx, dy, width - dx, height - dy
        x0, y0, x1, y1 = scene.box()
        return max(0, round(x0)), max(0, round(y0)), min(width, round(x1)), min(height, round(y1))
