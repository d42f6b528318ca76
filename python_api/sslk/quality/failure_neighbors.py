"""Nearest neighbours of a store's samples in a store, exact and tile by tile: what baselines and R-AUROC are made of."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sslk.features.store import FeatureStore
from sslk.progress import Progress

TILE_BYTES = 256 << 20  # of the queries that are held at once
BANK_ROWS = 8192


def unit_rows(features: Tensor) -> Tensor:
    """Rows of length 1 in float32; divided in float64, so that the largest numbers do not overflow."""
    return F.normalize(features.double(), dim=1).float()


def nearest_rows(
    queries: FeatureStore,
    bank: FeatureStore,
    k: int,
    *,
    usable: Tensor | None = None,
    exclude_itself: bool = False,
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """Cosine similarity and row in `bank` of the k nearest neighbours of every row of `queries`, nearest first.

    Products are float32 (faiss where it is installed, else torch), in tiles: neither `[N, M]` nor a whole store is held. Which of
    the rows that are equally similar at the k-th place is taken is the search's choice, the same in every call.

    Args:
        queries: whose neighbours are sought; the neighbours of a row that is not finite mean nothing.
        bank: where they are sought.
        k: neighbours.
        usable: bool, the rows of the bank that may be neighbours; all by default.
        exclude_itself: both stores are of the same samples, row by row, and a sample is not its own neighbour.
        progress: called with the rows of the queries searched and to search.

    Returns:
        float32 `[N, k]` and int64 `[N, k]`.

    Raises:
        ValueError: the bank has fewer than k rows to be found.
    """
    there = (len(bank) if usable is None else int(usable.sum())) - int(exclude_itself)
    if not 0 < k <= there:
        raise ValueError(f"k must lie in [1, {there}], the rows that can be neighbours, got {k}.")
    tile = max(1, TILE_BYTES // (4 * queries.num_features))
    similarities, rows = [], []
    held: list[Tensor] = []
    start = count = 0
    for batch in queries.batches(min(tile, BANK_ROWS)):
        held.append(unit_rows(batch.features))
        count += len(held[-1])
        if count < tile and start + count < len(queries):
            continue
        found = _in_bank(torch.cat(held), bank, k, usable, start if exclude_itself else None)
        similarities.append(found[0])
        rows.append(found[1])
        held, start, count = [], start + count, 0
        if progress is not None:
            progress(start, len(queries), "searching neighbours")
    return torch.cat(similarities), torch.cat(rows)


def _in_bank(queries: Tensor, bank: FeatureStore, k: int, usable: Tensor | None, first: int | None) -> tuple[Tensor, Tensor]:
    """The k nearest of a tile of queries; `first` is the row of the first one in the bank, where it must not find itself."""
    wanted = k + (first is not None)
    best = torch.full((len(queries), wanted), -torch.inf)
    place = torch.full((len(queries), wanted), -1)
    start = 0
    for batch in bank.batches(BANK_ROWS):
        chosen = torch.arange(start, start + len(batch.features))
        features = batch.features
        start += len(features)
        if usable is not None:
            keep = usable[chosen]
            chosen, features = chosen[keep], features[keep]
        if not len(chosen):
            continue
        similarity, found = _search(queries, unit_rows(features), min(wanted, len(chosen)))
        best, order = torch.cat([best, similarity], 1).sort(dim=1, descending=True, stable=True)
        place = torch.cat([place, chosen[found]], 1).gather(1, order)[:, :wanted]
        best = best[:, :wanted]
    if first is None:
        return best, place
    # Itself need not come first among equals, nor come at all among many of them.
    others = place != torch.arange(first, first + len(queries))[:, None]
    others[others.all(1), -1] = False
    return best[others].view(-1, k), place[others].view(-1, k)


def _search(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Similarities `[n, k]` and places in a bank that fits into memory; equal ones in the order of the bank."""
    try:
        import faiss
    except ImportError:
        parts = [(block @ bank.T).topk(k, dim=1) for block in queries.split(1024)]
        similarity, place = torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts])
    else:
        found = faiss.knn(queries.numpy(), bank.numpy(), k, metric=faiss.METRIC_INNER_PRODUCT)
        similarity, place = map(torch.from_numpy, found)
    place, order = place.sort(dim=1)
    similarity, order = similarity.gather(1, order).sort(dim=1, descending=True, stable=True)
    return similarity, place.gather(1, order)
