"""What a way of drawing maps is given and gives: the model with its layer, and maps of (image, feature) pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslk.models import Backbone

Method = Literal["closed form", "GradCAM", "gradient x token"]


@dataclass(frozen=True, eq=False)
class RawMaps:
    """The representations of a batch and a way to ask where single features of single images look.

    Attributes:
        features: `[n, D]`, what the model (or the head on it) puts out.
        pairs: (rows, columns, signs) int64, int64, float, each `[K]`, rows ascending -> maps `[K, h, w]`, not negative
            and not scaled: GradCAM of `signs[k] * features[rows[k], columns[k]]`.
    """

    features: Tensor
    pairs: Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class MapMethod:
    """How the maps of a model are computed; made by `map_method`, called with batches of images `[n, C, H, W]`.

    Attributes:
        name: `closed form` (relu of the channel), `GradCAM` (captum) or `gradient x token`.
        layer: dotted name of the layer whose output is looked at.
        model: the backbone.
        head: a module on the representations whose outputs take the place of the features; None for the features.
        compute: the function behind the name.
    """

    name: Method
    layer: str
    model: Backbone
    head: nn.Module | None
    compute: Callable[[MapMethod, Tensor], RawMaps]

    def __call__(self, images: Tensor) -> RawMaps:
        return self.compute(self, images)

    def output(self, images: Tensor) -> Tensor:
        """Features, or the head's outputs, `[n, D]`."""
        features = self.model(images)
        return features if self.head is None else self.head(features)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; its training flags are restored."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def resize_and_scale(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps `[..., h, w]` resized bilinearly and divided by their maximum; `[..., H, W]`, empty maps stay 0."""
    flat = maps.reshape(-1, 1, *maps.shape[-2:]).float()
    if tuple(maps.shape[-2:]) != tuple(size) and len(flat):
        flat = F.interpolate(flat, size=tuple(size), mode="bilinear", align_corners=False)
    elif not len(flat):
        flat = flat.new_zeros(0, 1, *size)
    flat = flat / positive_peaks(flat.flatten(1).amax(1) if len(flat) else flat.new_zeros(0))[:, None, None, None]
    return flat.view(*maps.shape[:-2], *size)


def positive_peaks(peaks: Tensor) -> Tensor:
    """Peaks to divide maps by: 1 for an empty map."""
    return torch.where(peaks > 0, peaks, 1)
