"""The masking ops: variants of images with parts removed, discs, and the overlap of heatmaps with masks."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def circular_mask(height: int, width: int, radius: float | None = None) -> Tensor:
    """Pixel centres within `radius` of the image centre, bool `[H, W]`; half the area by default."""
    radius = math.sqrt(height * width / (2 * math.pi)) if radius is None else radius
    y = torch.arange(height, dtype=torch.float64) + 0.5 - height / 2
    x = torch.arange(width, dtype=torch.float64) + 0.5 - width / 2
    return y[:, None].square() + x[None, :].square() <= radius * radius


def masked_variants(
    images: Tensor,
    foreground: Tensor | None,
    mean: list[float],
    std: list[float],
    variants: list[int],
    radius: float | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Scale to [0, 1], normalise, then mask: `[V, N, C, H, W]`."""
    scaled = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    shape = (1, -1, 1, 1)
    normalised = (scaled - scaled.new_tensor(mean).view(shape)) / scaled.new_tensor(std).view(shape)
    normalised = normalised.to(dtype or torch.float32)
    disc = circular_mask(images.shape[2], images.shape[3], radius).to(images.device)
    out = []
    for variant in variants:
        if variant == 0:
            out.append(normalised)
            continue
        mask = disc.expand(images.shape[0], -1, -1) if variant >= 3 else foreground
        assert mask is not None
        keep = mask if variant in (1, 3) else ~mask
        out.append(torch.where(keep[:, None], normalised, 0.0))
    return torch.stack(out).contiguous()


def _at_most(value: float, dtype: torch.dtype) -> float:
    """The largest number of a dtype that is not above a value: exceeding one is exceeding the other."""
    rounded = torch.tensor(value, dtype=dtype, device="cpu")
    below = torch.nextafter(rounded, torch.tensor(-math.inf, dtype=dtype, device="cpu"))
    return float(below if float(rounded) > value else rounded)


def heatmap_iou(heat: Tensor, mask: Tensor, threshold: float = 0.0) -> Tensor:
    """`s(R & M) / s(R | M)` with R the pixels above the threshold and s the sum of heat over a region, `[N]`."""
    heat = heat if heat.dtype == torch.float64 else heat.float()
    region = heat > _at_most(threshold, heat.dtype)
    intersection = torch.where(region & mask, heat, 0.0).sum(dim=(1, 2))
    union = torch.where(region | mask, heat, 0.0).sum(dim=(1, 2))
    iou = torch.where((union == 0) & (intersection == 0), 0.0, intersection / union)
    return torch.where(heat.isnan().any(dim=2).any(dim=1), torch.nan, iou)
