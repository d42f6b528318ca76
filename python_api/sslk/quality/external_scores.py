"""Scores that others computed, from a CSV or an .npz, joined with the samples of a store."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sslk.features.names import names_of
from sslk.features.store import FeatureStore
from sslk.files.arrays import read_arrays
from sslk.files.tables import read_records, read_rows

NAME_COLUMNS = ("image", "name")
_NO_SCORES = ("index", "label", *NAME_COLUMNS)


def read_scores(path: str | PathLike[str], store: FeatureStore) -> dict[str, Tensor]:
    """Every score in a file, float64 `[N]` in the order of the store's rows, by name; higher must mean correct.

    A CSV has a header. The column `index` (number of the sample in its data set, as `sslk qscore score` writes it) or, where
    the store has names, `image` or `name` says whose a row is; `label` is not read; every other column is a score, an empty
    cell or `nan` a missing one. An .npz holds an array `[N]` for each score, in the order of the store's rows or of its array
    `index`.

    Args:
        path: the file.
        store: whose samples are scored.

    Raises:
        ValueError: the file is damaged, holds no score, a cell is no number, or a sample of the store has no row or two, or a
            row is of no sample of the store.
        OSError: it cannot be opened.
    """
    given = Path(path)
    index = torch.cat([shard.indices for shard in store.require().shards()])
    scores, places = _of_npz(given, len(index)) if given.suffix == ".npz" else _of_csv(given, store, index)
    if not scores:
        raise ValueError(f"scores {path} holds no score: a column or array beside {', '.join(_NO_SCORES)} is needed.")
    order = slice(None) if places is None else _joined(places, index, f"scores {path}")
    return {name: torch.from_numpy(values[order]) for name, values in scores.items()}


def read_all_scores(paths: Sequence[str | PathLike[str]], store: FeatureStore) -> dict[str, Tensor]:
    """The scores of several files.

    Raises:
        ValueError: as for `read_scores`, or two files name a score alike.
    """
    found: dict[str, Tensor] = {}
    for path in paths:
        scores = read_scores(path, store)
        if twice := [name for name in scores if name in found]:
            raise ValueError(f"scores {path} names {twice[0]!r}, as an earlier file does: rename the column.")
        found |= scores
    return found


def _of_npz(path: Path, samples: int) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Scores by name, and the samples' numbers where they are given."""
    _, names = read_arrays(path, "scores", ())
    arrays, _ = read_arrays(path, "scores", names)
    index = arrays.pop("index", None)
    if index is not None and (index.ndim != 1 or index.dtype.kind not in "iu"):
        raise ValueError(f"scores {path} must hold index as whole numbers [N], got {index.dtype} {list(index.shape)}.")
    rows = samples if index is None else len(index)
    scores = {}
    for name, values in arrays.items():
        if name in _NO_SCORES:
            continue
        if values.dtype.kind not in "biuf" or values.shape != (rows,):
            got = f"{values.dtype} {list(values.shape)}"
            whose = "the store's rows" if index is None else "its index"
            raise ValueError(f"scores {path} must hold {name} as numbers [{rows}], as many as {whose}, got {got}.")
        scores[name] = values.astype(np.float64)
    return scores, index


def _of_csv(path: Path, store: FeatureStore, index: Tensor) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Scores by name, and the samples' numbers."""
    rows = read_rows(path, "scores")
    header = rows[0] if rows else []
    if len(set(header)) < len(header):
        raise ValueError(f"scores {path} has two columns of one name: {', '.join(header)}.")
    joins = [column for column in ("index", *NAME_COLUMNS) if column in header]
    if not joins:
        raise ValueError(f"scores {path} needs a column index, image or name, which says whose a score is, got {header}.")
    records = read_records(path, "scores", joins)
    if joins[0] == "index":
        places = _numbers([record["index"] for record in records], f"scores {path}", "index")
        if (places != np.floor(places)).any():
            raise ValueError(f"scores {path} must hold whole numbers in its column index.")
        numbers = places.astype(np.int64)
    else:
        numbers = _by_name([record[joins[0]] for record in records], store, index, f"scores {path}")
    scores = {
        column: _numbers([record[column] for record in records], f"scores {path}", column)
        for column in header
        if column not in _NO_SCORES
    }
    return scores, numbers


def _numbers(cells: list[str], where: str, column: str) -> np.ndarray:
    found = np.empty(len(cells))
    for row, cell in enumerate(cells):
        try:
            found[row] = float(cell) if cell.strip() or column == "index" else np.nan
        except ValueError:
            raise ValueError(f"{where} must hold numbers in its column {column}, got {cell[:40]!r} in row {row + 1}.") from None
    return found


def _by_name(given: list[str], store: FeatureStore, index: Tensor, where: str) -> np.ndarray:
    """The numbers of samples that are given by name."""
    names = names_of(store)
    if names is None:
        raise ValueError(f"{where} goes by name and {store.path} holds no names: give the column index.")
    place: dict[str, int] = {}
    for number in index.tolist():  # of the samples that have a row
        name = names[number]
        if place.setdefault(name, number) != number:
            raise ValueError(f"{where} goes by name and {store.path} names two samples {name!r}: give the column index.")
    if unknown := [name for name in given if name not in place]:
        raise ValueError(f"{where} has {len(unknown)} rows of no sample of {store.path}, the first of {unknown[0]!r}.")
    return np.array([place[name] for name in given], dtype=np.int64)


def _joined(places: np.ndarray, index: Tensor, where: str) -> np.ndarray:
    """For every row of the store the row of the file."""
    wanted = index.numpy()
    order = np.argsort(places, kind="stable")
    ordered = places[order]
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(twice):
        raise ValueError(f"{where} has two rows for sample {ordered[twice[0]]}; {len(twice)} rows are too many.")
    if len(extra := np.setdiff1d(places, wanted)):
        raise ValueError(f"{where} has {len(extra)} rows of no sample of the store, the first of sample {extra[0]}.")
    if len(lacking := np.setdiff1d(wanted, places)):
        raise ValueError(f"{where} lacks {len(lacking)} of the store's {len(wanted)} samples, the first is {lacking[0]}.")
    return order[np.searchsorted(ordered, wanted)]
