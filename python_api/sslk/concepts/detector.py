"""Concepts that an object detector sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import to_tensor

from sslk.concepts.expert import ConceptSample


class Detector:
    """A detector with torchvision's interface: classes of the boxes whose confidence exceeds a threshold.

    Args:
        model: list of images `[3, H, W]` in [0, 1] -> list of dicts with `labels` and `scores`, in eval mode.
        names: by the model's label; entries such as `"__background__"` and `"N/A"` never appear as concepts.
        threshold: the paper's is 0.5.
        group: of the columns.
        title: what the table remembers the network by.
    """

    def __init__(
        self,
        model: Callable[[list[Tensor]], list[dict[str, Tensor]]],
        names: Sequence[str],
        threshold: float = 0.5,
        group: str = "objects",
        title: str = "detector",
    ) -> None:
        self.model, self.threshold, self.group, self.title = model, threshold, group, title
        kept = [label for label, name in enumerate(names) if name not in ("__background__", "N/A", "background")]
        self.names = [names[label] for label in kept]
        self._column = {label: column for column, label in enumerate(kept)}
        if isinstance(model, nn.Module):
            model.eval()

    @torch.inference_mode()
    def __call__(self, samples: Sequence[ConceptSample]) -> list[list[int]]:
        found = self.model([to_tensor(sample.image.convert("RGB")) for sample in samples])
        sure = [boxes["labels"][boxes["scores"] > self.threshold].unique().tolist() for boxes in found]
        return [[self._column[label] for label in labels if label in self._column] for labels in sure]

    def __repr__(self) -> str:
        return f"Detector({self.title}, {len(self.names)} classes, > {self.threshold}, group={self.group!r})"
