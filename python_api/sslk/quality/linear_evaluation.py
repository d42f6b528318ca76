"""Transfer: linear evaluation of one encoder on a list of data sets, resumable at every data set (table A.2)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from sslk.data import load_dataset, splits_of
from sslk.data.source import DataSource
from sslk.features.by_name import extract_by_name
from sslk.features.settings import ExtractSettings
from sslk.features.store import FeatureStore
from sslk.files.text import from_fields, read_json
from sslk.models.source import ModelSource
from sslk.probes.linear import linear_probe
from sslk.probes.outputs import accuracy_interval
from sslk.probes.settings import LinearSettings
from sslk.probes.source import unlike_classes
from sslk.progress import Progress, renamed
from sslk.results.atomic import write_atomically


@dataclass(frozen=True)
class TransferResult:
    """Linear evaluation on one data set: top-1 in [0, 1] with its 95 % interval, on `test_samples`.

    Attributes:
        notes: what the two stores lack of each other's classes, and the rows that were left out.
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


def transfer(
    model: ModelSource,
    data: Sequence[str],
    out: str | PathLike[str],
    probe: LinearSettings = LinearSettings(),  # noqa: B008 (frozen)
    extraction: ExtractSettings = ExtractSettings(),  # noqa: B008
    *,
    root: str | None = None,
    progress: Progress | None = None,
) -> list[TransferResult]:
    """Extract every data set under the encoder and train the linear grid on it.

    Stores go to `out/features/`, the probe's outputs and the result of every finished data set to `out/<data set>/`:
    called again, finished sets are read back (if the model and the settings are the same) and the rest is done.

    Args:
        model: with its checkpoint.
        data: names as `splits_of` takes them.
        out: folder.
        probe: the linear grid.
        extraction: of the features.
        root: of the published data sets.
        progress: called with what is done and what is to do of every extraction and training.

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
        train, test = (
            extract_by_name(
                model,
                DataSource(part, split, root),
                Path(out) / "features" / f"{_folder(name)}-{role}",
                extraction,
                progress=renamed(progress, f"extracting {name}, {role}"),
            )
            for role, (part, split) in zip(("train", "test"), splits_of(name), strict=True)
        )
        told = renamed(progress, f"training on {name}")
        results.append(_evaluated(name, train, test, Path(out) / _folder(name), probe, extraction.device, told))
    return results


# Counts up where the same stores and settings give another result: 2 since the linear probe is chosen by cross-entropy and
# trained again, and stores are joined by class name; 3 since the result says
# what they lack, 4 since all settings are named, 5 since unlabelled rows and rows that are not finite are left out.
_RULES = 5


def _evaluated(
    name: str,
    train: FeatureStore,
    test: FeatureStore,
    folder: Path,
    settings: LinearSettings,
    device: str | None,
    progress: Progress | None,
) -> TransferResult:
    """The result of one data set, from its file where that was made from the same stores and settings."""
    key = {"train": train.spec.identity, "test": test.spec.identity, "probe": vars(settings), "rules": _RULES}
    file = folder / "result.json"
    if (found := read_result(file, key)) is not None:
        return found
    probe = linear_probe(train, test, settings, device=device or "cpu", progress=progress)
    outputs = probe.outputs
    outputs.save(folder / "outputs.safetensors")
    low, high = accuracy_interval(int(outputs.correct.sum()), len(outputs.correct))
    result = TransferResult(
        name,
        len(probe.classes),
        probe.train_rows.used,
        probe.test_rows.used,
        probe.top1,
        low,
        high,
        outputs.balanced_accuracy,
        probe.validation_top1,
        probe.learning_rate,
        probe.weight_decay,
        train.num_features,
        (
            *unlike_classes(train, test),
            *probe.train_rows.said("training"),
            *probe.test_rows.said("test"),
            *outputs.missing_classes(),
        ),
    )
    write_atomically(file, json.dumps({"key": key, "result": asdict(result)}, indent=1).encode())
    return result


def read_result(file: Path, key: dict[str, Any]) -> TransferResult | None:
    """What an earlier run found, if it was made from the same stores and settings."""
    if file.exists():
        try:
            content = read_json(file, "the result")
            if isinstance(content, dict) and content.get("key") == json.loads(json.dumps(key)):
                return from_fields(TransferResult, content.get("result"), f"the result in {file}")
        except (OSError, ValueError):
            pass  # a damaged file is only a saving lost
    return None


def _folder(name: str) -> str:
    """A data set's name as the name of a folder."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip("-.")[-80:]
