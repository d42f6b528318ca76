"""The labelled rows that a probe reads: any kind of features with labels, less the rows that cannot be used."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from sslk.features.store import FeatureStore
from sslk.probes.rows import KeptRows, Rows, StoreRows, TensorRows
from sslk.probes.source import joined, source_of
from sslk.probes.usable import RowCounts, finite_rows
from sslk.statistics.moments import batch_moments, mean_and_std, merge_moments

S = TypeVar("S")
Array = Tensor | np.ndarray
Labelled = Rows | FeatureStore | str | PathLike[str] | tuple[Array, Array]
"""Labelled features: a pair of a matrix `[N, D]` and integers `[N]` (tensors or arrays), a feature store or its folder, or
`Rows`. A label below 0 means unlabelled."""


def rows_of(train: Labelled, test: Labelled) -> tuple[Rows, Rows]:
    """The labelled rows that a probe reads; labels of two stores are joined by class name.

    Raises:
        StoreError: a store is incomplete, damaged, without labels, or of another model than the other.
        TypeError: one holds no features with labels.
        ValueError: shapes do not match, or all rows are unlabelled.
    """
    train, test = opened(train), opened(test)
    if isinstance(train, FeatureStore) and isinstance(test, FeatureStore):
        test = joined(train.require(labels=True), test.require(labels=True))
    first, second = labelled(train, "train"), labelled(test, "test")
    if first.num_features != second.num_features:
        raise ValueError(
            f"train_features and test_features must have the same D, got {first.num_features} and {second.num_features}."
        )
    return first, second


def sets_given(given: Sequence[Any], count: int, settings: S, function: str) -> tuple[list[Labelled], S]:
    """The sets and the settings of a probe that was called with sets, or with features and labels one after another.

    Args:
        given: what was passed by position: `count` sets, or twice as many arrays; settings last where they are given.
        count: sets that are needed.
        settings: where none are given.
        function: what was called, for the error.

    Raises:
        TypeError: another number of sets.

    >>> x, y = torch.zeros(4, 2), torch.zeros(4)
    >>> sets, _ = sets_given((x, y, x, y), 2, None, "probe")
    >>> [len(part) for part in sets]
    [2, 2]
    """
    sets = list(given)
    if sets and isinstance(sets[-1], type(settings)):
        settings = sets.pop()
    if len(sets) == 2 * count and not any(isinstance(part, tuple | str | PathLike | FeatureStore) for part in sets):
        sets = list(zip(sets[::2], sets[1::2], strict=True))
    if len(sets) != count:
        needed = "train and test" if count == 2 else "one set"
        raise TypeError(
            f"{function} needs {needed}, each (features, labels), a FeatureStore or its folder, and then settings, got "
            f"{len(sets)} arguments: {', '.join(type(part).__name__ for part in sets)}."
        )
    return sets, settings


def opened(source: Labelled) -> Labelled:
    """A store for its folder, all else as it is."""
    return FeatureStore(source) if isinstance(source, str | PathLike) else source


def labelled(source: Labelled, name: str = "") -> Rows:
    """The labelled rows of any kind of features; `name` is for the errors."""
    source = opened(source)
    rows: Rows
    if isinstance(source, FeatureStore):
        rows = StoreRows(source)
    elif isinstance(source, tuple | list) and len(source) == 2:
        rows = TensorRows(name, *source)
    elif isinstance(source, Rows) and not isinstance(source, Tensor | np.ndarray):
        rows = source
    else:
        shape = getattr(source, "shape", None)
        what = type(source).__name__ + ("" if shape is None else f" {list(shape)}")
        what += f" of {len(source)}" if isinstance(source, tuple | list) else ""
        raise TypeError(
            f"{name or 'data'} must be features with labels (features, labels), a FeatureStore or its folder, got {what}."
        )
    return left_out(rows, rows.labels >= 0, "unlabelled", name)


def left_out(rows: Rows, keep: Tensor, reason: str, name: str = "") -> Rows:
    """The rows where `keep`, bool `[N]`, is True; how many others there are, and why, is warned of and counted.

    Raises:
        ValueError: none is left.
    """
    missing = int((~keep).sum())
    if not missing and len(keep):
        return rows
    before = counts_of(rows)
    counts = replace(before, **{reason: missing})
    if missing == len(keep):
        what = "features must hold finite numbers" if reason == "nonfinite" else "labels must hold a label of 0 or more"
        raise ValueError(f"{name + '_' if name else ''}{what} in some row, got none in {len(keep)} rows.")
    for sentence in RowCounts(before.given, **{reason: missing}).said({"train": "training"}.get(name, name)):
        warnings.warn(sentence, stacklevel=5)
    kept = keep.nonzero().squeeze(1)
    if isinstance(rows, KeptRows):
        return KeptRows(rows.rows, rows.kept[kept], counts)
    return KeptRows(rows, kept, counts)


def counts_of(rows: Rows) -> RowCounts:
    """How many rows there were, and how many are left out."""
    return rows.counts if isinstance(rows, KeptRows) else RowCounts(len(rows.labels))


def in_memory(rows: Rows, name: str = "") -> tuple[Rows, Tensor]:
    """The rows that are finite, and their features `[N, D]`."""
    features = _loaded(rows)
    finite = finite_rows(features).cpu()
    kept = left_out(rows, finite, "nonfinite", name)
    return kept, features if kept is rows else features[finite.to(features.device)]


def scored(rows: Rows, score: Callable[[Tensor], Tensor], name: str = "") -> tuple[Rows, Tensor]:
    """The rows that are finite, and what `score` says of their features, block by block: none but the scores are kept."""
    parts, finite = [], []
    for block in rows.ordered():
        finite.append(finite_rows(block))
        parts.append(score(block if bool(finite[-1].all()) else block[finite[-1]]))
    return left_out(rows, torch.cat(finite).cpu(), "nonfinite", name), torch.cat(parts)


def _loaded(rows: Rows) -> Tensor:
    if isinstance(rows, KeptRows):
        return _loaded(rows.rows)[rows.kept]
    if isinstance(rows, TensorRows):
        return rows.features
    if isinstance(rows, StoreRows):
        return rows.store.load().features
    return torch.cat(list(rows.ordered()))


def origin_of(rows: Rows, probe: str) -> tuple[Tensor | None, dict[str, str] | None]:
    """Sample numbers and source that probe outputs record: of a store those of its data set, else the given rows'."""
    if isinstance(rows, KeptRows):
        index, source = origin_of(rows.rows, probe)
        return (rows.kept if index is None else index[rows.kept]), source
    if not isinstance(rows, StoreRows):
        return None, None
    return torch.cat([shard.indices for shard in rows.store.shards()]), source_of(rows.store, probe)


def standardization(rows: Rows, name: str = "train") -> tuple[Rows, Tensor, Tensor]:
    """The rows that are finite, and mean and deviation `[D]` of their features in one pass; 1 where a feature is constant.

    Raises:
        ValueError: no row is finite.
    """
    moments = torch.zeros(1 + 2 * rows.num_features, dtype=torch.float64)
    finite = []
    for block in rows.ordered():
        finite.append(finite_rows(block))
        usable = block if bool(finite[-1].all()) else block[finite[-1]]
        moments = merge_moments(torch.stack([moments, batch_moments(usable.cpu())]))
    kept = left_out(rows, torch.cat(finite).cpu(), "nonfinite", name)
    mean, std = mean_and_std(moments)
    return kept, mean.float(), torch.where(std > 0, std, 1.0).float()
