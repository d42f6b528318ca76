"""Canonical correlations of two representations from their covariances: SVCCA and PWCCA."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Canonical:
    """Canonical variates of a pair: `x @ left` and `y @ right` are uncorrelated within, of correlation `rho` between.

    Attributes:
        left, right: `[D_1, r]` and `[D_2, r]`, for centred rows, scaled to unit sums of squares over the data.
        rho: `[r]`, the correlations, largest first; r is the smaller rank.
    """

    left: Tensor
    right: Tensor
    rho: Tensor


def canonical(products: Tensor, left: Tensor, right: Tensor) -> Canonical:
    """The canonical correlations of two whitened representations.

    Args:
        products: `[D_1, D_2]`, sum of centred products.
        left, right: their whitenings, `[D_1, r_1]` and `[D_2, r_2]` with `W' C W = 1`.
    """
    p, rho, q = torch.linalg.svd(left.T @ products @ right, full_matrices=False)
    return Canonical(left @ p, right @ q.T, rho)


def principal_whitening(values: Tensor, vectors: Tensor, variance: float = 0.99) -> Tensor:
    """Whitening of the leading principal components, as many as hold this share of the variance: SVCCA's first step.

    Args:
        values, vectors: `[D]`, increasing, and `[D, D]`: eigenvalues and -vectors of the sum of centred products.
        variance: share of it to keep, in (0, 1].

    Returns:
        `[D, r]`; no columns where there is no variance.

    >>> principal_whitening(torch.tensor([0.5, 9.5, 90.0]), torch.eye(3), 0.99).shape
    torch.Size([3, 2])
    """
    if not 0 < variance <= 1:
        raise ValueError(f"variance must be a share in (0, 1], got {variance}.")
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    if values[0] <= 0:
        return vectors[:, :0]
    share = values.cumsum(0) / values.sum()
    # The first component that reaches the share belongs to them; rounding must not ask for one more.
    count = min(int((share < variance - 1e-12).sum()) + 1, int((values > 1e-12 * values[0]).sum()))
    return vectors[:, :count] / values[:count].sqrt()


def projection_weights(products: Tensor, variates: Tensor) -> Tensor:
    """PWCCA's weights: `alpha_k = sum_j |<h_k, x_j>|` over features j, scaled to sum 1 (Morcos et al., 2018).

    Args:
        products: `[D, D]`, sum of centred products of the representation that is to be accounted for.
        variates: `[D, r]`, its side of `Canonical`.
    """
    weights = (products @ variates).abs().sum(0)
    return weights / weights.sum()
