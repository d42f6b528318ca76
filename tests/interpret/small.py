"""Small models with known structure, and GradCAM written from its equation in float64."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslk.models import Backbone


def cnn(signed: bool = False, width: int = 12) -> Backbone:
    """Pooled channels, non-negative or signed, in float64; 16 x 16 images, maps of 5 x 5."""
    torch.manual_seed(0)
    last: nn.Module = nn.Identity() if signed else nn.ReLU()
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, width, 4),
        nn.BatchNorm2d(width),
        last,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return Backbone(net.double(), name="small", input_size=(16, 16))


def unpooled() -> Backbone:
    """A CNN whose features are a linear map of the pooled channels: no closed form."""
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 10, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(10, 12),
    )
    return Backbone(net.double(), name="unpooled", input_size=(16, 16))


def images(n: int = 5, side: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gradcam(model: nn.Module, layer: nn.Module, image: Tensor, feature: int, sign: float = 1.0) -> Tensor:
    """`relu(sum_c mean(d h_j / d A_c) A_c)` of one image `[3, H, W]`, by autograd; not scaled."""
    maps: list[Tensor] = []
    handle = layer.register_forward_hook(lambda m, i, output: maps.append(output))
    output = model(image[None])[0, feature] * sign
    handle.remove()
    (gradient,) = torch.autograd.grad(output, maps[0])
    return (gradient.mean((2, 3), keepdim=True) * maps[0]).sum(1)[0].relu().detach()


def scaled(heat: Tensor, size: tuple[int, int]) -> Tensor:
    """Resized bilinearly and divided by the maximum."""
    resized = F.interpolate(heat[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
    return resized / resized.max() if resized.max() > 0 else resized
