"""Draws pre-training over its epochs: what a probe reads out of the encoders that `examples/pretrain.py --keep` has kept.

    python examples/reproduce/curves.py --runs DIR --data npz:cifar10_train.npz+npz:cifar10_test.npz --out OUT

The probe is a logistic regression (`sslk.probes.logreg_probe`) on the features of the first 10,000 training images, tested on
all test images. Measured are epochs 1, 2, 3, 5, 8, 12, 16, 20, 25, 30, then every tenth, and of a run that is done its end and
where its last tenth began. Answers stay in `OUT/points`: killed, or given again after more epochs, the command measures what
is missing. `OUT` is a run for `sslk report page`.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

if __name__ == "__main__":  # the parts of the study import each other by their full names
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch
from torch import Tensor

from examples.reproduce.curves_run import Curve, curves_run
from sslk.cli.console import Output
from sslk.data import load_dataset
from sslk.data.dataset import Dataset
from sslk.data.splits import splits_of
from sslk.files.tensors import read_tensors
from sslk.models import Backbone, load_backbone
from sslk.probes import ProbeOutputs, logreg_probe
from sslk.progress import Progress
from sslk.training.views import images_in_memory

FIRST, THEN = (1, 2, 3, 5, 8, 12, 16, 20, 25, 30), 10
TRAIN_IMAGES = 10_000
BATCH = 250


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images in memory: uint8 `[N, 3, H, W]`, int64 `[N]`, and what they are called."""

    name: str
    fingerprint: str
    pixels: Tensor
    labels: Tensor

    @classmethod
    def of(cls, dataset: Dataset, count: int | None = None) -> Images:
        """The first `count` images of a data set.

        Raises:
            ValueError: it has no labels.
        """
        if dataset.labels is None:
            raise ValueError(f"--data must have labels, {dataset.name} has none.")
        pixels, labels = images_in_memory(dataset)[:count], torch.as_tensor(dataset.labels)[:count].long()
        return cls(dataset.name, dataset.fingerprint, pixels, labels)


def wanted_epochs(kept: Sequence[int], schedule: int) -> list[int]:
    """Which of the kept epochs are measured.

    >>> wanted_epochs(range(1, 31), 30), wanted_epochs(range(1, 8), 30)
    ([1, 2, 3, 5, 8, 12, 16, 20, 25, 27, 30], [1, 2, 3, 5])
    """
    ends = {schedule, round(0.9 * schedule)} if schedule in kept else set()
    later = {epoch for epoch in kept if epoch > FIRST[-1] and epoch % THEN == 0}
    return sorted(set(kept) & ({*FIRST} | later | ends))


def find_curves(runs: Path) -> dict[str, tuple[int, dict[int, Path]]]:
    """Of every method: the length of its schedule and its files by epoch.

    Raises:
        ValueError: there are none.
    """
    found = {}
    for folder in sorted({file.parent for file in runs.glob("*/epoch-*.safetensors")}):
        files = {
            int(match[1]): file for file in folder.iterdir() if (match := re.fullmatch(r"epoch-(\d+)\.safetensors", file.name))
        }
        schedule = int(read_tensors(files[max(files)], "the encoder")[1]["schedule"])
        found[folder.name] = schedule, {epoch: files[epoch] for epoch in wanted_epochs(list(files), schedule)}
    if not found:
        raise ValueError(f"--runs {runs} holds no METHOD/epoch-NNN.safetensors, as examples/pretrain.py --keep leaves them.")
    return found


def measure(file: Path, train: Images, test: Images, point: Path) -> ProbeOutputs:
    """A probe's answers on the test images, from `point` where they were given for this encoder and these images."""
    content = hashlib.sha256(file.read_bytes()).hexdigest()
    source = {"probe": "logistic regression", "encoder": content, "train_images": str(len(train.labels))}
    source |= {"train": train.fingerprint, "test": test.fingerprint}
    if point.exists() and (outputs := ProbeOutputs.load(point)).source == source:
        return outputs
    width = read_tensors(file, "the encoder")[0]["stages.3.0.conv2.weight"].shape[0]
    backbone = load_backbone(f"cifar:compact{'' if width == 256 else width}", file).to(memory_format=torch.channels_last)
    probe = logreg_probe(*((_features(backbone, images), images.labels) for images in (train, test)))
    outputs = replace(probe.outputs, source=source)
    outputs.save(point)
    return outputs


def measure_curves(
    runs: Path, data: str, out: Path, train_images: int = TRAIN_IMAGES, progress: Progress | None = None
) -> list[Curve]:
    """All curves of a folder of runs; what was measured before is read.

    Raises:
        ValueError: there are no encoders, or no labels.
    """
    found = find_curves(runs)
    (first, split), (second, other) = splits_of(data)
    train, test = Images.of(load_dataset(first, split), train_images), Images.of(load_dataset(second, other))
    curves, done, total = [], 0, sum(len(files) for _, files in found.values())
    for method, (schedule, files) in found.items():
        correct = {}
        for epoch, file in files.items():
            if progress is not None:
                progress(done, total, "measuring epochs")
            correct[epoch] = measure(file, train, test, out / "points" / f"{method}-{epoch:03d}.safetensors").correct
            done += 1
        curves.append(Curve(method, schedule, correct))
    if progress is not None:
        progress(total, total, "measuring epochs")
    return curves


@torch.inference_mode()
def _features(backbone: Backbone, images: Images) -> Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (backbone.mean, backbone.std))
    parts = images.pixels.split(BATCH)
    return torch.cat([backbone(((p.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)) for p in parts])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="the folder of METHOD/epoch-NNN.safetensors")
    parser.add_argument("--data", required=True, help="labelled training and test images, A+B")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train-images", type=int, default=TRAIN_IMAGES, help="the first so many train the probe")
    args = parser.parse_args(argv)
    output = Output()
    try:
        with output.progress() as update:
            curves = measure_curves(args.runs, args.data, args.out, args.train_images, update)
    except (ValueError, OSError) as error:
        raise SystemExit(f"curves: {error}") from None
    output.leave(curves_run(curves, args.train_images), str(args.out))


if __name__ == "__main__":
    main()
