"""k-nearest-neighbour classification of frozen features: all k and temperatures from one search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sslk.probes.outputs import ProbeOutputs
from sslk.probes.rows import Labelled, loaded, origin_of, rows_of
from sslk.probes.settings import KnnSettings
from sslk.progress import Progress

SIMILARITY_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class KNNProbe:
    """k-NN classification of a test set.

    Attributes:
        k, temperature: the setting chosen on the validation split.
        top1: its accuracy on the test set.
        outputs: its answer for every test sample; `logits` are logarithms of the votes' shares.
        grid: (k, temperature, validation accuracy, test accuracy) of every setting; only the validation chose.
    """

    k: int
    temperature: float
    top1: float
    outputs: ProbeOutputs
    grid: list[tuple[int, float, float, float]]


def knn_probe(
    train: Labelled,
    test: Labelled,
    settings: KnnSettings = KnnSettings(),  # noqa: B008 (frozen)
    *,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> KNNProbe:
    """Classify every test sample by its nearest training samples; choose k and temperature on a validation split.

    A neighbour with cosine similarity s votes with weight `exp(s / temperature)` for its label (Wu et al., CVPR 2018).
    The validation samples are a split of the training set, classified by the rest of it; the test samples then by all
    of it. The search is exact, in blocks, so that no `[M, N]` matrix is kept.

    Args:
        train, test: `(features [N, D], labels [N])` or feature stores; classes need not be contiguous.
        settings: the grid; no k may exceed the training samples less the validation split.
        device: where to compute.
        progress: called with the samples classified and to classify.

    Raises:
        ValueError: shapes do not match, k is out of range or a temperature is not positive.

    Examples:
        >>> x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0)); y = (x[:, 0] > 0).long() * 7
        >>> probe = knn_probe((x[:300], y[:300]), (x[300:], y[300:]),
        ...                   KnnSettings(neighbors=(1, 5, 25), validation_share=0.4))
        >>> probe.k, probe.top1 > 0.8
        (25, True)
    """
    rows = rows_of(train, test)
    (train_features, train_labels), (test_features, test_labels) = map(loaded, rows)
    held_out = max(1, round(settings.validation_share * len(train_labels)))
    most = len(train_labels) - held_out
    neighbors, temperatures = settings.neighbors, settings.temperatures
    if not neighbors or min(neighbors) < 1 or max(neighbors) > most:
        raise ValueError(f"neighbors must lie between 1 and {most}, the training samples, got {list(neighbors)}.")
    if not temperatures or min(temperatures) <= 0:
        raise ValueError(f"temperatures must be positive, got {list(temperatures)}.")
    classes, targets = torch.unique(train_labels.to(device), return_inverse=True)
    bank = F.normalize(train_features.to(device).float(), dim=1)
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
    queries = F.normalize(test_features.to(device).float(), dim=1)
    on_test = _hits(queries, wanted, bank, targets, grid, len(classes), lambda done: report(held_out + done))
    shares = torch.cat([votes[0] for votes in _votes(queries, bank, targets, grid[best : best + 1], len(classes))])
    outputs = ProbeOutputs.from_logits(shares.clamp(min=1e-12).log(), classes, test_labels, *origin_of(rows[1], "knn"))
    table = [
        (*setting, float(a) / held_out, float(b) / len(test_labels)) for setting, a, b in zip(grid, chosen, on_test, strict=True)
    ]
    return KNNProbe(*grid[best], outputs.accuracy, outputs, table)


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
