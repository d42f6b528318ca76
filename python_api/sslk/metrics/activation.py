"""How often features are highly activating, and how many are at a time."""

import torch
from torch import Tensor

import ssl_kernels
from sslk.metrics.checks import check_features
from sslk.metrics.exact import ExactMetric


class ActivationRate(ExactMetric):
    """Activation percentage `A_j = 100/N #{i : j in L_i}` of every feature, and the mean of `|L_i|`.

    `L_i = {j : h_ij > mu_i + eps sigma_i}` (Kalibhat et al., AAAI 2024); counts are int64, so the answer does not
    depend on how the rows are batched.

    Args:
        num_features: D.
        eps: threshold in standard deviations of the row.
        two_sided: `|h_ij - mu_i| > eps sigma_i`, for signed features.

    `update(h)` takes representations `[n, D]`. `compute()` gives a dictionary: `activation_percent` float64 `[D]`,
    `counts` int64 `[D]`, `mean_active` float64 and `rows` int64; NaN rates before the first row.

    Examples:
        >>> rate = ActivationRate(8, eps=2.0)
        >>> rate.update(torch.eye(2, 8)); rate.update(torch.zeros(2, 8))
        >>> rate.compute()["activation_percent"][:3].tolist(), rate.compute()["mean_active"].item()
        ([25.0, 25.0, 0.0], 0.5)
    """

    is_differentiable = False
    full_state_update = False
    counts: Tensor
    rows: Tensor

    def __init__(self, num_features: int, eps: float = 4.0, two_sided: bool = False) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.two_sided = two_sided
        zeros = torch.zeros(num_features, dtype=torch.int64)
        self.add_state("counts", zeros, dist_reduce_fx="sum", persistent=True)
        self.add_state("rows", torch.tensor(0), dist_reduce_fx="sum", persistent=True)

    def update(self, h: Tensor) -> None:
        """Add representations `[n, D]`."""
        check_features(h, self.num_features)
        per_feature, _ = ssl_kernels.activation_counts(h.detach(), self.eps, self.two_sided)
        self.counts = self.counts + per_feature
        self.rows = self.rows + len(h)

    def compute(self) -> dict[str, Tensor]:
        """`activation_percent`, `counts`, `mean_active` and `rows`."""
        rows = self.rows.double()
        return {
            "activation_percent": 100 * self.counts.double() / rows,
            "counts": self.counts,
            "mean_active": self.counts.sum().double() / rows,
            "rows": self.rows,
        }
