"""Canonical correlation between representations of one data set, from streamed covariances."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from sslk.metrics.checks import check_representations, check_widths
from sslk.metrics.exact import ExactMetric


def merge_covariances(parts: Tensor, width: int) -> Tensor:
    """Merge packed (count, mean, sum of centred products) `[W, 1 + D + D^2]` (Chan, Golub and LeVeque 1983)."""
    n, mean, products = parts.split([1, width, width * width], dim=1)
    total = n.sum(0)
    merged = (n * mean).sum(0) / total.clamp(min=1)
    offset = n.sqrt() * (mean - merged)
    return torch.cat([total, merged, products.sum(0) + (offset.T @ offset).flatten()])


def eigensystem(products: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues, increasing, and eigenvectors of a representation's sum of centred products.

    Raises:
        ValueError: a row of the representation was not finite; CCA has no answer then, and LAPACK no convergence.
    """
    if not products.isfinite().all():
        raise ValueError(f"representation {number} must be finite, but a row of it holds a NaN or an infinity.")
    return torch.linalg.eigh(products)


class CCA(ExactMetric):
    """Mean squared canonical correlation of every pair of V representations of the same samples.

    `R^2 = 1/min(r_1, r_2) sum_k rho_k^2`, where r is the rank of a representation: dead and duplicated features and
    fewer rows than features are fine. Kept in float64: `8 (sum D_v)^2` bytes.

    Args:
        num_features: widths `D_v` of the V representations.
        rtol: directions whose standard deviation is at most this share of the largest are dropped. By default
            `sqrt(max(n, D) eps)` with the float64 eps: covariances square the condition number, so smaller ones
            cannot be told from rounding.

    `update(x_1, ..., x_V)` takes `[n, D_v]` each, the same n. `compute()` gives a dictionary: `r2` float64 `[V, V]`
    (NaN for a representation without variance) and `ranks` int64 `[V]`.

    Examples:
        >>> cca = CCA([3, 2])
        >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
        >>> cca.update(x, x[:, :2] * 5 + 1)
        >>> round(cca.compute()["r2"][0, 1].item(), 9), cca.compute()["ranks"].tolist()
        (1.0, [3, 2])
    """

    is_differentiable = False
    full_state_update = False
    covariances: Tensor

    def __init__(self, num_features: Sequence[int], rtol: float | None = None) -> None:
        super().__init__()
        self.num_features = check_widths(num_features)
        self.rtol = rtol
        self.width = sum(num_features)
        zeros = torch.zeros(1 + self.width + self.width**2, dtype=torch.float64)
        merge = partial(merge_covariances, width=self.width)
        self.add_state("covariances", zeros, dist_reduce_fx=merge, persistent=True)

    def update(self, *representations: Tensor) -> None:
        """Add the V representations `[n, D_v]` of n samples."""
        check_representations(representations, self.num_features)
        if not len(representations[0]):
            return
        rows = torch.cat([x.detach().double() for x in representations], dim=1)
        n, mean, products = self._parts()
        offset = rows.mean(0) - mean
        rows -= rows.mean(0)
        total = n + len(rows)
        products.addmm_(rows.T, rows).addr_(offset * (n * len(rows) / total), offset)
        mean.add_(offset * (len(rows) / total))
        n.copy_(total)

    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Views: count `[1]`, mean `[D]`, sum of centred products `[D, D]`."""
        n, mean, products = self.covariances.split([1, self.width, self.width**2])
        return n, mean, products.view(self.width, self.width)

    def compute(self) -> dict[str, Tensor]:
        """`r2` `[V, V]` and `ranks` `[V]`."""
        n, _, products = self._parts()
        blocks = [row.split(self.num_features, dim=1) for row in products.split(self.num_features)]
        whitening = [self._whitening(v, blocks[v][v], n) for v in range(len(blocks))]
        ranks = torch.tensor([w.shape[1] for w in whitening])
        r2 = torch.full((len(blocks), len(blocks)), torch.nan, dtype=torch.float64)
        for u, left in enumerate(whitening):
            for v, right in enumerate(whitening):
                if left.shape[1] and right.shape[1]:
                    correlations = left.T @ blocks[u][v] @ right
                    r2[u, v] = correlations.square().sum() / min(left.shape[1], right.shape[1])
        return {"r2": r2.to(products.device), "ranks": ranks.to(products.device)}

    def _whitening(self, number: int, products: Tensor, n: Tensor) -> Tensor:
        """`[D, rank]` matrix W with `W' C W = 1`."""
        eps = torch.finfo(torch.float64).eps
        rtol = self.rtol if self.rtol is not None else (max(n.item(), len(products)) * eps) ** 0.5
        values, vectors = eigensystem(products, number)
        kept = values > rtol**2 * values[-1].clamp(min=torch.finfo(torch.float64).tiny)
        return vectors[:, kept] / values[kept].sqrt()
