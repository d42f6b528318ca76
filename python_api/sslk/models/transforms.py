"""The evaluation transform of the papers: resize, centre-crop, scale to [0, 1], normalise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from sslk.data.decode import rgb

if TYPE_CHECKING:
    from torch import nn

_LONGEST = 64  # sides of an image are resized whole up to this ratio


@dataclass(frozen=True)
class EvaluationTransform:
    """Resize until the image just covers `size`, crop its centre, scale to [0, 1], normalise.

    For a square size this is torchvision's `Resize(side)`, `CenterCrop(side)`, `ToTensor()`, `Normalize(mean, std)`.
    An image whose shorter side already fits is not resampled. Its `repr` states everything, for caches.

    Attributes:
        size: Height and width of the result.
        mean, std: Per-channel normalisation.
        interpolation: `bilinear`, `bicubic`, `lanczos` or `nearest`; antialiased.
        normalize: False for the bare pixels, uint8, as `ssl_kernels.masked_variants` takes them.

    >>> transform = EvaluationTransform((32, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    >>> image = Image.new("RGB", (64, 48), (255, 0, 255))
    >>> transform(image).shape, transform(image)[:, 0, 0].tolist()
    (torch.Size([3, 32, 32]), [1.0, -1.0, 1.0])
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    normalize: bool = True

    def __call__(self, image: Image.Image) -> Tensor:
        """A PIL image, in RGB by `sslk.data.decode.rgb` -> `[3, H, W]`, float32, or uint8 where `normalize` is False."""
        if not isinstance(image, Image.Image):
            raise TypeError(f"image must be a PIL image, got {type(image).__name__}: give the data set without its transform.")
        cropped = self.crop(rgb(image), InterpolationMode(self.interpolation))
        if not self.normalize:
            return F.pil_to_tensor(cropped)
        return F.normalize(F.to_tensor(cropped), list(self.mean), list(self.std))

    def mask(self, mask: np.ndarray) -> Tensor:
        """A label map `[H, W]` of integers up to 255 or bools through the same geometry, nearest neighbour."""
        resized = self.crop(Image.fromarray(mask.astype(np.uint8)), InterpolationMode.NEAREST)
        labels = torch.from_numpy(np.array(resized))
        return labels.bool() if mask.dtype == bool else labels

    def crop(self, image: Image.Image, interpolation: InterpolationMode) -> Image.Image:
        """The geometry alone."""
        height, width = self.size
        image = _middle(image)
        if height == width:
            resized = F.resize(image, [height], interpolation)
        else:
            scale = max(height / image.height, width / image.width)
            covering = [max(height, round(image.height * scale)), max(width, round(image.width * scale))]
            resized = F.resize(image, covering, interpolation)
        return F.center_crop(resized, [height, width])


def _middle(image: Image.Image) -> Image.Image:
    """The middle of a strip, which is all that a central crop sees: resizing one of 5000 x 1 pixels whole takes a gigabyte."""
    across, down = (max(0, (long - _LONGEST * short) // 2) for long, short in (image.size, image.size[::-1]))
    return image.crop((across, down, image.width - across, image.height - down)) if across or down else image


def evaluation_transform(backbone: nn.Module, *, image_size: int | None = None, normalize: bool = True) -> EvaluationTransform:
    """The papers' evaluation transform with a backbone's own input size, normalisation and interpolation.

    Args:
        backbone: A `Backbone` says what it expects; a bare module is taken as `as_backbone` takes it.
        image_size: Side of the square crop instead of the backbone's own size. CIFAR backbones take 32: images of 32
            pixels pass unresampled.
        normalize: See `EvaluationTransform`.

    >>> from sslk.models import load_backbone
    >>> evaluation_transform(load_backbone("cifar:compact", "random")).size
    (32, 32)
    """
    from sslk.models.custom import as_backbone

    backbone = as_backbone(backbone, image_size=image_size)
    size = backbone.input_size if image_size is None else (image_size, image_size)
    if min(size) < 1:
        raise ValueError(f"image_size must be positive, got {image_size}")
    transform = EvaluationTransform(size, backbone.mean, backbone.std, backbone.interpolation)
    return replace(transform, normalize=normalize)
