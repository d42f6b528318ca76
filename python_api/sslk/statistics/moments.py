"""Mean and standard deviation per feature, merged exactly over batches and ranks."""

from __future__ import annotations

import torch
from torch import Tensor


def batch_moments(x: Tensor) -> Tensor:
    """Count, means and sums of squared deviations of `x` `[n, D]`, packed as float64 `[1 + 2D]`."""
    x = x.detach().double()
    count = torch.full((1,), len(x), dtype=torch.float64, device=x.device)
    if not len(x):
        return torch.cat([count, x.new_zeros(2 * x.shape[1])])
    mean = x.mean(0)
    return torch.cat([count, mean, (x - mean).square().sum(0)])


def merge_moments(parts: Tensor) -> Tensor:
    """Merge packed moments `[W, 1 + 2D]` into `[1 + 2D]` (Chan, Golub and LeVeque 1983); associative.

    >>> x = torch.tensor([[1.0], [2.0], [6.0]])
    >>> merge_moments(torch.stack([batch_moments(x[:1]), batch_moments(x[1:])])).tolist()
    [3.0, 3.0, 14.0]
    """
    n, mean, deviation = unpack_moments(parts)
    total = n.sum(0)
    merged = (n * mean).sum(0) / total.clamp(min=1)
    return torch.cat([total, merged, (deviation + n * (mean - merged).square()).sum(0)])


def unpack_moments(packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count `[..., 1]`, means and sums of squared deviations `[..., D]`."""
    width = (packed.shape[-1] - 1) // 2
    return packed[..., :1], packed[..., 1 : 1 + width], packed[..., 1 + width :]


def mean_and_std(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation, float64 `[D]`, of packed moments."""
    n, mean, deviation = unpack_moments(packed)
    return mean, (deviation / n.clamp(min=1)).sqrt()
