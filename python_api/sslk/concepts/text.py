"""Whether an image shows text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from sslk.concepts.expert import ConceptSample


class TextPresence:
    """Whether the image shows text, by rapidocr's detector (weights packaged).

    Args:
        min_side: smaller images are enlarged to this many pixels on the shorter side; the detector needs some.
    """

    group = "other"
    names = ("text",)

    def __init__(self, min_side: int = 256) -> None:
        try:
            from rapidocr_onnxruntime import RapidOCR
        except ImportError as error:
            raise ImportError(
                f"text presence needs the package rapidocr-onnxruntime: pip install rapidocr-onnxruntime ({error})"
            ) from error
        self.min_side = min_side
        self._read = RapidOCR()

    def __call__(self, samples: Sequence[ConceptSample]) -> list[list[int]]:
        found = []
        for sample in samples:
            image = sample.image.convert("RGB")
            scale = max(1.0, self.min_side / min(image.size))
            if scale > 1:
                image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
            boxes, _ = self._read(np.asarray(image)[..., ::-1], use_det=True, use_cls=False, use_rec=False)
            found.append([0] if boxes is not None and len(boxes) else [])
        return found

    def __repr__(self) -> str:
        return f"TextPresence(min_side={self.min_side})"
