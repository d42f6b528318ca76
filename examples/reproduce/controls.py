"""The study's controls: the encoders' own network trained with labels, and with nothing but its seeded initial values."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save

from examples.reproduce.supervised import SupervisedConfig, supervised
from sslk.models.cifar_resnet import CifarResNet
from sslk.progress import Progress
from sslk.results.atomic import write_atomically

CROPS = 2 / 3  # of the epochs


def supervised_control(data: str, out: str, epochs: int, seed: int = 0, progress: Progress | None = None) -> None:
    """Train the compact network with labels, where no supervised encoder is packaged.

    Args:
        data: an .npz with `images` and `labels`.
        out: safetensors file for network and head.
        epochs: passes over the images.
        seed: of initial values, order and augmentation.
        progress: called with what is done and to do.
    """
    config = SupervisedConfig(epochs=epochs, crop_epochs=round(CROPS * epochs), seed=seed)
    supervised(data, out, config, progress=progress)


def untrained(out: str, seed: int = 0, progress: Progress | None = None) -> None:
    """Write the compact network with its initial values.

    Args:
        out: safetensors file.
        seed: of the initial values.
        progress: accepted like by every step; there is nothing to tell.
    """
    torch.manual_seed(seed)
    tensors = {name: value.contiguous() for name, value in CifarResNet().state_dict().items()}
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    about = {"method": "untrained", "seed": seed, "torch": torch.__version__}
    write_atomically(Path(out), save(tensors, {"about": json.dumps(about)}))
