"""Summary of the Q-Scores of a data set."""

import torch
from torch import Tensor

import ssl_kernels
from sslk.metrics.checks import check_features
from sslk.metrics.exact import ExactMetric
from sslk.statistics.moments import batch_moments, merge_moments


class QScoreSummary(ExactMetric):
    """Mean, spread and range of `Q_i` over a data set, and the share of rows without an active feature in S.

    Args:
        discriminative: bool `[D]`, the set S.
        eps, normalize, two_sided: as for `ssl_kernels.qscore`.

    `update(h)` takes representations `[n, D]` and returns nothing; `compute()` gives a dictionary of float64 scalars
    `mean`, `std` (population), `min`, `max`, `empty_share`, and int64 `rows`, `nonfinite_rows`. Empty rows count with
    their score of 0; rows that are not finite are counted and left out of everything else. NaN before the first row.

    Examples:
        >>> summary = QScoreSummary(torch.ones(32, dtype=torch.bool))
        >>> summary.update(torch.eye(2, 32)); summary.update(torch.zeros(2, 32))
        >>> {name: round(value.item(), 4) for name, value in summary.compute().items()}
        {'mean': 0.4844, 'std': 0.4844, 'min': 0.0, 'max': 0.9688, 'empty_share': 0.5, 'rows': 4, 'nonfinite_rows': 0}
    """

    is_differentiable = False
    full_state_update = False
    discriminative: Tensor
    moments: Tensor
    low: Tensor
    high: Tensor
    empty: Tensor
    nonfinite: Tensor

    def __init__(self, discriminative: Tensor, eps: float = 4.0, normalize: bool = True, two_sided: bool = False) -> None:
        super().__init__()
        if discriminative.dtype != torch.bool or discriminative.dim() != 1:
            shape = list(discriminative.shape)
            raise ValueError(f"discriminative must be bool [D], got {discriminative.dtype} {shape}.")
        self.register_buffer("discriminative", discriminative)
        self.eps = eps
        self.normalize = normalize
        self.two_sided = two_sided
        infinity = torch.tensor(float("inf"), dtype=torch.float64)
        self.add_state("moments", torch.zeros(3, dtype=torch.float64), dist_reduce_fx=merge_moments, persistent=True)
        self.add_state("low", infinity, dist_reduce_fx="min", persistent=True)
        self.add_state("high", -infinity, dist_reduce_fx="max", persistent=True)
        self.add_state("empty", torch.tensor(0), dist_reduce_fx="sum", persistent=True)
        self.add_state("nonfinite", torch.tensor(0), dist_reduce_fx="sum", persistent=True)

    def update(self, h: Tensor) -> None:
        """Add representations `[n, D]`."""
        check_features(h, len(self.discriminative))
        self.update_scores(ssl_kernels.qscore(h.detach(), self.discriminative, self.eps, self.normalize, self.two_sided))

    def update_scores(self, scores: Tensor) -> None:
        """Add scores `[n]` that were computed elsewhere with the same settings."""
        finite = ~scores.isnan()
        self.nonfinite = self.nonfinite + (~finite).sum()
        scores = scores[finite].double()
        if not len(scores):
            return
        self.moments = merge_moments(torch.stack([self.moments, batch_moments(scores[:, None])]))
        self.low = torch.minimum(self.low, scores.min())
        self.high = torch.maximum(self.high, scores.max())
        # Active features lie strictly above the mean, so only an empty set scores 0.
        self.empty = self.empty + (scores == 0).sum()

    def compute(self) -> dict[str, Tensor]:
        """`mean`, `std`, `min`, `max`, `empty_share`, `rows` and `nonfinite_rows`."""
        n, mean, deviation = self.moments
        missing = torch.where(n > 0, 0.0, torch.nan)
        return {
            "mean": mean + missing,
            "std": (deviation / n).sqrt(),
            "min": self.low + missing,
            "max": self.high + missing,
            "empty_share": self.empty / n,
            "rows": n.long() + self.nonfinite,
            "nonfinite_rows": self.nonfinite,
        }
