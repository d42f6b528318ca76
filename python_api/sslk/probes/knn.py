"""k-nearest-neighbour classification of frozen features: all k and temperatures from one search."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sslk.probes.labelled import Array, Labelled, counts_of, in_memory, origin_of, rows_of, sets_given
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.settings import NEIGHBORS, KnnSettings, changed
from sslk.probes.usable import RowCounts, TwoSets
from sslk.progress import Progress

SIMILARITY_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class KNNProbe(TwoSets):
    """k-NN classification of a test set.

    Attributes:
        k, temperature: the setting chosen on the validation split.
        outputs: its answer for every test sample; `logits` are logarithms of the votes' shares.
        grid: (k, temperature, validation accuracy, test accuracy) of every setting; only the validation chose.
        train_rows, test_rows: how many rows there were, and how many were left out for being unlabelled or not finite.
        beyond: the default k that are larger than the bank, left out.
    """

    k: int
    temperature: float
    outputs: ProbeOutputs
    grid: list[tuple[int, float, float, float]]
    train_rows: RowCounts
    test_rows: RowCounts
    beyond: tuple[int, ...] = ()


def knn_probe(
    train: Labelled | Array,
    test: Labelled | Array,
    *more: Array | KnnSettings,
    settings: KnnSettings = KnnSettings(),  # noqa: B008 (frozen)
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
    **changes: Any,
) -> KNNProbe:
    """Classify every test sample by its nearest training samples; choose k and temperature on a validation split.

    A neighbour with cosine similarity s votes with weight `exp(s / temperature)` for its label (Wu et al., CVPR 2018).
    The validation samples are a split of the training set, classified by the rest of it; the test samples then by all
    of it. The search is exact, in blocks, so that no `[M, N]` matrix is kept.

    Args:
        train, test: `(features [N, D], labels [N])` or feature stores; classes need not be contiguous. Rows that are unlabelled
            (a label below 0, NaN, None) or not finite are left out, counted and warned of. Four arrays are taken too.
        settings: the grid; by position as well, after the sets. No k may exceed the bank, the training samples less the
            validation split; of the default k those that do are left out, named in `beyond`.
        device: where to compute.
        progress: called with the samples classified and to classify.
        changes: fields of the settings by name, such as `neighbors=20`.

    Raises:
        StoreError: a store is incomplete, damaged, without labels, or of another model than the other.
        TypeError: a set is no features with labels, or there is no such setting.
        ValueError: shapes do not match, no row is labelled and finite, there are fewer than two classes, k is out of range
            or a temperature is not positive.

    Examples:
        >>> x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0)); y = (x[:, 0] > 0).long() * 7
        >>> probe = knn_probe((x[:300], y[:300]), (x[300:], y[300:]), neighbors=(1, 5, 25), validation_share=0.4)
        >>> probe.k, probe.top1 > 0.8
        (25, True)
    """
    sets, settings = sets_given((train, test, *more), 2, settings, "knn_probe")
    settings = changed(settings, changes, "knn_probe")
    rows, (train_features, test_features) = zip(*map(in_memory, rows_of(*sets), ("train", "test")), strict=True)
    train_labels, test_labels = (part.labels for part in rows)
    if not 0 < settings.validation_share < 1:
        raise ValueError(f"validation_share must lie between 0 and 1, got {settings.validation_share:g}.")
    held_out = max(1, round(settings.validation_share * len(train_labels)))
    most = len(train_labels) - held_out
    classes, targets = torch.unique(train_labels.to(device), return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"train_labels must hold at least two classes, got {len(classes)}.")
    neighbors, beyond = _within(settings.neighbors, most)
    temperatures = settings.temperatures
    if not temperatures or min(temperatures) <= 0:
        raise ValueError(f"temperatures must be positive, got {list(temperatures)}.")
    bank = _unit(train_features, device)
    order = torch.randperm(len(bank), generator=torch.Generator().manual_seed(settings.seed)).to(device)
    validation, rest = order[:held_out], order[held_out:]
    grid = [(k, temperature) for k in neighbors for temperature in temperatures]
    total = held_out + len(test_features)

    def report(done: int) -> None:
        if progress is not None:
            progress(done, total, "searching neighbours")

    chosen = _hits(bank[validation], targets[validation], bank[rest], targets[rest], grid, len(classes), report)
    best = int(chosen.argmax())
    # A test label the training set lacks is nobody's: it can be told by position -1.
    places = torch.searchsorted(classes, test_labels.to(device)).clamp(max=len(classes) - 1)
    wanted = torch.where(classes[places] == test_labels.to(device), places, -1)
    queries = _unit(test_features, device)
    on_test = _hits(queries, wanted, bank, targets, grid, len(classes), lambda done: report(held_out + done))
    shares = torch.cat([votes[0] for votes in _votes(queries, bank, targets, grid[best : best + 1], len(classes))])
    outputs = ProbeOutputs.from_logits(shares.clamp(min=1e-12).log(), classes, test_labels, *origin_of(rows[1], "knn"))
    table = [
        (*setting, float(a) / held_out, float(b) / len(test_labels)) for setting, a, b in zip(grid, chosen, on_test, strict=True)
    ]
    said = [beyond_the_bank(beyond, most)] if beyond else []
    for sentence in [*said, *outputs.missing_classes()]:
        warnings.warn(sentence, stacklevel=2)
    return KNNProbe(*grid[best], outputs, table, counts_of(rows[0]), counts_of(rows[1]), beyond)


def beyond_the_bank(beyond: tuple[int, ...], most: int) -> str:
    """One sentence about the default k that are left out.

    >>> beyond_the_bank((100, 200), 54)
    'The default k 100 and 200 are left out: the bank, training less validation, holds 54 rows.'
    """
    return (
        f"The default k {' and '.join(map(str, beyond))} {'is' if len(beyond) == 1 else 'are'} left out: the bank, training "
        f"less validation, holds {most} rows."
    )


def _within(neighbors: tuple[int, ...], most: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The k to try, and the default ones that exceed the bank; one that was asked for may not."""
    beyond = tuple(k for k in neighbors if k > most) if tuple(neighbors) == NEIGHBORS else ()
    kept = tuple(k for k in neighbors if k not in beyond)
    if not kept or min(kept) < 1 or max(kept) > most:
        raise ValueError(
            f"neighbors must lie between 1 and {most}, the training samples less the validation split, got {list(neighbors)}."
        )
    return kept, beyond


def _unit(features: Tensor, device: str | torch.device) -> Tensor:
    """Rows of length 1, float32; float64 is divided before it is rounded, which might overflow."""
    features = features.to(device)
    return F.normalize(features if features.dtype == torch.float64 else features.float(), dim=1).float()


def _hits(
    queries: Tensor,
    wanted: Tensor,
    bank: Tensor,
    targets: Tensor,
    settings: list[tuple[int, float]],
    num_classes: int,
    report: Callable[[int], None],
) -> Tensor:
    """Correctly classified queries at every setting."""
    hits = torch.zeros(len(settings), dtype=torch.int64, device=queries.device)
    start = 0
    for votes in _votes(queries, bank, targets, settings, num_classes):
        rows = votes.shape[1]
        hits += (votes.argmax(-1) == wanted[start : start + rows]).sum(1)
        start += rows
        report(start)
    return hits


def _votes(queries: Tensor, bank: Tensor, targets: Tensor, settings: list[tuple[int, float]], num_classes: int):  # type: ignore[no-untyped-def]
    """Shares of the votes `[G, n, C]`, block by block: the largest k is searched once and holds the smaller ones."""
    most = max(k for k, _ in settings)
    rows = max(1, SIMILARITY_BYTES // (4 * len(bank)))
    for block in queries.split(rows):
        similarity, nearest = (block @ bank.T).topk(most, dim=1)
        labels = targets[nearest]
        votes = []
        for k, temperature in settings:
            # Less the largest, so that exp cannot overflow; shares do not change.
            weight = ((similarity[:, :k] - similarity[:, :1]) / temperature).exp()
            count = block.new_zeros(len(block), num_classes).scatter_add_(1, labels[:, :k], weight)
            votes.append(count / count.sum(1, keepdim=True))
        yield torch.stack(votes)
