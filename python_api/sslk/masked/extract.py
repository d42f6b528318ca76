"""Representations of all variants of every image: one decode, V forward passes, one feature store.

A row of the store is an image; the V representations stand side by side in it, `[n, V * D]`. So the variants of an
image can never come apart, and everything a feature store does (resume, verify, stream, several processes) holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike

import torch
from torch import Tensor, nn

from sslk.features import FeatureStore, StoreError, extract
from sslk.features.settings import ExtractSettings
from sslk.masked.images import MaskedImages
from sslk.masked.variants import VariantRenderer
from sslk.models import as_backbone
from sslk.progress import Progress


class MaskedBackbone(nn.Module):
    """A backbone that sees every image in V variants: uint8 `[n, 4, H, W]` -> `[n, V * D]`.

    Args:
        backbone: a `Backbone` or a bare module, maps normalised images to representations `[n, D]`.
        renderer: makes the variants.

    >>> from sslk.models import load_backbone
    >>> backbone = load_backbone("embedded")
    >>> model = MaskedBackbone(backbone, VariantRenderer(["original", "center"], backbone.mean, backbone.std))
    >>> model(torch.zeros(3, 4, 32, 32, dtype=torch.uint8)).shape
    torch.Size([3, 512])
    """

    def __init__(self, backbone: nn.Module, renderer: VariantRenderer) -> None:
        super().__init__()
        backbone = as_backbone(backbone)
        self.backbone, self.renderer = backbone, renderer
        self.name, self.signed, self.feature = backbone.name, backbone.signed, backbone.feature
        self.variants = renderer.names
        self.num_features = len(renderer.names) * backbone.num_features

    @property
    def weights_hash(self) -> str:
        """That of the backbone."""
        return self.backbone.weights_hash

    def forward(self, images: Tensor) -> Tensor:
        """The representations of all variants, side by side."""
        return torch.cat([self.backbone(variant) for variant in self.renderer(images)], dim=1)


def extract_variants(
    backbone: nn.Module,
    images: MaskedImages,
    out: str | PathLike[str],
    renderer: VariantRenderer | None = None,
    settings: ExtractSettings = ExtractSettings(batch_size=128, shard_rows=1024, workers=0),  # noqa: B008 (frozen)
    progress: Progress | None = None,
) -> FeatureStore:
    """Extract the representations of all variants of all images into one feature store with a variant axis.

    Args:
        backbone: the model, a `Backbone` or a bare module; what is not said here is as for `sslk.features.extraction`.
        images: from which masks, and which images.
        out: folder of the store.
        renderer: the variants; the paper's five with the backbone's normalisation by default.

    Raises:
        ValueError: a variant needs masks and images has none.
        StoreError: out holds another extraction; the fields that differ are named.
    """
    backbone = as_backbone(backbone)
    if renderer is None:
        renderer = VariantRenderer(mean=backbone.mean, std=backbone.std)
    if renderer.needs_foreground and images.masks is None:
        raise ValueError(f"images must have masks for the variants {', '.join(renderer.names)}, but none were given.")
    # The store tells extractions apart by this text.
    images.transform = f"{images.geometry!r} as uint8, {renderer!r}"
    return extract(MaskedBackbone(backbone, renderer), images, out, settings, progress=progress)


def variant_features(store: FeatureStore, batch_size: int = 1024) -> Iterator[tuple[Tensor, ...]]:
    """The V representations `[n, D]` of the images, batch by batch, in the order of `store.spec.variants`.

    Raises:
        StoreError: the store has no variants, or is not complete.
    """
    width = variant_width(store)
    for batch in store.require().batches(batch_size):
        yield batch.features.split(width, dim=1)


def variant_width(store: FeatureStore) -> int:
    """D, the width of one variant's representation.

    Raises:
        StoreError: the store has no variants.
    """
    if not store.spec.variants:
        raise StoreError(f"{store.path} holds plain representations, needed are those of variants: use sslk masked study.")
    return store.num_features // len(store.spec.variants)
