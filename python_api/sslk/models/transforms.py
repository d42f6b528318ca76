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

if TYPE_CHECKING:
    from sslk.models.backbone import Backbone


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
        """A PIL image -> `[3, H, W]`, float32, or uint8 where `normalize` is False."""
        cropped = self.crop(image.convert("RGB"), InterpolationMode(self.interpolation))
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
        if height == width:
            resized = F.resize(image, [height], interpolation)
        else:
            scale = max(height / image.height, width / image.width)
            covering = [max(height, round(image.height * scale)), max(width, round(image.width * scale))]
            resized = F.resize(image, covering, interpolation)
        return F.center_crop(resized, [height, width])


def evaluation_transform(backbone: Backbone, *, image_size: int | None = None, normalize: bool = True) -> EvaluationTransform:
    """The papers' evaluation transform with a backbone's own input size, normalisation and interpolation.

    Args:
        backbone: Says what it expects.
        image_size: Side of the square crop instead of the backbone's own size. CIFAR backbones take 32: images of 32
            pixels pass unresampled.
        normalize: See `EvaluationTransform`.

    >>> from sslk.models import load_backbone
    >>> evaluation_transform(load_backbone("cifar:compact")).size
    (32, 32)
    """
    size = backbone.input_size if image_size is None else (image_size, image_size)
    if min(size) < 1:
        raise ValueError(f"image_size must be positive, got {image_size}")
    transform = EvaluationTransform(size, backbone.mean, backbone.std, backbone.interpolation)
    return replace(transform, normalize=normalize)
