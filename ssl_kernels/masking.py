"""The masking ops: variants of images with parts removed, discs, and the overlap of heatmaps with masks.

Each documented function calls `torch.ops.sslk.<name>` of the same signature; below them stand their fakes. None is
differentiable and none needs an autocast rule: the output type is an argument or follows the input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_kernels import checks, derivatives

_ops = torch.ops.sslk

#: The variants by name, in the order of their numbers.
VARIANTS = ("original", "foreground", "background", "center", "border")


def masked_variants(
    images: Tensor,
    foreground: Tensor | None,
    mean: Sequence[float],
    std: Sequence[float],
    variants: Sequence[int],
    radius: float | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Images with parts removed: scaled, normalised, masked and cast in one pass over the images.

    Removed pixels are exactly 0, the mean colour, because the mask comes after the normalisation. Foreground +
    background and center + border equal the original exactly, element by element.

    Args:
        images: `[N, C, H, W]`; uint8 (divided by 255) or floating point (taken as 0 to 1). Contiguous and
            channels_last images are read in place.
        foreground: bool `[N, H, W]`, true inside the object; may be None unless variant 1 or 2 is asked for.
        mean, std: one number per channel; the output is `(x - mean) / std`, computed in float32.
        variants: numbers from 0 to 4: original, foreground, background, center, border (see `VARIANTS`).
        radius: of the center disc, in pixels; `sqrt(H W / (2 pi))`, half of the area, by default.
        dtype: of the output: float32 (default), float16 or bfloat16.

    Returns:
        `[V, N, C, H, W]`, contiguous, in the order of `variants`. Not differentiable. Deterministic.

    Raises:
        RuntimeError: a wrong shape, dtype or device, an unknown variant, a missing foreground, std or radius out of
            range.

    Examples:
        >>> import torch, ssl_kernels
        >>> images = torch.full((1, 3, 4, 4), 255, dtype=torch.uint8)
        >>> out = ssl_kernels.masked_variants(images, None, [0.5] * 3, [0.5] * 3, variants=[0, 3, 4])
        >>> out.shape, bool((out[1] + out[2]).equal(out[0]))
        (torch.Size([3, 1, 3, 4, 4]), True)
        >>> out[1, 0, 0]
        tensor([[0., 1., 1., 0.],
                [1., 1., 1., 1.],
                [1., 1., 1., 1.],
                [0., 1., 1., 0.]])
    """
    return _ops.masked_variants(images, foreground, mean, std, variants, radius, dtype)


def circular_mask(height: int, width: int, radius: float | None = None) -> Tensor:
    """The disc that `masked_variants` keeps: bool `[height, width]` on the CPU.

    True where the pixel's centre lies within `radius` pixels of the image's centre; the default radius
    `sqrt(height width / (2 pi))` gives the disc half of the area. Under `torch.compile` and `torch.export` height and
    width are constants: a graph for each size.

    Raises:
        RuntimeError: a negative size; a radius that is negative or not finite.

    Examples:
        >>> import ssl_kernels
        >>> ssl_kernels.circular_mask(4, 4, radius=1.0).int()
        tensor([[0, 0, 0, 0],
                [0, 1, 1, 0],
                [0, 1, 1, 0],
                [0, 0, 0, 0]], dtype=torch.int32)
    """
    return _ops.circular_mask(height, width, radius)


def heatmap_iou(heat: Tensor, mask: Tensor, threshold: float = 0.0) -> Tensor:
    """Overlap of each heatmap with its mask, weighted by heat: `s(R & M) / s(R | M)`.

    R is where the heat exceeds the threshold, M the mask, and `s` the sum of heat over a region; the mean over samples
    is the mIoU of Kalibhat et al. (AAAI 2024).

    Args:
        heat: `[N, H, W]`, not negative as a rule; float64, float32, float16 or bfloat16.
        mask: bool `[N, H, W]`.
        threshold: in units of heat; compared exactly: the float32 nearest to 0.1 exceeds 0.1.

    Returns:
        `[N]`, float32 (float64 for float64 heat), summed in double: 0 where neither region holds any heat, NaN where a
        pixel is NaN. Not differentiable. Deterministic.

    Raises:
        RuntimeError: wrong shape, dtype or device; the threshold is NaN.

    Examples:
        >>> import torch, ssl_kernels
        >>> heat = torch.tensor([[[0.0, 1.0], [3.0, 0.0]]])
        >>> ssl_kernels.heatmap_iou(heat, torch.tensor([[[True, True], [False, False]]]))
        tensor([0.2500])
    """
    return _ops.heatmap_iou(heat, mask, threshold)


@torch.library.register_fake("sslk::masked_variants")
def _(
    images: Tensor,
    foreground: Tensor | None,
    mean: Sequence[float],
    std: Sequence[float],
    variants: Sequence[int],
    radius: float | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    checks.masked_variants(images, foreground, mean, std, variants, radius, dtype)
    return images.new_empty((len(variants), *images.shape), dtype=dtype or torch.float32)


@torch.library.register_fake("sslk::circular_mask")
def _(height: int, width: int, radius: float | None = None) -> Tensor:
    checks.circular_mask(height, width, radius)
    return torch.empty((height, width), dtype=torch.bool)


@torch.library.register_fake("sslk::heatmap_iou")
def _(heat: Tensor, mask: Tensor, threshold: float = 0.0) -> Tensor:
    checks.heatmap_iou(heat, mask, threshold)
    return heat.new_empty(heat.shape[0], dtype=checks.accumulation(heat))


derivatives.constant("masked_variants")
derivatives.constant("heatmap_iou")
