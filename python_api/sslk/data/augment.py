"""SimCLR's augmentations on whole batches of small images, fast enough for two CPU cores."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)

# NTSC: the first row is luma; the other two span the chroma plane in which the hue is an angle.
_RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


class BatchSimCLRTransform(nn.Module):
    """One random view of every image of a batch; call it twice for SimCLR's two views.

    Every image draws its own parameters: resized crop (area and aspect ratio), horizontal flip, colour jitter and
    greyscale, then the channels are normalised. All is vectorised: one bilinear `grid_sample` does crop and flip, and
    one 3 x 3 colour matrix per image does brightness, contrast, saturation, hue and greyscale together.

    Two differences from torchvision's `ColorJitter` follow from the matrix: the hue turns in the YIQ plane instead of
    HSV, and values are clipped to [0, 1] once, at the end, so the order of the four steps is immaterial.

    Args:
        size: Height and width of the views, in pixels.
        scale: Range of the crop's share of the image area. Crops are clipped to the image, and not re-drawn.
        ratio: Range of the crop's aspect ratio (width / height), drawn log-uniformly.
        flip_p: Probability of a horizontal flip.
        jitter_p: Probability of colour jitter.
        strength: Colour jitter strength s: brightness, contrast and saturation factors come from 1 +- 0.8 s, the hue
            turns by up to +-0.2 s of a full circle (Chen et al. 2020, appendix A; 0.5 is their choice for CIFAR-10).
        gray_p: Probability of greyscale.
        normalization: Mean and deviation per channel, for images in [0, 1].

    >>> view = BatchSimCLRTransform(24)(torch.zeros(8, 3, 32, 32, dtype=torch.uint8))
    >>> view.shape, view.dtype
    (torch.Size([8, 3, 24, 24]), torch.float32)
    """

    mean: Tensor
    std: Tensor
    to_yiq: Tensor
    from_yiq: Tensor

    def __init__(
        self,
        size: int,
        scale: tuple[float, float] = (0.2, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip_p: float = 0.5,
        jitter_p: float = 0.8,
        strength: float = 0.5,
        gray_p: float = 0.2,
        normalization: tuple[Sequence[float], Sequence[float]] = (CIFAR10_MEAN, CIFAR10_STD),
    ) -> None:
        super().__init__()
        self.size, self.scale, self.ratio = size, scale, ratio
        self.flip_p, self.jitter_p, self.strength, self.gray_p = flip_p, jitter_p, strength, gray_p
        # Constants, not state: they move with .to(device) but stay out of the state dict.
        self.register_buffer("mean", torch.tensor(normalization[0]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(normalization[1]).view(1, 3, 1, 1), persistent=False)
        yiq = torch.tensor(_RGB_TO_YIQ, dtype=torch.float64)
        self.register_buffer("to_yiq", yiq.float(), persistent=False)
        self.register_buffer("from_yiq", torch.linalg.inv(yiq).float(), persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw one view per image.

        Args:
            images: `[N, 3, H, W]`, uint8 in [0, 255] or floating point in [0, 1].
            generator: Source of all random numbers, on the images' device; default: torch's global one.

        Returns:
            Normalised float32 views, `[N, 3, size, size]`.

        Raises:
            ValueError: If `images` is not `[N, 3, H, W]`.
            TypeError: If `images` is neither uint8 nor floating point.
        """
        return self.render(images, self.draw(len(images), generator, images.device))

    def draw(self, count: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu") -> Tensor:
        """The random numbers `[11, count]` of as many views, uniform in [0, 1): a column decides all about one view."""
        return torch.rand(11, count, generator=generator, device=device)

    @torch.no_grad()
    def render(self, images: Tensor, numbers: Tensor) -> Tensor:
        """The views that `numbers` `[11, N]` describe; `forward` is `render(images, draw(...))`."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be [N, 3, H, W], got {list(images.shape)}")
        if images.dtype == torch.uint8:
            images = images.float() / 255
        elif images.is_floating_point():
            images = images.float()
        else:
            raise TypeError(f"images must be uint8 or floating point, got {images.dtype}")
        views = self._crop_and_flip(images, numbers[:5])
        return (self._recolour(views, numbers[5:]).clamp_(0, 1) - self.mean) / self.std

    def _crop_and_flip(self, images: Tensor, u: Tensor) -> Tensor:
        area = self.scale[0] + (self.scale[1] - self.scale[0]) * u[0]
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = torch.exp(low + (high - low) * u[1])
        width = (area * ratio).sqrt().clamp(max=1)
        height = (area / ratio).sqrt().clamp(max=1)
        # grid_sample spans the image with [-1, 1], so a crop of relative width w has its centre within 1 - w.
        theta = images.new_zeros(len(images), 2, 3)
        theta[:, 0, 0] = torch.where(u[4] < self.flip_p, -width, width)
        theta[:, 1, 1] = height
        theta[:, 0, 2] = (1 - width) * (2 * u[2] - 1)
        theta[:, 1, 2] = (1 - height) * (2 * u[3] - 1)
        grid = F.affine_grid(theta, [len(images), 3, self.size, self.size], align_corners=False)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def _recolour(self, views: Tensor, u: Tensor) -> Tensor:
        jitter = u[0] < self.jitter_p
        brightness, contrast, saturation = torch.where(jitter, 1 + 0.8 * self.strength * (2 * u[1:4] - 1), 1.0)
        angle = torch.where(jitter, 2 * math.pi * 0.2 * self.strength * (2 * u[4] - 1), 0.0)
        chroma = torch.where(u[5] < self.gray_p, 0.0, saturation)
        gain = brightness * contrast
        # In YIQ: luma scaled by the gain; chroma scaled by gain and saturation and turned by the hue angle.
        in_yiq = views.new_zeros(len(views), 3, 3)
        in_yiq[:, 0, 0] = gain
        in_yiq[:, 1, 1] = in_yiq[:, 2, 2] = gain * chroma * angle.cos()
        in_yiq[:, 2, 1] = gain * chroma * angle.sin()
        in_yiq[:, 1, 2] = -in_yiq[:, 2, 1]
        matrix = self.from_yiq @ in_yiq @ self.to_yiq
        # Contrast blends with the image's mean luma, which neither hue nor saturation changes.
        mean_luma = views.mean(dim=(2, 3)) @ self.to_yiq[0]
        offset = brightness * (1 - contrast) * mean_luma
        return torch.baddbmm(offset.view(-1, 1, 1), matrix, views.flatten(2)).view_as(views)
