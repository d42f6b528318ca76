"""The study's controls: the encoders' own network trained with labels, and with nothing but its seeded initial values.

The supervised one is trained briefly on the study's training images; it shows what labels bring at this scale and is no
contender: the self-supervised encoders saw more images for longer.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from sslk.data.augment import CIFAR10_MEAN, CIFAR10_STD
from sslk.models.cifar_resnet import CifarResNet
from sslk.progress import Progress
from sslk.results.atomic import write_atomically


def supervised(
    data: str,
    out: str,
    epochs: int = 4,
    batch_size: int = 128,
    learning_rate: float = 0.2,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Train the compact network with labels: SGD with one learning-rate cycle, random flips and shifts of 4 pixels.

    Args:
        data: an .npz with `images` and `labels`.
        out: safetensors file for the encoder, which `load_backbone("cifar:compact", out)` reads.
        epochs: passes over the images.
        batch_size: images per step; the last, shorter batch of an epoch is dropped.
        learning_rate: peak.
        seed: of initial values, order and augmentation.
        progress: called with what is done and to do.
    """
    with np.load(data) as arrays:
        images = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2).contiguous()
        labels = torch.from_numpy(arrays["labels"]).long()
    torch.manual_seed(seed)
    encoder = CifarResNet()
    head = nn.Linear(encoder.num_features, int(labels.max()) + 1)
    parameters = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=learning_rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = epochs * (len(images) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CIFAR10_MEAN, CIFAR10_STD))
    generator = torch.Generator().manual_seed(seed)
    started, done, loss = time.monotonic(), 0, torch.tensor(0.0)
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=generator).split(batch_size):
            if len(rows) < batch_size:
                continue
            batch = (_augmented(images[rows], generator).float() / 255 - mean) / std
            loss = F.cross_entropy(head(encoder(batch)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            done += 1
            if progress is not None:
                progress(done, steps, "training with labels")
    about = {
        "method": "supervised",
        "images": len(images),
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "final_loss": round(loss.item(), 4),
        "seconds": round(time.monotonic() - started, 1),
        "torch": torch.__version__,
    }
    _save(encoder, out, about)


def untrained(out: str, seed: int = 0, progress: Progress | None = None) -> None:
    """Write the compact network with its initial values.

    Args:
        out: safetensors file.
        seed: of the initial values.
        quiet: accepted like by every step; nothing is printed.
    """
    torch.manual_seed(seed)
    _save(CifarResNet(), out, {"method": "untrained", "seed": seed, "torch": torch.__version__})


def _augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image flipped or not and shifted by up to 4 pixels, the border reflected."""
    count, _, height, width = images.shape
    padded = F.pad(images.float(), (4, 4, 4, 4), mode="reflect")
    down, right = torch.randint(0, 9, (2, count, 1), generator=generator)
    columns = torch.arange(width).expand(count, width)
    flipped = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(flipped, columns.flip(1), columns) + right
    rows = torch.arange(height) + down
    every = torch.arange(count).view(-1, 1, 1)
    return padded.permute(0, 2, 3, 1)[every, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _save(encoder: nn.Module, out: str, about: dict[str, object]) -> None:
    tensors = {name: value.contiguous() for name, value in encoder.state_dict().items()}
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(Path(out), save(tensors, {"about": json.dumps(about)}))
