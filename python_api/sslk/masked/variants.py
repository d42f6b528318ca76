"""The variants of an image: the paper's five in one pass of the kernel, and other occluders beside them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

import ssl_kernels
from ssl_kernels.masking import VARIANTS

#: Variants that need a foreground mask.
NEED_FOREGROUND = ("foreground", "background", "blurred-background")


@dataclass(frozen=True)
class Batch:
    """What an occluder may use of a batch.

    Attributes:
        pixels: uint8 `[n, 3, H, W]`.
        original: the normalised images, `[n, 3, H, W]`; 0 is the mean colour.
        foreground: bool `[n, H, W]`.
        normalize: maps uint8 pixels to normalised ones.
    """

    pixels: Tensor
    original: Tensor
    foreground: Tensor
    normalize: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class RandomPatches:
    """A random half of the patches of a grid removed, other ones in every image.

    The places depend on the pixels of the image and the seed alone, so they are the same in any batch and any order.

    Attributes:
        grid: patches per side.
        share: of the patches, removed.
        seed: of the places.
    """

    grid: int = 7
    share: float = 0.5
    seed: int = 0

    def __call__(self, batch: Batch) -> Tensor:
        """`[n, 3, H, W]`."""
        height, width = batch.original.shape[2:]
        kept = torch.stack([self._kept(int(total)) for total in batch.pixels.sum((1, 2, 3), dtype=torch.int64)])
        rows = torch.arange(height) * self.grid // height
        columns = torch.arange(width) * self.grid // width
        mask = kept[:, rows][:, :, columns][:, None].to(batch.original.device)
        return torch.where(mask, batch.original, 0.0)

    def _kept(self, total: int) -> Tensor:
        # A sum of pixels is the same however the image is batched, and differs between images.
        order = torch.from_numpy(np.random.default_rng([self.seed, total]).permutation(self.grid**2))
        return (order >= round(self.share * self.grid**2)).view(self.grid, self.grid)


@dataclass(frozen=True)
class BlurredBackground:
    """The background blurred instead of removed: no hard edge, no unseen colour.

    Attributes:
        sigma: standard deviation of the Gaussian, as a share of the image's shorter side.
    """

    sigma: float = 0.1

    def __call__(self, batch: Batch) -> Tensor:
        """`[n, 3, H, W]`."""
        side = min(batch.pixels.shape[2:])
        radius = min(side - 1, math.ceil(3 * self.sigma * side))
        if radius < 1:
            return batch.original
        blurred, width, sigma = batch.pixels.float(), 2 * radius + 1, [self.sigma * side] * 2
        for size in ([width, 1], [1, width]):  # one axis after the other: torchvision's kernel is not separated
            blurred = gaussian_blur(blurred, size, sigma)
        blurred = blurred.round().clamp(0, 255).to(batch.pixels.dtype)
        return torch.where(batch.foreground[:, None], batch.original, batch.normalize(blurred))


Occluder = Callable[[Batch], Tensor]

#: Variants beyond the paper's: add a name and a dataclass with `__call__(batch)` to have another.
OCCLUDERS: dict[str, Occluder] = {"random-patches": RandomPatches(), "blurred-background": BlurredBackground()}


class VariantRenderer:
    """Makes the variants of a batch of images: `[n, 4, H, W]` uint8 -> `[V, n, 3, H, W]` normalised.

    Args:
        names: of the paper's five (`original`, `foreground`, `background`, `center`, `border`) and of `OCCLUDERS`.
        mean, std: of the model's normalisation.
        radius: of the disc, as a share of the shorter side; `sqrt(1 / (2 pi))` = 0.399 by default for a square, where
            disc and rest have equal areas.
        occluders: by name, instead of `OCCLUDERS`.

    Removed pixels are exactly 0 after normalisation, the mean colour.

    Raises:
        ValueError: an unknown or repeated name, or a radius that is not positive.

    >>> render = VariantRenderer(["original", "center", "border"], [0.5] * 3, [0.5] * 3)
    >>> images = torch.randint(256, (2, 4, 8, 8), dtype=torch.uint8)
    >>> out = render(images); out.shape, bool((out[1] + out[2]).equal(out[0]))
    (torch.Size([3, 2, 3, 8, 8]), True)
    """

    def __init__(
        self,
        names: Sequence[str] = VARIANTS,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        radius: float | None = None,
        occluders: dict[str, Occluder] | None = None,
    ) -> None:
        self.occluders = OCCLUDERS if occluders is None else occluders
        known = [*VARIANTS, *self.occluders]
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}."
                raise ValueError(f"unknown variant {name!r}, {hint}")
        if not names or len(set(names)) < len(names):
            raise ValueError(f"names must hold at least one variant, each once, got {list(names)}.")
        if radius is not None and not radius > 0:
            raise ValueError(f"radius must be a positive share of the shorter side, got {radius}.")
        self.names = tuple(names)
        self.mean, self.std = list(mean), list(std)
        self.radius = radius

    @property
    def needs_foreground(self) -> bool:
        """Whether any of the variants needs masks; own occluders are taken not to."""
        return any(name in NEED_FOREGROUND for name in self.names)

    def __call__(self, images: Tensor) -> Tensor:
        """The variants in the order of `names`."""
        pixels, foreground = images[:, :3], images[:, 3] > 0
        ours = [VARIANTS.index(name) for name in self.names if name in VARIANTS]
        if len(ours) == len(self.names):
            return self._kernel(pixels, foreground, ours)
        # The original comes along for the occluders where it was not asked for itself.
        numbers = ours if 0 in ours else [0, *ours]
        rendered = dict(zip(numbers, self._kernel(pixels, foreground, numbers), strict=True))
        batch = Batch(pixels, rendered[0], foreground, lambda x: self._kernel(x, None, [0])[0])
        return torch.stack([rendered[VARIANTS.index(n)] if n in VARIANTS else self.occluders[n](batch) for n in self.names])

    def _kernel(self, pixels: Tensor, foreground: Tensor | None, numbers: list[int]) -> Tensor:
        radius = None if self.radius is None else self.radius * min(pixels.shape[2:])
        return ssl_kernels.masked_variants(pixels, foreground, self.mean, self.std, numbers, radius)

    def __repr__(self) -> str:
        """All that decides the pixels: part of a store's identity."""
        radius = "equal areas" if self.radius is None else f"{self.radius:g}"
        settings = ", ".join(name if name in VARIANTS else f"{name} {self.occluders[name]!r}" for name in self.names)
        return f"VariantRenderer({settings}; radius {radius})"
