"""Heatmaps of features: what single features and a sample's discriminative features look at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import ssl_kernels
from sslk.interpret.maps import map_method
from sslk.interpret.raw_maps import MapMethod, RawMaps, evaluating, positive_peaks, resize_and_scale
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.quality.score import resolve_set


@dataclass(frozen=True, eq=False)
class HeatmapSettings:
    """How maps are drawn.

    Attributes:
        eps: threshold in standard deviations; as stored in the set by default, 4 for a bare mask.
        two_sided: large negative deviations count too; as stored in the set by default, not for a bare mask.
        layer: dotted name of another layer to look at.
        head: module on the representations whose outputs take the place of the features, such as a classifier; the closed
            form holds for `nn.Linear`.
        size: height and width of the maps; those of the images by default.
        batch_size: images per forward pass.
    """

    eps: float | None = None
    two_sided: bool | None = None
    layer: str | None = None
    head: nn.Module | None = None
    size: tuple[int, int] | None = None
    batch_size: int = 64


@dataclass(frozen=True, eq=False)
class Heatmaps:
    """Heatmaps of a batch of images, in [0, 1]; each map that is not empty has the maximum 1.

    Attributes:
        combined: `[N, H, W]`, mean of the max-normalised maps of the features in `L_i` and S; zero without one. None
            where no set was given.
        per_feature: `[N, F, H, W]`, of the features asked for; None where none were.
        counts: int64 `[N]`, how many features each combined map holds; None without a set.
        representations: `[N, D]`.
        method: `closed form`, `GradCAM` or `gradient x token`.
        layer: where the maps were taken.
    """

    combined: Tensor | None
    per_feature: Tensor | None
    counts: Tensor | None
    representations: Tensor
    method: str
    layer: str

    @property
    def has_map(self) -> Tensor:
        """bool `[N]`: whether the combined map holds any heat.

        Raises:
            ValueError: there are no combined maps.
        """
        if self.combined is None:
            raise ValueError("combined maps need discriminative=..., only features were asked for.")
        return self.combined.flatten(1).amax(1) > 0


def feature_heatmaps(
    model: nn.Module,
    images: Tensor,
    features: Sequence[int] | Tensor | None = None,
    discriminative: DiscriminativeFeatures | Tensor | None = None,
    settings: HeatmapSettings = HeatmapSettings(),
) -> Heatmaps:
    """What features look at: GradCAM of every feature, in closed form where features are pooled channels.

    There `h_j` is the spatial mean of channel j of the last feature map, and its GradCAM is exactly `relu(channel j)` up
    to scale: no backward pass is needed. Other models, layers and heads go through captum's GradCAM, transformers through
    gradient x token; a warning and the result's `method` say so. The gradient is that of the feature before any division
    by the row's norm. Features that count because they are far below the row's mean (`two_sided`) get the map of `-h_j`.

    Args:
        model: a `Backbone`, or any module `[N, C, H, W]` -> `[N, D]`; run in eval mode on the device it is on, no
            gradient is left behind.
        images: `[N, C, H, W]`, normalised as the model expects.
        features: indices of features, one map each per image.
        discriminative: the set S (what `sslk.discover` returned, or a bool mask `[D]`): one map per image, of the
            features in both `L_i` and S. At least one of `features` and `discriminative` is needed.
        settings: thresholds, layer, head, size of the maps.

    Returns:
        Maps in [0, 1], resized bilinearly. For more images than fit in memory see `heatmap_batches`.

    Raises:
        ValueError: neither features nor a set, an index out of range, a set of another D, images of another shape.
        TypeError: indices that are no integers, a set that is no bool mask.

    Examples:
        >>> import torch, sslk
        >>> backbone = sslk.load_backbone("embedded")
        >>> images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> maps = sslk.feature_heatmaps(backbone, images, features=[3, 7])
        >>> maps.per_feature.shape, maps.method
        (torch.Size([4, 2, 32, 32]), 'closed form')
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(f"images must be floating-point [N, C, H, W], normalised, got {images.dtype} {list(images.shape)}.")
    if not len(images):
        raise ValueError("images must hold at least one image, got none.")
    if settings.batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {settings.batch_size}.")
    parts = list(heatmap_batches(model, images.split(settings.batch_size), features, discriminative, settings))

    def joined(name: str) -> Tensor | None:
        return None if getattr(parts[0], name) is None else torch.cat([getattr(part, name) for part in parts])

    return Heatmaps(
        joined("combined"),
        joined("per_feature"),
        joined("counts"),
        torch.cat([p.representations for p in parts]),
        parts[0].method,
        parts[0].layer,
    )


def heatmap_batches(
    model: nn.Module,
    batches: Iterable[Tensor],
    features: Sequence[int] | Tensor | None = None,
    discriminative: DiscriminativeFeatures | Tensor | None = None,
    settings: HeatmapSettings = HeatmapSettings(),
) -> Iterator[Heatmaps]:
    """`feature_heatmaps` of batches of images, one after the other: memory for one batch, any number of images.

    Examples:
        >>> import torch, sslk
        >>> batches = (torch.randn(2, 3, 32, 32) for _ in range(3))
        >>> [len(maps.per_feature) for maps in heatmap_batches(sslk.load_backbone("embedded"), batches, features=[0])]
        [2, 2, 2]
    """
    if features is None and discriminative is None:
        raise ValueError("features or discriminative must say which features to draw, got neither.")
    method: MapMethod | None = None
    for images in batches:
        if method is None:
            method = map_method(model, tuple(images.shape[1:]), layer=settings.layer, head=settings.head)
        with evaluating(method.model):
            raw = method(images)
            shape = settings.size or (images.shape[-2], images.shape[-1])
            combined = counts = per_feature = None
            if discriminative is not None:
                active, signs = active_features(raw.features, discriminative, settings.eps, settings.two_sided)
                combined, counts = combine(raw, active, signs, shape), active.sum(1)
            if features is not None:
                per_feature = _per_feature(raw, _check_indices(features, raw.features.shape[1]), shape)
        yield Heatmaps(combined, per_feature, counts, raw.features, method.name, method.layer)


def active_features(
    features: Tensor, discriminative: DiscriminativeFeatures | Tensor, eps: float | None = None, two_sided: bool | None = None
) -> tuple[Tensor, Tensor]:
    """The features in both `L_i` and S, bool `[n, D]`, and the side of the mean that each is on, 1 or -1, `[n, D]`."""
    mask, eps, two_sided = resolve_set(discriminative, features.shape[1], eps, two_sided)
    active = ssl_kernels.activating_mask(features, eps, two_sided) & mask.to(features.device)
    above = features >= features.mean(1, keepdim=True)
    return active, torch.where(above | (not two_sided), 1.0, -1.0)


def combine(raw: RawMaps, active: Tensor, signs: Tensor, size: tuple[int, int]) -> Tensor:
    """Mean of the max-normalised maps of the chosen features of each image, resized and scaled to [0, 1].

    Args:
        raw: of n images.
        active: bool `[n, D]`.
        signs: `[n, D]`.
        size: height and width.

    Returns:
        `[n, H, W]`; zero where no feature was chosen.
    """
    rows, columns = active.nonzero(as_tuple=True)
    maps = raw.pairs(rows, columns, signs[rows, columns])
    maps = maps / positive_peaks(maps.flatten(1).amax(1))[:, None, None]
    counts = active.sum(1)
    if len(rows):
        # Sums of segments, unlike index_add, have one order on every device.
        total = torch.segment_reduce(maps.flatten(1).float(), "sum", lengths=counts, axis=0, initial=0)
    else:
        total = maps.new_zeros(len(active), maps.shape[1] * maps.shape[2])
    mean = total / counts.clamp(min=1)[:, None]
    return resize_and_scale(mean.view(len(active), *maps.shape[1:]), size)


def _per_feature(raw: RawMaps, indices: Tensor, size: tuple[int, int]) -> Tensor:
    count, width = len(raw.features), len(indices)
    indices = indices.to(raw.features.device)
    rows = torch.arange(count, device=indices.device).repeat_interleave(width)
    maps = raw.pairs(rows, indices.repeat(count), torch.ones(len(rows), device=indices.device))
    return resize_and_scale(maps.view(count, width, *maps.shape[1:]), size)


def _check_indices(features: Sequence[int] | Tensor, num_features: int) -> Tensor:
    indices = torch.as_tensor(features)
    if indices.ndim != 1 or not len(indices) or indices.is_floating_point() or indices.dtype == torch.bool:
        raise TypeError(f"features must be a list of feature numbers, got {features!r:.60}.")
    if int(indices.min()) < 0 or int(indices.max()) >= num_features:
        raise ValueError(f"features must be from 0 to {num_features - 1}, got {int(indices.min())} to {int(indices.max())}.")
    return indices.long()
