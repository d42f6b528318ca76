"""Whose neighbours are whose: which variants lie around every variant's representations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def variant_shares(representations: Sequence[Tensor], k: int = 10, metric: Literal["cosine", "euclidean"] = "cosine") -> Tensor:
    """Shares of the variants among the k nearest neighbours, all variants pooled, exact (faiss).

    Args:
        representations: V matrices `[N, D]` of the same N images.
        k: neighbours per sample; itself is left out, other variants of its image are not.
        metric: of the distance.

    Returns:
        float64 `[V, V]`: row u holds the shares of each variant among the neighbours of variant u's samples. Rows sum
        to 1; without structure each entry is about 1 / V.

    Raises:
        ValueError: k is not below the number of pooled samples, or shapes differ.
        ImportError: faiss is not installed.

    Examples:
        >>> a = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
        >>> variant_shares([a, a + 100], k=5, metric="euclidean").tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    import faiss

    if len({tuple(x.shape) for x in representations}) != 1 or representations[0].ndim != 2:
        raise ValueError(f"representations must be matrices [N, D] of one shape, got {[list(x.shape) for x in representations]}.")
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"metric must be 'cosine' or 'euclidean', got {metric!r}.")
    count, rows = len(representations), len(representations[0])
    if not 0 < k < count * rows:
        raise ValueError(f"k must lie in [1, {count * rows}), got {k}.")
    pooled = torch.cat([x.float() for x in representations])
    pooled = F.normalize(pooled) if metric == "cosine" else pooled - pooled.mean(0)
    vectors = pooled.contiguous().numpy()
    index = faiss.IndexFlatIP(vectors.shape[1]) if metric == "cosine" else faiss.IndexFlatL2(vectors.shape[1])
    index.add(vectors)
    shares = np.zeros((count, count))
    own = np.arange(count * rows)
    for part in np.array_split(own, -(-len(own) // 4096)):
        _, found = index.search(vectors[part], k + 1)
        # Itself need not come first among equals, nor come at all among many of them.
        others = found != part[:, None]
        others[others.all(1), -1] = False
        neighbours = found[others].reshape(len(part), k) // rows
        np.add.at(shares, (np.repeat(part // rows, k), neighbours.ravel()), 1)
    return torch.from_numpy(shares / (rows * k))
