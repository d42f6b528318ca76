"""Augmentation online: crops and flips of every image, through the frozen encoder, in every epoch of a probe."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sslk.data.augment import BatchSimCLRTransform
from sslk.data.dataset import Dataset
from sslk.models import as_backbone, evaluation_transform
from sslk.probes.rows import EncoderRows
from sslk.probes.usable import whole_labels


def encoder_rows(
    backbone: nn.Module,
    dataset: Dataset,
    device: str | torch.device = "cpu",
    workers: int = 4,
    scale: tuple[float, float] = (0.25, 1.0),
) -> EncoderRows:
    """Rows for `linear_probe`: random resized crops and flips in training, the evaluation transform otherwise.

    Args:
        backbone: a `Backbone` or a bare module, frozen; evaluated without gradients, its buffers do not change.
        dataset: labelled images; its transform is replaced by the evaluation crop without normalisation.
        device: where the backbone is.
        workers: loading processes.
        scale: range of the crops' share of the image.

    Raises:
        ValueError: the data set has no labels.

    Examples:
        >>> from sslk.data import load_dataset
        >>> from sslk.models import load_backbone
        >>> rows = encoder_rows(load_backbone("embedded"), load_dataset("sample", "test"), workers=0)
        >>> next(iter(rows.ordered(torch.arange(3)))).shape
        torch.Size([3, 256])
    """
    backbone = as_backbone(backbone)
    if dataset.labels is None:
        raise ValueError(f"dataset must have labels, {dataset.name} has none.")
    dataset.transform = evaluation_transform(backbone, normalize=False)
    channels = backbone.mean, backbone.std
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in channels)
    views = BatchSimCLRTransform(backbone.input_size[0], scale, jitter_p=0.0, gray_p=0.0)
    views.mean, views.std = mean.cpu(), std.cpu()  # the backbone's own normalisation in place of CIFAR-10's

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        return views(images, generator).to(device)

    def plain(images: Tensor) -> Tensor:
        return (images.to(device).float() / 255 - mean) / std

    labels = whole_labels(dataset.labels, "dataset.labels")
    view: Callable[[Tensor, torch.Generator], Tensor] = augment
    return EncoderRows(backbone, dataset, labels, view, plain, device, workers)
