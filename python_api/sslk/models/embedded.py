"""The encoder that ships with the package: SimCLR on CIFAR-10, pre-trained by this project; see PROVENANCE.md."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from sslk.models.cifar_resnet import CifarResNet

WEIGHTS = Path(__file__).parent / "weights"


def _read(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(WEIGHTS / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        metadata = file.metadata()
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}, metadata


def load_embedded() -> tuple[CifarResNet, dict[str, str]]:
    """The embedded encoder in evaluation mode, float32, and its metadata (method, epochs, probe accuracy, ...).

    >>> encoder, metadata = load_embedded()
    >>> encoder(torch.zeros(1, 3, 32, 32)).shape, metadata["method"]
    (torch.Size([1, 256]), 'SimCLR')
    """
    state, metadata = _read("encoder")
    architecture = json.loads(metadata["architecture"])
    encoder = CifarResNet(architecture["channels"], architecture["blocks"])
    encoder.load_state_dict(state)
    return encoder.eval(), metadata


def load_embedded_projector() -> nn.Module:
    """The projector the embedded encoder was trained with (lightly's SimCLR head, 256-256-128), for further training."""
    from lightly.models.modules.heads import SimCLRProjectionHead

    state, metadata = _read("projector")
    projector = SimCLRProjectionHead(*json.loads(metadata["projector"])["dimensions"])
    projector.load_state_dict(state)
    return projector


def normalize_images(images: Tensor) -> Tensor:
    """uint8 images `[N, 3, H, W]` scaled to [0, 1] and normalised as the embedded encoder expects."""
    from sslk.data.augment import CIFAR10_MEAN, CIFAR10_STD

    mean, std = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (CIFAR10_MEAN, CIFAR10_STD))
    return (images.float() / 255 - mean) / std
