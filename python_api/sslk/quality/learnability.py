"""Cluster learnability: how well nearest neighbours tell the cluster that k-means puts a sample into."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from sslk.metrics.uniformity import unit_rows

PROTOCOLS = ("validation", "prequential")
_TILE_BYTES = 64 << 20


@dataclass(frozen=True)
class ClusterLearnability:
    """Cluster learnability of a representation.

    Attributes:
        value: share of correctly told clusters, the mean over the orders.
        by_order: of every random order.
        clusters, rows: how many there were.
    """

    value: float
    by_order: tuple[float, ...]
    clusters: int
    rows: int


def cluster_learnability(
    x: Tensor, clusters: int | None = None, neighbors: int = 1, protocol: str = "validation", repeats: int = 5, seed: int = 0
) -> ClusterLearnability:
    """Cluster learnability (Lu et al., TMLR 2023): the accuracy of k-NN for labels that are k-means clusters.

    Rows are divided by their lengths, clustered by k-means (scikit-learn's, one start of k-means++), and their clusters told
    by the `neighbors` nearest rows in cosine similarity, by majority, a tie going to the nearer. In protocol "validation",
    that of the published article, a random half is told from the other half. In "prequential", that of its first version
    (arXiv 2022), row i of a random order is told from rows 1 to i - 1, for i from 2 to N. High is learnable, whatever
    the classes are; many clusters and few rows make it low.

    Args:
        x: `[N, D]`, floating-point and finite, in memory: for large N a random sample of rows. Both halves of the value, k-means
            and neighbours, cost `N^1.5 D` and `N^2 D` operations.
        clusters: by default the square root of N, rounded down, at least 2.
        neighbors: k.
        protocol: see above.
        repeats: number of random orders over which the accuracy is averaged; the clusters are the same in all.
        seed: of k-means and of the orders.

    Raises:
        ValueError: x is not finite floating-point `[N, D]` with 4 rows or more, or an argument is out of range.

    Examples:
        >>> g = torch.Generator().manual_seed(0)
        >>> groups = torch.eye(4)[torch.arange(200) % 4] + 0.05 * torch.randn(200, 4, generator=g)
        >>> cluster_learnability(groups, clusters=4).value
        1.0
        >>> cluster_learnability(torch.randn(200, 64, generator=g)).value < 0.6
        True
    """
    if x.dim() != 2 or not x.is_floating_point() or len(x) < 4:
        raise ValueError(f"x must be floating-point [N, D] with at least 4 rows, got {x.dtype} {list(x.shape)}.")
    if not x.isfinite().all():
        raise ValueError("x must be finite, but a row of it holds a NaN or an infinity.")
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}.")
    clusters = clusters if clusters is not None else max(2, int(len(x) ** 0.5))
    if not 2 <= clusters <= len(x):
        raise ValueError(f"clusters must lie between 2 and the {len(x)} rows, got {clusters}.")
    half = len(x) // 2
    if not 1 <= neighbors <= half or repeats < 1:
        raise ValueError(f"neighbors must lie between 1 and {half}, and repeats be positive, got {neighbors} and {repeats}.")
    rows = unit_rows(x, torch.float32)
    fit = KMeans(clusters, n_init=1, random_state=seed).fit(rows.cpu().numpy())
    labels = torch.from_numpy(fit.labels_).long().to(x.device)
    generator = torch.Generator().manual_seed(seed)
    by_order = []
    for _ in range(repeats):
        order = torch.randperm(len(x), generator=generator).to(x.device)
        if protocol == "validation":
            hits = _hits(rows, labels, order[half:], order[:half], neighbors, clusters)
        else:
            hits = _hits(rows, labels, order, order, neighbors, clusters, before=True)[1:]
        by_order.append(float(hits.double().mean()))
    return ClusterLearnability(sum(by_order) / repeats, tuple(by_order), clusters, len(x))


def _hits(
    rows: Tensor, labels: Tensor, queries: Tensor, bank: Tensor, neighbors: int, clusters: int, before: bool = False
) -> Tensor:
    """bool: whether the nearest of the bank tell each query's label; with `before`, of those at an earlier place only."""
    hits = []
    vectors, known = rows[bank].T.contiguous(), labels[bank]
    place = torch.arange(len(queries), device=rows.device)
    for some in place.split(max(1, _TILE_BYTES // (4 * len(bank)))):
        similarity = rows[queries[some]] @ vectors
        if before:
            similarity.masked_fill_(place[None] >= some[:, None], -torch.inf)
        nearest = similarity.topk(neighbors, dim=1)
        # A vote each, and less than half of one between all for being near, the nearest the most: that breaks ties.
        rank = torch.arange(neighbors, device=rows.device)
        weight = (1 + 0.5**rank / 4).expand(len(some), -1) * (nearest.values > -torch.inf)
        votes = rows.new_zeros(len(some), clusters).scatter_add_(1, known[nearest.indices], weight.to(rows.dtype))
        hits.append(votes.argmax(1) == labels[queries[some]])
    return torch.cat(hits)
