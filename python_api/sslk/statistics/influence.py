"""Bootstrap intervals of similarities, by resampling the samples' influences.

Resampling rows would draw duplicates, which CKA's debiasing and CCA's ranks mistake for structure, and would repeat the
whole computation. Every similarity here is a smooth function of means over samples, so to first order a resample moves
it by the mean of the drawn samples' influence values (the infinitesimal jackknife: Efron, 1982; for HSIC the Hajek
projection of its U-statistic). One pass gives the values of all samples; resamples are then sums of them.

The intervals hold sampling error only. Bias, as of CCA where N is not much larger than D, is not in them; about 0, where
the first order vanishes, they are too narrow.
"""

from __future__ import annotations

import torch
from torch import Tensor


def hsic_influence(x: Tensor, y: Tensor, covariance: Tensor) -> Tensor:
    """Influence of every row on `||C_xy||_F^2`, HSIC with linear kernels: `2 (x_i' C_xy y_i - ||C_xy||^2)`.

    Args:
        x, y: `[n, D_1]` and `[n, D_2]`, centred rows.
        covariance: `[D_1, D_2]`, of all samples.
    """
    return 2 * (((x @ covariance) * y).sum(1) - covariance.square().sum())


def correlation_influence(a: Tensor, b: Tensor, rho: Tensor, gradient: Tensor) -> Tensor:
    """Influence of every row on `f(rho)`: `sum_k df/drho_k (a_k b_k - rho_k (a_k^2 + b_k^2) / 2)`.

    Args:
        a, b: `[n, r]`, canonical variates with unit variance.
        rho: `[r]`, their correlations.
        gradient: `[r]`, or `[r, M]` for M functions at once.

    Returns:
        `[n]` or `[n, M]`.
    """
    return (a * b - rho * (a.square() + b.square()) / 2) @ gradient


def resampled_means(influences: Tensor, resamples: int, seed: int) -> Tensor:
    """Means of influences `[N, P]` over resamples with replacement, `[resamples, P]`."""
    generator = torch.Generator().manual_seed(seed)
    n = len(influences)
    means = []
    for count in torch.arange(resamples).split(max(1, min(64, 500_000 // n))):  # scratch memory flat in N
        drawn = torch.randint(n, (len(count), n), generator=generator)
        weights = torch.zeros(len(count), n, dtype=influences.dtype)
        weights.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=influences.dtype))
        means.append(weights @ influences / n)
    return torch.cat(means)


def interval(values: Tensor, level: float = 0.95) -> tuple[Tensor, Tensor]:
    """Percentile interval over the first axis: lower and upper bounds."""
    tail = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=values.dtype)
    low, high = torch.quantile(values, tail, dim=0)
    return low, high
