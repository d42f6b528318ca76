"""L1 norm of every feature over a data set."""

import torch
from torch import Tensor

import ssl_kernels
from sslk.metrics.checks import check_features
from sslk.metrics.exact import ExactMetric


class ColumnL1(ExactMetric):
    """`sum_i |h_ij|` of every feature, rows divided by their L2 norm by default; the norm of the Q-Score penalty.

    Args:
        num_features: D.
        normalize: divide rows by their L2 norm first.

    `update(h)` takes representations `[n, D]`; `compute()` gives float64 `[D]`. Batches are summed in float64.

    Examples:
        >>> norms = ColumnL1(2)
        >>> norms.update(torch.tensor([[3.0, -4.0]])); norms.update(torch.tensor([[0.0, 2.0]]))
        >>> [round(norm, 6) for norm in norms.compute().tolist()]
        [0.6, 1.8]
    """

    is_differentiable = False
    full_state_update = False
    norms: Tensor

    def __init__(self, num_features: int, normalize: bool = True) -> None:
        super().__init__()
        self.num_features = num_features
        self.normalize = normalize
        zeros = torch.zeros(num_features, dtype=torch.float64)
        self.add_state("norms", zeros, dist_reduce_fx="sum", persistent=True)

    def update(self, h: Tensor) -> None:
        """Add representations `[n, D]`."""
        check_features(h, self.num_features)
        # In float64 already inside a batch: otherwise the sum would depend on how the rows are batched.
        self.norms = self.norms + ssl_kernels.column_l1(h.detach().double(), self.normalize)

    def compute(self) -> Tensor:
        """The norms, float64 `[D]`."""
        return self.norms
