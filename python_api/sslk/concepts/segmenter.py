"""Concepts that a semantic segmenter sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from sslk.concepts.expert import ConceptSample


class Segmenter:
    """A semantic segmenter: every class it predicts for some share of the pixels.

    Args:
        model: images `[n, 3, H, W]` -> class scores `[n, C, h, w]`, or a dict with them under `out` (torchvision).
        names: of the C classes.
        transform: PIL image -> tensor `[3, H, W]`.
        min_share: smallest share of the pixels; 0 counts one pixel, the paper's rule.
        ignore: classes that are no concept, such as the background.
        group: of the columns.
        title: what the table remembers the network by.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Any],
        names: Sequence[str],
        transform: Callable[[Image.Image], Tensor],
        *,
        min_share: float = 0.0,
        ignore: Sequence[int] = (),
        group: str = "material",
        title: str = "segmenter",
    ) -> None:
        self.model, self.transform, self.min_share, self.group, self.title = model, transform, min_share, group, title
        kept = [label for label in range(len(names)) if label not in ignore]
        self.names = [names[label] for label in kept]
        self._classes = len(names)
        self._column = {label: column for column, label in enumerate(kept)}

    @torch.inference_mode()
    def __call__(self, samples: Sequence[ConceptSample]) -> list[list[int]]:
        output = self.model(torch.stack([self.transform(sample.image) for sample in samples]))
        scores = output["out"] if isinstance(output, dict) else output
        found = []
        for labels in scores.argmax(1).flatten(1):
            share = torch.bincount(labels, minlength=self._classes) / len(labels)
            present = ((share > 0) & (share >= self.min_share)).nonzero().flatten().tolist()
            found.append([self._column[label] for label in present if label in self._column])
        return found

    def __repr__(self) -> str:
        return f"Segmenter({self.title}, {len(self.names)} classes, min_share={self.min_share}, group={self.group!r})"
