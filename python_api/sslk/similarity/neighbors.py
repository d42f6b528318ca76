"""Nearest neighbours among a sample, exact, and how many of them two representations share."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from sslk.similarity.sources import two, varies

TILE = 2048  # rows whose similarities to all others are held at a time


def nearest(x: Tensor, k: int, metric: Literal["cosine", "euclidean"] = "cosine") -> Tensor:
    """The k nearest neighbours of every row among the others, itself left out, even among rows that are equal.

    Args:
        x: `[N, D]`; computed in float32, float64 for float64: float32 cannot tell apart the cosines of rows far from zero. A row
            of zeros has cosine 0 with all.
        k: below N.
        metric: of the distance.

    Returns:
        int64 `[N, k]`, the nearest first; among equally near ones which is not said.

    Raises:
        ValueError: an unknown metric, or k is not below N.

    >>> nearest(torch.tensor([[0.0], [1.0], [3.0]]), 1, "euclidean").tolist()
    [[1], [0], [1]]
    """
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"metric must be 'cosine' or 'euclidean', got {metric!r}.")
    if not 0 < k < len(x):
        raise ValueError(f"k must lie in [1, {len(x)}), got {k}.")
    rows = x if x.dtype == torch.float64 else x.float()
    rows = F.normalize(rows) if metric == "cosine" else rows - rows.mean(0)
    half = rows.square().sum(1) / 2 if metric == "euclidean" else torch.zeros(len(rows), dtype=rows.dtype)
    found = []
    for start in range(0, len(rows), TILE):
        # The order of x.y - |y|^2 / 2 over y is that of the distances from x.
        near = rows[start : start + TILE] @ rows.T - half
        own = torch.arange(len(near))
        near[own, start + own] = -torch.inf
        found.append(near.topk(k, dim=1).indices)
    return torch.cat(found)


def adjacency(x: Tensor, k: int) -> Tensor:
    """float64 `[N, N]`: `k^-1/2 N^-1/2` where a column's sample is among the k nearest of the row's by cosine, else 0.

    The sum of products of two such matrices is their mutual k-NN. NaN where all rows are equal: they have no neighbours.
    """
    near = nearest(x.double(), k)
    found = torch.zeros(len(x), len(x), dtype=torch.float64).scatter_(1, near, (k * len(x)) ** -0.5)
    return found if varies(x) else found.fill_(torch.nan)


def mutual_knn(x: object, y: object, k: int = 10) -> float:
    """Mutual k-NN: the mean share of the k nearest neighbours (cosine) that two representations have in common.

    `1/N sum_i |N_k^x(i) & N_k^y(i)| / k` (Huh et al., The Platonic Representation Hypothesis, 2024).

    Args:
        x, y: tensors or arrays `[N, D_1]` and `[N, D_2]` of the same samples.
        k: neighbours, below N.

    Returns:
        In [0, 1]; `k / (N - 1)` is the mean over permutations of the samples. NaN where all rows are equal.

    Raises:
        ValueError: the rows differ in number or are not finite, or k is not below their number.

    >>> a = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    >>> round(mutual_knn(a, 2 * a, k=5), 6), round(mutual_knn(a, a.roll(1, 0), k=5), 2)
    (1.0, 0.02)
    """
    a, b = two(x, y)
    return float((adjacency(a, k) * adjacency(b, k)).sum())
