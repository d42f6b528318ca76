"""Out of a feature store: files that other tools read, written shard by shard."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from sslk.features.export_formats import WRITERS, Rows
from sslk.features.importing.settings import ExportFormat
from sslk.features.manifest import MANIFEST, StoreError
from sslk.features.names import names_of
from sslk.features.store import FeatureStore
from sslk.files.tables import write_rows

SPLITS = ("train", "val", "test", "valid", "validation", "dev", "all")


def store_export(path: str | PathLike[str], out: str | PathLike[str], format: ExportFormat = "npy") -> list[Path]:
    """Write a store's features `[N, D]`, labels and indices `[N]` as files of a format, beside a list of its samples.

    Never more than one shard is in memory; `pt` writes the features to a file first and needs their size twice on the
    disk. bfloat16, which NumPy and Parquet lack, becomes float32 except in `pt` and `safetensors`. `manifest.csv` has the
    columns `file` (the sample's name, its index where it has none), `label` (the class's name, its number where it has
    none, nothing for unlabelled samples) and `split` (as the data set's name ends, `birds/test`); `classes.json` lists the
    classes where they are named. Files appear only when all are whole. `store_import` reads them again, bit for bit.

    Args:
        path: the store.
        out: folder of the files.
        format: npy (features.npy, labels.npy, indices.npy), or one file features.npz, .pt, .safetensors, .parquet or .csv.

    Returns:
        The files.

    Raises:
        StoreError: the store is damaged, incomplete or empty, or out is one.
        ValueError: an unknown format.
        ImportError: Parquet without pyarrow.
        OSError: the disk is full or out cannot be written to.
    """
    if format not in WRITERS:
        raise ValueError(f"format must be one of {', '.join(WRITERS)}, got {format!r}.")
    store = FeatureStore(path).require()
    folder = Path(out)
    if (folder / MANIFEST).exists():
        raise StoreError(f"out must not be a feature store, got {folder}.")
    rows = Rows(store, names_of(store))
    with _whole_files(folder) as (new, made):
        WRITERS[format](rows, new)
        with open(new("manifest.csv"), "w", newline="", encoding="utf-8") as stream:
            write_rows(stream, _listed(rows))
        if store.spec.classes:
            new("classes.json").write_text(json.dumps(store.spec.classes))
    return made


def _listed(rows: Rows) -> Iterator[tuple[str, ...]]:
    """The rows of manifest.csv."""
    classes, dataset = rows.store.spec.classes, rows.store.spec.dataset
    last = dataset.rpartition("/")[2]
    split = last if last in SPLITS else ""
    yield "file", "label", "split"
    for shard in rows.store.shards():
        labels = [-1] * len(shard.indices) if shard.labels is None else shard.labels.tolist()
        for index, label in zip(shard.indices.tolist(), labels, strict=True):
            shown = "" if label < 0 else classes[label] if label < len(classes) else str(label)
            yield rows.name(index), shown, split


@contextmanager
def _whole_files(folder: Path) -> Iterator[tuple[Callable[[str], Path], list[Path]]]:
    """Gives hidden paths to write to, and renames them to the asked names when all are written and on the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    hidden: dict[Path, Path] = {}
    made: list[Path] = []

    def new(name: str) -> Path:
        hidden[folder / name] = folder / f".{name}.tmp"
        return hidden[folder / name]

    try:
        yield new, made
        for path in hidden.values():
            _flush(path)
        for target, path in hidden.items():
            os.replace(path, target)
            made.append(target)
    finally:
        for path in hidden.values():
            path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
