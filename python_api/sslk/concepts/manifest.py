"""A concept table from a manifest: the labels of its rows are the concepts of the images that they name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from sslk.concepts.read import GROUP
from sslk.concepts.table import ConceptError, ConceptTable
from sslk.data.dataset import Dataset
from sslk.data.manifests import Manifest, read_manifest, resolved

Unknown = Literal["raise", "absent"]


def concepts_of_manifest(
    path: str | Path, dataset: Dataset, *, group: str | None = None, unknown: Unknown = "raise"
) -> ConceptTable:
    """A concept for each class of a manifest, for every image of a data set; rows meet images by file.

    Args:
        path: the manifest, see `sslk.data.read_manifest`; rows about other images are not used, whatever their split.
        dataset: the images, `manifest:PATH` or another set of the same files; their numbers are those of its feature stores.
        group: of the columns; by default `concepts`, or `labels` where a row has one label.
        unknown: an unknown label is an error, or taken for absent and counted in `about`.

    Raises:
        ConceptError: the manifest has no labels, no row for an image (counted, the first named), two that differ, or a label
            that is unknown.
        ValueError: see `read_manifest`.

    >>> import tempfile
    >>> from PIL import Image
    >>> file = Path(tempfile.mkdtemp()) / "photos.csv"
    >>> _ = file.write_text("file,label\\nb.png,cat|red\\na.png,cat\\n")
    >>> names = [str(file.parent / name) for name in ("a.png", "b.png")]
    >>> data = Dataset("photos", lambda i: Image.new("RGB", (4, 4)), names, None)
    >>> table = concepts_of_manifest(file, data)
    >>> table.names, table.dense().tolist()
    (['cat', 'red'], [[True, False], [True, True]])
    """
    if unknown not in ("raise", "absent"):
        raise ValueError(f"unknown must be 'raise' or 'absent', got {unknown!r}.")
    manifest = read_manifest(path)
    labels = manifest.labels if manifest.multi_labels is None else manifest.multi_labels
    if labels is None:
        raise ConceptError(f"the manifest {path} needs a column label, or a column label:NAME for each concept.")
    found = labels[_rows(manifest, labels, dataset)]
    entries = int((found < 0).sum())
    if entries and unknown == "raise":
        images = (found < 0).reshape(len(found), -1).any(1)
        raise ConceptError(
            f"{int(images.sum())} of {len(found)} images have an unknown label in the manifest {path}, the first is "
            f"{dataset.image_name(int(np.argmax(images)))}; unknown='absent' takes unknown labels for absent."
        )
    about = {
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "samples": len(dataset),
        "manifest": os.path.abspath(path),
        "unknown_taken_for_absent": entries,
    }
    group = group or (GROUP if found.ndim == 2 else "labels")
    if found.ndim == 2:
        table = ConceptTable.from_dense(torch.from_numpy(found == 1), manifest.classes, group)
        return ConceptTable(table.offsets, table.columns, table.names, table.groups, table.samples, about)
    rows = ([label] if label >= 0 else [] for label in found.tolist())
    return ConceptTable.from_rows(rows, manifest.classes, group, about=about)


def _rows(manifest: Manifest, labels: np.ndarray, dataset: Dataset) -> np.ndarray:
    """The row of every image, int64 `[N]`: the one with its file, else the one with its name as written."""
    by_path: dict[str, int] = {}
    for row, file in enumerate(resolved(manifest)):
        first = by_path.setdefault(os.path.normpath(file), row)
        if first != row and not np.array_equal(labels[first], labels[row]):
            raise ConceptError(f"the manifest {manifest.path} labels {file} in two ways, in rows {first + 1} and {row + 1}.")
    by_name = {file: row for row, file in enumerate(manifest.files)}
    names = [dataset.image_name(number) for number in range(len(dataset))]
    found = np.array([by_path.get(os.path.abspath(name), by_name.get(name, -1)) for name in names], dtype=np.int64)
    if missing := np.flatnonzero(found < 0).tolist():
        raise ConceptError(
            f"{len(missing)} of {len(names)} images of {dataset.name} have no row in the manifest {manifest.path}, the first is "
            f"{names[missing[0]]}."
        )
    return found
