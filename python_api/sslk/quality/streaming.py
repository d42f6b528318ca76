"""Discover and score over a feature store larger than memory: one pass each, one batch in memory at a time."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from os import PathLike
from typing import Literal

import torch
from torch import Tensor

import ssl_kernels
from sslk.features.store import FeatureStore
from sslk.quality.belonging import check_set
from sslk.quality.discover import (
    EPS_STEP,
    MAX_AUTO_EPS,
    MAX_EMPTY_SHARE,
    DiscriminativeFeatures,
    check_percentiles,
    warn_if_unreachable,
)
from sslk.quality.score import QScores, resolve_set

BATCH_BYTES = 16 << 20  # on the CPU a batch is a view of the mapping; on an accelerator this much is copied at a time


def discover_store(
    store: FeatureStore | str | PathLike[str],
    eps: float | Literal["auto"] = 4.0,
    lower: float = 50.0,
    upper: float = 95.0,
    *,
    two_sided: bool | None = None,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> DiscriminativeFeatures:
    """`sslk.discover` over a feature store of any size, with the same result.

    One pass over the data for a given eps; the share of empty sets, which would need a second, is left NaN
    (`score_store` gives it). `eps="auto"` counts all thresholds in one pass and the empty sets of all in another.

    Args:
        store: a complete store, or its folder.
        eps, lower, upper: as for `sslk.discover`.
        two_sided: whether large negative deviations count too; where the model's features are signed by default.
        device: where the kernels run.
        progress: called with the rows read and the rows to read, after every batch.

    Raises:
        StoreError: the store is incomplete or damaged.
        ValueError: eps is negative, percentiles are out of order, or no feature is discriminative.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from sslk.features import StoreSpec, StoreWriter
    >>> spec = StoreSpec("m", "0", "d", "0", "none", samples=500, num_features=64, shard_rows=300)
    >>> h = torch.relu(torch.randn(500, 64, generator=torch.Generator().manual_seed(0)))
    >>> folder = Path(tempfile.mkdtemp()) / "store"
    >>> with StoreWriter(folder, spec) as writer:
    ...     for number, rows in enumerate(torch.arange(500).split(300)):
    ...         writer.write(number, h[rows], rows % 10, rows)
    >>> found = discover_store(folder, eps=1.5)
    >>> scores = score_store(folder, found)
    >>> found.num_discriminative, scores.scores.shape
    (32, torch.Size([500]))
    """
    store = _opened(store)
    check_percentiles(lower, upper)
    two_sided = store.spec.signed if two_sided is None else two_sided
    if eps == "auto":
        found = _discover_auto(store, lower, upper, two_sided, torch.device(device), progress)
        return replace(found, model=store.spec.model, weights_hash=store.spec.weights_hash)
    eps = float(eps)
    if not eps >= 0:
        raise ValueError(f"eps must be zero or positive, or 'auto', got {eps}.")
    warn_if_unreachable(eps, store.num_features)
    counts = _count(store, [eps], two_sided, torch.device(device), progress, passes=1)[0]
    found = DiscriminativeFeatures.from_counts(
        counts, len(store), eps=eps, lower=lower, upper=upper, two_sided=two_sided
    )
    return replace(found, model=store.spec.model, weights_hash=store.spec.weights_hash)


def score_store(
    store: FeatureStore | str | PathLike[str],
    discriminative: DiscriminativeFeatures | Tensor,
    *,
    eps: float | None = None,
    normalize: bool = True,
    two_sided: bool | None = None,
    further_trained: bool = False,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> QScores:
    """`sslk.qscore` over a feature store of any size in one pass; only the scores are kept, in the order of the rows.

    Args:
        store: a complete store, or its folder.
        discriminative, eps, normalize, two_sided: as for `sslk.qscore`; a bare mask takes the store's sidedness.
        further_trained: the encoder was trained further since the set was found: other weights are accepted.
        device: where the kernels run.
        progress: called with the rows read and the rows to read, after every batch.

    Raises:
        StoreError: the store is incomplete or damaged, or the set belongs to another model.
        TypeError, ValueError: the set is no bool mask, selects nothing, or has another D.
    """
    store = _opened(store)
    if two_sided is None and isinstance(discriminative, Tensor):
        two_sided = store.spec.signed
    if isinstance(discriminative, DiscriminativeFeatures):
        check_set(discriminative, store, further_trained=further_trained)
    mask, eps, two_sided = resolve_set(discriminative, store.num_features, eps, two_sided)
    warn_if_unreachable(eps, store.num_features)
    on_device = mask.to(device)
    scores = torch.empty(len(store), dtype=torch.float32)
    active = done = 0
    for features in _features(store, torch.device(device)):
        part, per_row = ssl_kernels.qscore_counts(features, on_device, eps, normalize, two_sided)
        scores[done : done + len(part)] = part
        active += int(per_row.sum())
        done += len(part)
        if progress is not None:
            progress(done, len(store))
    return QScores(scores, eps, active / len(store), int(mask.sum()), float((scores == 0).double().mean()))


def _opened(store: FeatureStore | str | PathLike[str]) -> FeatureStore:
    return (store if isinstance(store, FeatureStore) else FeatureStore(store)).require()


def _features(store: FeatureStore, device: torch.device) -> Iterator[Tensor]:
    rows = max(1, BATCH_BYTES // (store.num_features * store.dtype.itemsize))
    for shard in store.shards():  # no batch spans two shards: joining them would be a copy
        for features in shard.features.split(rows):
            yield features.to(device)


def _count(
    store: FeatureStore,
    grid: list[float],
    two_sided: bool,
    device: torch.device,
    progress: Callable[[int, int], None] | None,
    *,
    passes: int,
) -> Tensor:
    """How often each feature is highly activating at every eps of the grid, int64 `[G, D]`, in one pass."""
    counts = [torch.zeros(store.num_features, dtype=torch.int64, device=device) for _ in grid]
    done = 0
    for features in _features(store, device):
        for total, eps in zip(counts, grid, strict=True):
            total += ssl_kernels.activation_counts(features, eps, two_sided)[0]
        done += len(features)
        if progress is not None:
            progress(done, passes * len(store))
    return torch.stack(counts).cpu()


def _discover_auto(
    store: FeatureStore,
    lower: float,
    upper: float,
    two_sided: bool,
    device: torch.device,
    progress: Callable[[int, int], None] | None,
) -> DiscriminativeFeatures:
    """The largest eps of the grid that leaves few rows without a discriminative active feature."""
    highest = min(MAX_AUTO_EPS, math.sqrt(store.num_features - 1))
    grid = [step * EPS_STEP for step in range(int(highest / EPS_STEP), 0, -1)]
    counted = zip(grid, _count(store, grid, two_sided, device, progress, passes=2), strict=True)
    found = (_found(counts, len(store), eps, lower, upper, two_sided) for eps, counts in counted)
    candidates = [candidate for candidate in found if candidate is not None]
    masks = [candidate.mask.to(device) for candidate in candidates]
    empty = torch.zeros(len(candidates), dtype=torch.int64, device=device)
    done = len(store)
    for features in _features(store, device):
        for number, (candidate, mask) in enumerate(zip(candidates, masks, strict=True)):
            empty[number] += (ssl_kernels.qscore(features, mask, candidate.eps, False, two_sided) == 0).sum()
        done += len(features)
        if progress is not None:
            progress(done, 2 * len(store))
    for candidate, share in zip(candidates, (empty.double() / len(store)).tolist(), strict=True):
        if share <= MAX_EMPTY_SHARE:
            return replace(candidate, empty_share=share)
    raise ValueError(
        f"eps='auto' found no eps up to {highest:g} that leaves at most {100 * MAX_EMPTY_SHARE:g} % of the samples "
        "without a discriminative active feature; many rows may be constant. Give eps as a number."
    )


def _found(
    counts: Tensor, rows: int, eps: float, lower: float, upper: float, two_sided: bool
) -> DiscriminativeFeatures | None:
    """The discriminative features at one eps; None where there are none: a smaller one may have some."""
    try:
        return DiscriminativeFeatures.from_counts(counts, rows, eps=eps, lower=lower, upper=upper, two_sided=two_sided)
    except ValueError:
        return None
