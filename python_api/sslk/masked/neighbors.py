"""Whose neighbours are whose: which variants lie around every variant's representations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from sslk.similarity.neighbors import nearest


def variant_shares(representations: Sequence[Tensor], k: int = 10, metric: Literal["cosine", "euclidean"] = "cosine") -> Tensor:
    """Shares of the variants among the k nearest neighbours, all variants pooled, exact.

    Args:
        representations: V matrices `[N, D]` of the same N images.
        k: neighbours per sample; itself is left out, other variants of its image are not.
        metric: of the distance.

    Returns:
        float64 `[V, V]`: row u holds the shares of each variant among the neighbours of variant u's samples. Rows sum
        to 1; without structure each entry is about 1 / V.

    Raises:
        ValueError: k is not below the number of pooled samples, or shapes differ.

    Examples:
        >>> a = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
        >>> variant_shares([a, a + 100], k=5, metric="euclidean").tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    if len({tuple(x.shape) for x in representations}) != 1 or representations[0].ndim != 2:
        raise ValueError(f"representations must be matrices [N, D] of one shape, got {[list(x.shape) for x in representations]}.")
    count, rows = len(representations), len(representations[0])
    near = nearest(torch.cat([x.float() for x in representations]), k, metric) // rows
    shares = torch.zeros(count, count, dtype=torch.float64)
    for u, part in enumerate(near.split(rows)):
        shares[u] = torch.bincount(part.flatten(), minlength=count)
    return shares / (rows * k)
