"""The supervised control: the encoders' own network and a linear head trained with labels, as fast as a CPU core allows.

    python examples/reproduce/supervised.py --data cifar10_train.npz --test cifar10_test.npz --out DIR [--holdout 5000]

Two thirds of the epochs see crops of 24 of the 32 pixels, which cost 0.6 of whole images; the rest see whole images, shifted.
Steps run in bfloat16. Nothing is chosen on the test images: the last epoch is what is saved, and `--holdout` sets training
images aside for whoever wants to choose. Killed after any epoch, the same command goes on with the next.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # the parts of the study import each other by their full names
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslk.data.augment import CIFAR10_MEAN, CIFAR10_STD
from sslk.files.tensors import read_tensors
from sslk.models.cifar_resnet import CifarResNet
from sslk.progress import Progress
from sslk.results.atomic import write_atomically
from sslk.training.checkpoints import save_method

LAST = "last.pt"
SHIFT = 4  # pixels by which whole images are moved, the border reflected


@dataclass(frozen=True)
class SupervisedConfig:
    """How the supervised control is trained.

    Attributes:
        epochs: passes over the images.
        crop_epochs: how many of them, from the first, see crops.
        crop_size: side of the crops.
        batch_size: images per step; the last, shorter batch of an epoch is dropped.
        learning_rate: peak of one cycle of SGD with Nesterov's momentum 0.9.
        weight_decay: of all weights.
        holdout: training images set aside; their accuracy is reported for every epoch.
        bfloat16: steps in bfloat16; weights and their updates stay float32.
        seed: of initial values, order, augmentation and the images set aside.
    """

    epochs: int = 24
    crop_epochs: int = 16
    crop_size: int = 24
    batch_size: int = 128
    learning_rate: float = 0.2
    weight_decay: float = 5e-4
    holdout: int = 0
    bfloat16: bool = True
    seed: int = 0


class Classifier(nn.Module):
    """The compact network and its head; `load_backbone("cifar:compact", FILE)` reads the network alone."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = CifarResNet()
        self.head = nn.Linear(self.backbone.num_features, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


def supervised(
    data: str, out: str, config: SupervisedConfig = SupervisedConfig(), test: str | None = None, progress: Progress | None = None
) -> list[dict[str, float]]:
    """Train the compact network with labels.

    Args:
        data: an .npz with `images` and `labels`.
        out: safetensors file for network and head, float16; its state between epochs lies beside it until the end. A file
            that is there, of as many images and the same settings, is what this call gives.
        config: the training.
        test: an .npz whose top-1 is reported for every epoch, and decides nothing.
        progress: called with what is done and to do.

    Returns:
        A record per epoch: mean loss, seconds, `holdout_top1` and `test_top1` where there are such images.

    Raises:
        ValueError: fewer images are left than one batch.
    """
    images, labels = read(data)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(config.seed))
    held, used = order[: config.holdout], order[config.holdout :]
    if len(used) < config.batch_size:
        raise ValueError(f"batch_size must be at most the {len(used)} training images, got {config.batch_size}.")
    file = Path(out)
    about = {"images": len(used), "settings": asdict(config)}
    if (finished := _finished(file, about)) is not None:
        return finished
    judged = {"holdout_top1": (images[held], labels[held])} if len(held) else {}
    judged |= {"test_top1": read(test)} if test else {}
    torch.manual_seed(config.seed)
    model = Classifier(int(labels.max()) + 1).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=config.learning_rate, momentum=0.9, weight_decay=config.weight_decay, nesterov=True
    )
    steps = len(used) // config.batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=config.epochs * steps)
    file.parent.mkdir(parents=True, exist_ok=True)
    state, logs = file.with_name(f"{file.stem}-{LAST}"), []
    identity = {"config": asdict(config), "images": len(images)}
    if state.is_file() and (saved := torch.load(state, weights_only=True))["identity"] == identity:
        logs = saved["logs"]
        for part, name in ((model, "model"), (optimizer, "optimizer"), (schedule, "schedule")):
            part.load_state_dict(saved[name])
    for epoch in range(len(logs), config.epochs):
        started = time.monotonic()
        generator = torch.Generator().manual_seed(1_000_003 * config.seed + epoch)
        size = config.crop_size if epoch < config.crop_epochs else images.shape[-1]
        total = 0.0
        model.train()
        for step, rows in enumerate(used[torch.randperm(len(used), generator=generator)].split(config.batch_size)[:steps]):
            batch = normalized(shifted_crops(images[rows], size, generator))
            with torch.autocast("cpu", torch.bfloat16, enabled=config.bfloat16):
                loss = F.cross_entropy(model(batch), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
            if progress is not None:
                progress(epoch * steps + step + 1, config.epochs * steps, "training with labels")
        record = {"epoch": epoch + 1, "loss": round(total / steps, 4), "seconds": round(time.monotonic() - started, 1)}
        logs.append(record | {name: round(top1(model, *found), 4) for name, found in judged.items()})
        parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        _keep(state, {"identity": identity, "logs": logs, **parts})
    named = {"format": "pt", "method": "supervised", "epochs": config.epochs}
    more = {"mean": CIFAR10_MEAN, "std": CIFAR10_STD, "log": logs, "torch": torch.__version__}
    save_method(model, file, {**named, **about, **more}, half=True)
    state.unlink(missing_ok=True)
    return logs


def read(data: str) -> tuple[Tensor, Tensor]:
    """Images uint8 `[N, 3, H, W]` and labels int64 `[N]` of an .npz."""
    with np.load(data, allow_pickle=False) as arrays:
        images = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2).contiguous()
        return images, torch.from_numpy(arrays["labels"]).long()


def normalized(images: Tensor) -> Tensor:
    """Pixels as the network wants them, float32, channels last."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CIFAR10_MEAN, CIFAR10_STD))
    return ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def shifted_crops(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """A crop of each image, flipped or not; whole images are shifted by up to `SHIFT` pixels instead.

    `[N, C, H, W]` -> `[N, C, size, size]`.
    """
    if size == images.shape[-1]:
        images = F.pad(images.float(), (SHIFT,) * 4, mode="reflect").to(images.dtype)
    count, room = len(images), images.shape[-1] - size
    down, right = torch.randint(0, room + 1, (2, count, 1), generator=generator)
    columns = torch.arange(size).expand(count, size)
    flipped = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(flipped, columns.flip(1), columns) + right
    rows = torch.arange(size) + down
    every = torch.arange(count).view(-1, 1, 1)
    return images.permute(0, 2, 3, 1)[every, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def top1(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of the images whose label the model gives, in float32, by running statistics."""
    model.eval()
    with torch.inference_mode():
        answers = torch.cat([model(normalized(batch)).argmax(1) for batch in images.split(500)])
    return float((answers == labels).float().mean())


def _finished(file: Path, about: dict[str, Any]) -> list[dict[str, float]] | None:
    """The record in the file of a training that is `about` the same."""
    if not file.is_file():
        return None
    found = read_tensors(file, "the network")[1]
    same = all(found.get(name) == json.dumps(value) for name, value in about.items())
    return json.loads(found["log"]) if same else None


def _keep(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(content, temporary)
    temporary.replace(path)


def main() -> int:
    """Train one and print its record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--test")
    parser.add_argument("--out", type=Path, required=True)
    for name, value in asdict(SupervisedConfig()).items():
        if not isinstance(value, bool):
            parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    args = vars(parser.parse_args())
    data, test, out = args.pop("data"), args.pop("test"), args.pop("out")
    logs = supervised(data, str(out / "model.safetensors"), SupervisedConfig(**args), test)
    write_atomically(out / "log.json", json.dumps(logs, indent=1).encode())
    print(json.dumps(logs[-1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
