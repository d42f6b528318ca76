"""Images with their masks in the geometry of the model's input, for a loader."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslk.data import Dataset, UnreadableImageError
from sslk.features.unreadable import refusal
from sslk.interpret.masks import MaskSource
from sslk.models import EvaluationTransform


class AnnotatedImages(torch.utils.data.Dataset):
    """Images `[3, H, W]` with their masks, bool `[kinds, H, W]`, all false where there is none."""

    def __init__(self, dataset: Dataset, masks: MaskSource, transform: EvaluationTransform) -> None:
        self.dataset, self.masks, self.transform = dataset, masks, transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        try:
            image, _ = self.dataset[index]
        except UnreadableImageError as error:
            raise refusal(error) from error
        found = self.masks(index, image.height, image.width)
        regions = torch.zeros(len(self.masks.kinds), *self.transform.size, dtype=torch.bool)
        for number, kind in enumerate(self.masks.kinds):
            if kind in found:
                regions[number] = self._fitted(found[kind], image.height, image.width, index)
        return self.transform(image), regions

    def _fitted(self, mask: np.ndarray, height: int, width: int, index: int) -> Tensor:
        if mask.shape == (height, width):
            return self.transform.mask(mask)
        if mask.shape == self.transform.size:
            return torch.from_numpy(mask)
        raise ValueError(
            f"the mask of {self.dataset.image_name(index)} is {list(mask.shape)}; it must have the image's size "
            f"{[height, width]} or that of the model's input {list(self.transform.size)}."
        )
