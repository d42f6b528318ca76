"""Small real networks under random weights, for tests that load them back."""

from __future__ import annotations

import itertools

import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock


def randomised(net: nn.Module, seed: int) -> nn.Module:
    """Every parameter and statistic random, so that no tensor can be left out or swapped unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            if tensor.ndim > 1:
                tensor.sub_(1).mul_(3 / tensor[0].numel() ** 0.5)
    return net.eval()


def small_resnet() -> nn.Module:
    """torchvision's ResNet with one block a stage: the names of all its ResNets, and 20 MB instead of 100."""
    net = torchvision.models.ResNet(BasicBlock, [1, 1, 1, 1])
    net.fc = nn.Identity()
    return net


def small_vit(**options: int) -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", num_classes=0, **{"depth": 2, "img_size": 64, **options})


def small_dinov2(name: str = "vit_small_patch14_dinov2") -> nn.Module:
    return timm.create_model(name, img_size=56, depth=2, num_classes=0)


def mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(itertools.pairwise(widths)):
        layers += [nn.Linear(before, after)]
        if i < len(widths) - 2:
            layers += [nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers)


def under(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in module.state_dict().items()}


def features_are_equal(net: nn.Module, loaded: nn.Module, size: int = 64) -> None:
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = net(images)
        assert torch.isfinite(expected).all()
        assert expected.std() > 0
        assert torch.equal(loaded.eval()(images), expected)
