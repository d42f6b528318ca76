"""A data set from a table of files, labels and splits: `manifest:PATH`."""

from __future__ import annotations

import os
import stat
import warnings
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sslk.data.archives import read_bytes
from sslk.data.dataset import Dataset
from sslk.data.decode import decode
from sslk.data.manifest_columns import header_of, read_columns
from sslk.data.manifest_labels import bit_columns, one_label, separator_of, several_labels

FILE_COLUMNS = ("file", "path", "image", "filename", "filepath", "file_name", "image_path")
LABEL_COLUMNS = ("label", "labels", "class", "target")
SPLIT_COLUMN = "split"
BIT_COLUMN = "label:"
_TAIL = 4096  # bytes of a file that its checksum covers


@dataclass(frozen=True, eq=False)
class Manifest:
    """What a table of images says.

    Attributes:
        path: of the table.
        files: of the images: absolute, or below the table's folder.
        splits: of every row, or None; an empty one belongs to no split.
        labels: int64 `[N]`, -1 where there is none; None for a table without labels or with several.
        multi_labels: int8 `[N, C]`: 1, 0, or -1 for unknown; None for a table with one label a row.
        classes: names, the same in every split.
        notes: what was guessed, a sentence each.
    """

    path: Path
    files: list[str]
    splits: list[str] | None = None
    labels: np.ndarray | None = None
    multi_labels: np.ndarray | None = None
    classes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def rows(self, split: str) -> np.ndarray:
        """The rows of a split, int64; all of them where the table has no splits.

        Raises:
            ValueError: there is no such split; those there are are listed.
        """
        if self.splits is None:
            return np.arange(len(self.files))
        found = np.flatnonzero(np.array([name == split for name in self.splits], dtype=bool))
        if not len(found):
            counts = ", ".join(f"{name} ({count})" for name, count in sorted(Counter(self.splits).items()) if name)
            raise ValueError(f"the manifest {self.path} has the splits {counts or 'of no row'}, got split={split!r}")
        return found


class MultiLabelDataset(Dataset):
    """Images with several labels each: `labels` is None, and `multi_labels` says which of the `classes` they have.

    Args:
        multi_labels: int8 `[N, C]`.
        others: as of `Dataset`.
    """

    def __init__(self, *others: Any, multi_labels: np.ndarray, **named: Any) -> None:
        super().__init__(*others, **named)
        self._multi_labels = multi_labels

    @property
    def multi_labels(self) -> np.ndarray:
        """int8 `[N, C]`: 1 has the label, 0 has it not, -1 unknown."""
        return self._multi_labels[self._kept]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {len(self)} images, {len(self.classes)} labels for each)"


class ListedFiles:
    """Image files by their paths."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths

    def read(self, index: int) -> Image.Image:
        return decode(read_bytes(Path(self.paths[index])), self.paths[index])

    def checksum(self, index: int) -> str:
        """Size and CRC-32 of the last 4 KB, as of the files of a folder; empty where there is no such file."""
        if not _is_file(self.paths[index]):  # opening a pipe would wait for its writer
            return ""
        try:
            with open(self.paths[index], "rb") as file:
                size = os.fstat(file.fileno()).st_size
                return f"{size:x}-{zlib.crc32(os.pread(file.fileno(), _TAIL, max(0, size - _TAIL))):08x}"
        except OSError:
            return ""


def read_manifest(path: str | Path) -> Manifest:
    """Read a table of images: CSV, TSV (`.tsv`, `.tab`) or Parquet (`.parquet`), with a header.

    Args:
        path: the table. Its columns are `file` (or path, image, filename, filepath, file_name, image_path), `label` (or
            labels, class, target) or a column of 0 and 1 named `label:NAME` for each class, and `split`; others are not read.

    Raises:
        ValueError: it is damaged, has no column of files, two of a kind, no rows, or labels that are no classes.
        FileNotFoundError: there is no such file.
        ImportError: Parquet without pyarrow.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "photos.csv"
    >>> _ = file.write_text("file,label,split\\na.png,cat,train\\nb.png,dog,test\\nc.png,,test\\n")
    >>> manifest = read_manifest(file)
    >>> manifest.classes, manifest.labels.tolist(), manifest.rows("test").tolist()
    (['cat', 'dog'], [0, 1, -1], [1, 2])
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no manifest {path}")
    roles: dict[str, str] = {}
    columns = read_columns(path, lambda header: _chosen(header, path, roles))
    files = [str(cell) for cell in columns[roles["file"]]]
    where = f"the manifest {path}"
    if not files:
        raise ValueError(f"{where} has a header and no rows")
    if empty := next((row for row, name in enumerate(files, 1) if not name), 0):
        raise ValueError(f"{where} has an empty cell in the column {roles['file']}, in row {empty}")
    guessed = [f"{given!r} for the {role}s" for role, given in roles.items() if given.casefold() != role]
    notes = [f"{where}: takes the column{'s' if guessed[1:] else ''} {' and '.join(guessed)}"] if guessed else []
    splits = None
    if SPLIT_COLUMN in roles:
        splits = [str(cell).strip() for cell in columns[roles[SPLIT_COLUMN]]]
        if missing := splits.count(""):
            notes.append(f"{where}: {missing} of {len(files)} rows name no split and belong to none")
    labels, multi, classes = None, None, []
    bits = {name[len(BIT_COLUMN) :].strip(): cells for name, cells in columns.items() if _is_bits(name)}
    if len(bits) < sum(map(_is_bits, columns)):
        raise ValueError(f"{where} has two columns {BIT_COLUMN}NAME of one name")
    if bits:
        multi, classes = bit_columns(bits, where), list(bits)
    elif "label" in roles:
        cells = columns[roles["label"]]
        separator = separator_of(cells)
        if separator is None:
            labels, classes = one_label(cells, where)
        else:
            multi, classes = several_labels(cells, separator, where)
            how = f"several labels, separated by {separator!r}" if separator else "a list of labels"
            notes.append(f"{where}: a cell of the column {roles['label']!r} holds {how}")
    return Manifest(path, files, splits, labels, multi, classes, notes)


def manifest_dataset(name: str, path: Path, split: str) -> Dataset:
    """The images of one split of a manifest, or all where it has no column of splits."""
    manifest = read_manifest(path)
    for note in manifest.notes:
        warnings.warn(f"{note}.", stacklevel=4)
    rows = manifest.rows(split).tolist()
    if manifest.splits is None:
        warnings.warn(f"the manifest {path} has no column {SPLIT_COLUMN}: all {len(rows)} rows are taken.", stacklevel=4)
    else:
        name = f"{name}/{split}"
    paths = resolved(manifest)
    _check_once(manifest, paths, rows, split)
    chosen = [paths[row] for row in rows]
    _check_there(chosen, path)
    source = ListedFiles(chosen)
    if manifest.multi_labels is not None:
        multi = manifest.multi_labels[rows]
        return MultiLabelDataset(name, source.read, chosen, None, manifest.classes, checksum=source.checksum, multi_labels=multi)
    labels = None if manifest.labels is None else manifest.labels[rows]
    return Dataset(name, source.read, chosen, labels, manifest.classes, checksum=source.checksum)


def resolved(manifest: Manifest) -> list[str]:
    """The path of every image."""
    folder = os.path.abspath(manifest.path.parent)
    joined = [os.path.join(folder, file) for file in manifest.files]
    return [str(Path(path)) if "./" in path or "//" in path else path for path in joined]


def require_splits(path: Path) -> None:
    """Refuse a manifest without a column of splits where training and test data are to come from one.

    Raises:
        ValueError: it has none; else see `read_manifest`.
    """
    if path.exists() and SPLIT_COLUMN not in [column.casefold() for column in header_of(path)]:
        raise ValueError(
            f"the manifest {path} has no column {SPLIT_COLUMN}: add one, or name two files, "
            f"manifest:{path}+manifest:TEST{path.suffix}."
        )


def _chosen(header: list[str], path: Path, roles: dict[str, str]) -> list[str]:
    """The columns to read; which of them are files, labels and splits is put into `roles`."""
    lower = {name.casefold(): name for name in reversed(header)}  # the first of several
    for role, names in (("file", FILE_COLUMNS), ("label", LABEL_COLUMNS), (SPLIT_COLUMN, (SPLIT_COLUMN,))):
        if found := next((lower[name] for name in names if name in lower), None):
            roles[role] = found
    if "file" not in roles:
        shown = ", ".join(header)[:80] or "nothing"
        raise ValueError(
            f"the manifest {path} needs a header with a column {FILE_COLUMNS[0]} (or {', '.join(FILE_COLUMNS[1:])}), "
            f"its first row is {shown!r}"
        )
    bits = [name for name in header if _is_bits(name)]
    if bits and "label" in roles:
        raise ValueError(f"the manifest {path} has the column {roles['label']!r} and {bits[0]!r}: keep one kind of labels")
    return [*roles.values(), *bits]


def _is_bits(name: str) -> bool:
    return name.casefold().startswith(BIT_COLUMN) and len(name) > len(BIT_COLUMN)


def _check_once(manifest: Manifest, paths: list[str], rows: list[int], split: str) -> None:
    """Refuse an image that a split has twice; say where another split has it too."""
    first: dict[str, int] = {}
    for row in rows:
        earlier = first.setdefault(os.path.normpath(paths[row]), row)
        if earlier != row:
            raise ValueError(
                f"the manifest {manifest.path} names {manifest.files[row]!r} twice, in rows {earlier + 1} and {row + 1}: "
                "several labels of an image stand in one cell, separated by |"
            )
    if manifest.splits is None:
        return
    mine = set(rows)
    others = (row for row, other in enumerate(manifest.splits) if other and row not in mine)
    shared = [row for row in others if os.path.normpath(paths[row]) in first]
    if shared:
        warnings.warn(
            f"the manifest {manifest.path}: {len(shared)} images of the split {split!r} are in another one too, the first is "
            f"{manifest.files[shared[0]]!r}, in {manifest.splits[shared[0]]!r}.",
            stacklevel=5,
        )


def _check_there(paths: list[str], manifest: Path) -> None:
    """Count the files that are not there; reading one names it, and a data set may leave it out."""
    missing = [path for path in paths if not _is_file(path)]
    if len(missing) == len(paths):
        raise FileNotFoundError(
            f"none of the {len(paths)} files of the manifest {manifest} is there, the first is {missing[0][:300]}: paths that "
            "are not absolute begin in the folder of the manifest"
        )
    if missing:
        warnings.warn(
            f"the manifest {manifest} names {len(missing)} of {len(paths)} files that are not there, the first is "
            f"{missing[0][:300]}.",
            stacklevel=5,
        )


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):  # no such name, or none that a file can have
        return False
