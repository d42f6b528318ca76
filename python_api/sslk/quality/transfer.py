"""Transfer: linear evaluation of one encoder on a list of data sets, resumable at every data set (table A.2)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sslk.data import load_dataset
from sslk.features.by_name import extract_by_name
from sslk.features.extract import Progress
from sslk.features.store import FeatureStore
from sslk.files.text import from_fields, read_json
from sslk.probes.linear import linear_probe_stores
from sslk.probes.outputs import accuracy_interval
from sslk.probes.source import unlike_classes
from sslk.results.atomic import write_atomically

# Where the published splits are not called train and test; labels of held-out ImageNet are published for val only.
SPLITS = {
    "fgvc-aircraft": ("trainval", "test"),
    "imagenet": ("train", "val"),
    "imagenet-100": ("train", "val"),
    "tiny-imagenet": ("train", "val"),
    "places365": ("train", "val"),
}


@dataclass(frozen=True)
class TransferResult:
    """Linear evaluation on one data set: top-1 in [0, 1] with its 95 % interval, on `test_samples`.

    Attributes:
        notes: what the two stores lack of each other's classes.
    """

    dataset: str
    classes: int
    train_samples: int
    test_samples: int
    top1: float
    low: float
    high: float
    balanced_accuracy: float
    validation_top1: float
    learning_rate: float
    weight_decay: float
    features: int
    notes: tuple[str, ...] = ()


def splits_of(data: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """The (name, split) of training and test data of a data set.

    `NAME` takes its published splits; `TRAIN+TEST` names two data sets, for sets without splits (`npz:`, `folder:`).

    >>> splits_of("fgvc-aircraft")
    (('fgvc-aircraft', 'trainval'), ('fgvc-aircraft', 'test'))
    >>> splits_of("npz:a.npz+npz:b.npz")
    (('npz:a.npz', 'train'), ('npz:b.npz', 'test'))
    """
    first, plus, second = data.partition("+")
    if plus:
        return (first, SPLITS.get(first, ("train",))[0]), (second, "test")
    if data.startswith("npz:"):
        raise ValueError(f"the data set {data!r} has no splits: name two files, {data}+npz:TEST.npz.")
    train, test = SPLITS.get(data.partition(":")[0], ("train", "test"))
    return (data, train), (data, test)


def transfer_study(
    model: str,
    data: Sequence[str],
    out: Path,
    *,
    weights: str | None = None,
    checkpoint_format: str | None = None,
    image_size: int | None = None,
    root: str | None = None,
    epochs: int = 100,
    seed: int = 0,
    batch_size: int = 256,
    workers: int = 4,
    device: str | None = None,
    extracting: Callable[[str, Progress], None] | None = None,
    training: Callable[[str, int, int], None] | None = None,
) -> list[TransferResult]:
    """Extract every data set under the encoder and train the linear grid on it.

    Stores go to `out/features/`, the probe's outputs and the result of every finished data set to `out/<data set>/`:
    called again, finished sets are read back (if the model and the settings are the same) and the rest is done.

    Args:
        model, weights, checkpoint_format, image_size: as for `load_backbone`; the image size is the model's by default.
        data: names as `splits_of` takes them.
        out: folder.
        root: of the published data sets.
        epochs, seed: of the probe.
        batch_size, workers, device: of the extraction.
        extracting, training: called with the data set and the progress.

    Raises:
        ValueError, FileNotFoundError: a data set is unknown or absent: all are opened before any work.
    """
    if not data or len(set(data)) != len(data):
        raise ValueError(f"data must name distinct data sets, at least one, got {list(data)}.")
    for name in data:
        for part, split in splits_of(name):
            load_dataset(part, split, root=root)
    results = []
    for name in data:
        stores = []
        for role, (part, split) in zip(("train", "test"), splits_of(name), strict=True):
            show = None if extracting is None else (lambda p, name=name: extracting(name, p))
            stores.append(extract_by_name(
                model, part, str(out / "features" / f"{_folder(name)}-{role}"), split=split, weights=weights,
                checkpoint_format=checkpoint_format, image_size=image_size, root=root, batch_size=batch_size,
                workers=workers, device=device, progress=show,
            ))  # fmt: skip
        train_progress = None if training is None else (lambda n, total, name=name: training(name, n, total))
        results.append(
            _evaluated(name, stores[0], stores[1], out / _folder(name), epochs, seed, device, train_progress)
        )
    return results


# Counts up where the same stores and settings give another result: 2 since the linear probe is chosen by cross-entropy and
# trained again, and stores are joined by class name; 3 since the result says what they lack.
_RULES = 3


def _evaluated(
    name: str,
    train: FeatureStore,
    test: FeatureStore,
    folder: Path,
    epochs: int,
    seed: int,
    device: str | None,
    progress: Callable[[int, int], None] | None,
) -> TransferResult:
    """The result of one data set, from its file where that was made from the same stores and settings."""
    key = {"train": train.spec.identity, "test": test.spec.identity, "epochs": epochs, "seed": seed, "rules": _RULES}
    file = folder / "result.json"
    if (found := read_result(file, key)) is not None:
        return found
    probe, outputs = linear_probe_stores(
        train, test, epochs=epochs, seed=seed, device=device or "cpu", progress=progress
    )  # fmt: skip
    outputs.save(folder / "outputs.safetensors")
    low, high = accuracy_interval(int(outputs.correct.sum()), len(outputs.correct))
    result = TransferResult(
        name, len(probe.classes), len(train), len(test), probe.top1, low, high, outputs.balanced_accuracy,
        probe.validation_top1, probe.learning_rate, probe.weight_decay, train.num_features,
        tuple(unlike_classes(train, test)),
    )  # fmt: skip
    write_atomically(file, json.dumps({"key": key, "result": asdict(result)}, indent=1).encode())
    return result


def read_result(file: Path, key: dict[str, Any]) -> TransferResult | None:
    """What an earlier run found, if it was made from the same stores and settings."""
    if file.exists():
        try:
            content = read_json(file, "the result")
            if isinstance(content, dict) and content.get("key") == key:
                return from_fields(TransferResult, content.get("result"), f"the result in {file}")
        except (OSError, ValueError):
            pass  # a damaged file is only a saving lost
    return None


def _folder(name: str) -> str:
    """A data set's name as the name of a folder."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip("-.")[-80:]
