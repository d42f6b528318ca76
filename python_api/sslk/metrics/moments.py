"""Mean and standard deviation per feature, merged exactly over batches and ranks."""

import torch
from torch import Tensor
from torchmetrics import Metric

from sslk.metrics.checks import check_features


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
    n, mean, deviation = _unpack(parts)
    total = n.sum(0)
    merged = (n * mean).sum(0) / total.clamp(min=1)
    return torch.cat([total, merged, (deviation + n * (mean - merged).square()).sum(0)])


def _unpack(packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    width = (packed.shape[-1] - 1) // 2
    return packed[..., :1], packed[..., 1 : 1 + width], packed[..., 1 + width :]


class FeatureMoments(Metric):
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
        n, mean, deviation = _unpack(self.moments)
        return {"mean": mean, "std": (deviation / n.clamp(min=1)).sqrt(), "rows": n[0].long()}
