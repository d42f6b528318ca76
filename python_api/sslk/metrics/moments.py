"""Mean and standard deviation per feature, merged exactly over batches and ranks."""

import torch
from torch import Tensor

from sslk.metrics.checks import check_features
from sslk.metrics.exact import ExactMetric
from sslk.statistics.moments import batch_moments, mean_and_std, merge_moments


class FeatureMoments(ExactMetric):
    """Mean and population standard deviation of every feature over a data set.

    Args:
        num_features: D.

    `update(h)` takes representations `[n, D]`; n = 0 is fine, a NaN makes its feature NaN. `compute()` gives a
    dictionary with `mean` and `std`, float64 `[D]`, and `rows`; zeros before the first row.

    Examples:
        >>> moments = FeatureMoments(2)
        >>> moments.update(torch.tensor([[1.0, 0.0]])); moments.update(torch.tensor([[3.0, 0.0]]))
        >>> moments.compute()["mean"].tolist(), moments.compute()["std"].tolist()
        ([2.0, 0.0], [1.0, 0.0])
    """

    is_differentiable = False
    full_state_update = False
    moments: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        # Packed: the three reduce together or not at all.
        zeros = torch.zeros(1 + 2 * num_features, dtype=torch.float64)
        self.add_state("moments", zeros, dist_reduce_fx=merge_moments, persistent=True)

    def update(self, h: Tensor) -> None:
        """Add representations `[n, D]`."""
        check_features(h, self.num_features)
        self.moments = merge_moments(torch.stack([self.moments, batch_moments(h)]))

    def compute(self) -> dict[str, Tensor]:
        """`mean`, `std` and `rows`."""
        mean, std = mean_and_std(self.moments)
        return {"mean": mean, "std": std, "rows": self.moments[0].long()}
