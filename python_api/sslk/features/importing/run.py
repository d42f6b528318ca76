"""Import: features that someone has already, into a feature store."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslk.features.importing.choosing import CLASSES, LABELS, NAMES, features_in, vector_in
from sslk.features.importing.labels import numbered
from sslk.features.importing.matrix import Matrix, Survey, survey
from sslk.features.importing.opening import in_folder, in_numeric_order, open_any
from sslk.features.importing.settings import ImportSettings
from sslk.features.manifest import MANIFEST, Manifest, StoreError, StoreSpec, imported_weights, shard_name
from sslk.features.names import packed, sha256_of, write_names
from sslk.features.store import FeatureStore
from sslk.features.writer import StoreWriter
from sslk.progress import Progress


def store_import(
    features: Any,
    out: str | PathLike[str],
    settings: ImportSettings = ImportSettings(),  # noqa: B008 (frozen)
    *,
    labels: Any = None,
    names: Any = None,
    classes: str | PathLike[str] | Sequence[str] | None = None,
    progress: Progress | None = None,
) -> FeatureStore:
    """Bring features, with labels and names, into a feature store; larger than memory if need be.

    The features are read twice: once for the SHA-256 of their content, which is the store's identity, once for its
    shards. No more than a shard is in memory. Killed at any moment, the same call goes on and ends with the same bytes.
    What is guessed or converted is said in warnings. Nothing that a file holds is executed.

    Args:
        features: `[N, D]`: a file (.npy, .npz, .pt, .safetensors, .parquet, .csv, or numbers without a header), a pattern
            (`"part-*.npy"`, in the order of the numbers in the names), a list of `Path`, or a folder that `store_export`
            wrote; or an array, a tensor, a dictionary, a pair of features and labels, or a list of batches of these.
        out: folder of the store.
        settings: names of model and data set, key, dtype, shards.
        labels: a key of the features' file, a file, FILE:KEY, a list of `Path`, or one value a row: whole numbers or
            texts; -1, None, NaN and "" mean unlabelled. What is called labels beside the features by default.
        names: of the samples, given as labels are; unique or not.
        classes: names of the classes in the order of their numbers, or a file of them, one a line or a JSON list.
        progress: called after every block.

    Returns:
        The store.

    Raises:
        StoreError: out holds something else.
        ValueError: no `[N, D]`, other numbers of labels or names than rows, several arrays that could be meant (they are
            listed), a file that is damaged or holds more than numbers.
        TypeError: an object that holds no arrays.
        ImportError: Parquet without pyarrow.
        OSError: a file is missing, the disk is full or out cannot be written to.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "store"
    >>> store = store_import(torch.eye(3), folder, labels=["cat", None, "dog"], names=["a.png", "b.png", "c.png"])
    >>> store.labels().tolist(), store.spec.classes, len(store)
    ([0, -1, 1], ('cat', 'dog'), 3)
    """
    out = Path(out)
    if isinstance(features, str | PathLike) and Path(features).is_dir():
        features, labels, names, classes = in_folder(Path(features), labels, names, classes)
    if (out / MANIFEST).exists() and not Manifest.read(out).spec.imported:
        raise StoreError(f"{out} holds an extraction: import into a folder of its own.")
    parts = open_any(features, "features", settings.raw)
    _say_order(features)
    label_values, label_key = vector_in(labels, parts, LABELS, "labels")
    name_values, name_key = vector_in(names, parts, NAMES, "names")
    matrix = Matrix.of(features_in(parts, settings.features_key, {label_key, name_key} - {""}), settings.dtype)
    for what, values in (("labels", label_values), ("names", name_values)):
        if values is not None and len(values) != matrix.rows:
            raise ValueError(f"{what} must be as many as the {matrix.rows} rows of features, got {len(values)}.")
    numbers, class_names = _labels(label_values, _class_names(classes, parts))
    name_file = b"" if name_values is None else packed([_text(value) for value in name_values])
    found = survey(matrix, progress)
    _say_rows(found, matrix)
    spec = StoreSpec(
        model=settings.model,
        weights_hash=imported_weights(settings.model),
        dataset=settings.data or _called(features),
        data_hash=_data_hash(matrix.rows, numbers, class_names, name_file),
        transform="imported",
        samples=matrix.rows,
        num_features=matrix.width,
        dtype=matrix.dtype,
        labels=numbers is not None,
        signed=found.signed,
        classes=class_names,
        shard_rows=settings.shard_rows or _begun(out) or 8192,
        content=found.content,
        names=sha256_of(name_file) if name_file else "",
    )
    with StoreWriter(out, spec) as writer:
        if name_file:
            write_names(out, name_file, spec)
        _write_shards(matrix, numbers, writer, progress)
    return FeatureStore(out)


def _write_shards(matrix: Matrix, labels: Tensor | None, writer: StoreWriter, progress: Progress | None) -> None:
    """Write those shards that are not there."""
    spec, start = writer.spec, 0
    if len(writer.finished) == spec.shard_count:
        return
    for number, block in enumerate(matrix.blocks(spec.shard_rows)):
        stop = start + len(block)
        if shard_name(number) not in writer.finished:
            writer.write(number, block, None if labels is None else labels[start:stop].clone(), torch.arange(start, stop))
        del block  # let go of it, before the next one is made
        start = stop
        if progress is not None:
            progress(stop, matrix.rows, "importing")


def _labels(values: list[Any] | None, classes: list[str] | None) -> tuple[Tensor | None, tuple[str, ...]]:
    """Labels and class names; none where no row has a label."""
    if values is None:
        return None, tuple(classes or ())
    numbers, names = numbered(values, classes)
    missing = int((numbers < 0).sum())
    if missing == len(numbers):
        warnings.warn("no row has a label, so the store has none.", stacklevel=3)
        return None, names
    if missing:
        warnings.warn(f"{missing} of {len(numbers)} rows are unlabelled (-1).", stacklevel=3)
    return numbers, names


def _class_names(classes: Any, parts: list[dict[str, Any]]) -> list[str] | None:
    if classes is None:
        key = next((name for name in parts[0] if name.lower() in CLASSES), None)
        return None if key is None else [_text(value) for value in parts[0][key].values()]
    values = vector_in(classes, [{"": None}], CLASSES, "classes")[0]  # type: ignore[dict-item]  # no key of the features' file
    return [_text(value) for value in values or []]


def _data_hash(rows: int, labels: Tensor | None, classes: tuple[str, ...], names: bytes) -> str:
    """Of all that is known about the samples beside their features: two networks' features of the same have one."""
    digest = hashlib.sha256(json.dumps([rows, classes, labels is not None]).encode())
    digest.update(b"" if labels is None else labels.numpy().tobytes())
    digest.update(hashlib.sha256(names).digest())
    return digest.hexdigest()


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return "" if value is None else str(value)


def _called(features: Any) -> str:
    """What the data set is called where nobody says it: as the file."""
    first = features[0] if isinstance(features, list | tuple) and features else features
    return Path(first).stem.replace("*", "") or "imported" if isinstance(first, str | PathLike) else "imported"


def _begun(out: Path) -> int | None:
    return Manifest.read(out).spec.shard_rows if (out / MANIFEST).exists() else None


def _say_order(features: Any) -> None:
    """Files in the order of their letters where that of their numbers is another are a usual slip."""
    if isinstance(features, list | tuple) and len(features) > 1 and all(isinstance(part, PathLike) for part in features):
        names = [str(part) for part in features]
        if names == sorted(names) != sorted(names, key=in_numeric_order):
            warnings.warn(
                f"files are read in the order given, {names[0]}, {names[1]}, ...; a pattern in quotes is read in that of "
                "the numbers in their names.",
                stacklevel=3,
            )


def _say_rows(found: Survey, matrix: Matrix) -> None:
    for count, what in ((found.nonfinite, "hold a NaN or an infinity"), (found.zero, "are all zeros")):
        if count:
            warnings.warn(f"{count} of {matrix.rows} rows of {matrix.source.where} {what}.", stacklevel=3)
