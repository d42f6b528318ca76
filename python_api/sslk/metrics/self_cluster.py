"""SelfCluster: how far the directions of the rows are from spread evenly over the sphere."""

import torch
from torch import Tensor

from sslk.metrics.checks import check_features
from sslk.metrics.exact import ExactMetric
from sslk.metrics.spectrum import add_products, blocks_of
from sslk.metrics.uniformity import unit_rows


class SelfCluster(ExactMetric):
    """SelfCluster: `(D ||U U'||_F^2 - N (D + N - 1)) / ((D - 1)(N - 1) N)`, U the rows divided by their lengths.

    The sum of squared cosines over all pairs of rows, scaled: 0 is what directions that are uniform on the sphere are
    expected to give, 1 that all rows lie on one line (Tsitsulin, Munkhoeva and Perozzi 2023, definition 3.5, where the
    square of the norm is left out but its expectation and its maximum are those of the square). Not centred. It is a number of
    the `[D, D]` sum `U'U`, of the same norm, which is kept in float64.

    Args:
        num_features: D.

    `update(h)` takes representations `[n, D]`; n = 0 is fine. `compute()` gives a dictionary: `self_cluster` float64, NaN
    below two rows, for D = 1, or where a row is not finite; `rows` int64; and `zero_rows`, those without a direction, which
    are left out of everything else.

    Examples:
        >>> metric = SelfCluster(2)
        >>> metric.update(torch.tensor([[1.0, 0.0], [3.0, 0.0]])); metric.update(torch.tensor([[-2.0, 0.0]]))
        >>> metric.compute()["self_cluster"].item()
        1.0
    """

    is_differentiable = False
    full_state_update = False
    products: Tensor
    rows: Tensor
    zero_rows: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        zeros = torch.zeros(num_features, num_features, dtype=torch.float64)
        self.add_state("products", zeros, dist_reduce_fx="sum", persistent=True)
        self.add_state("rows", torch.tensor(0), dist_reduce_fx="sum", persistent=True)
        self.add_state("zero_rows", torch.tensor(0), dist_reduce_fx="sum", persistent=True)

    def update(self, h: Tensor) -> None:
        """Add representations `[n, D]`."""
        check_features(h, self.num_features)
        for block in blocks_of(h.detach()) if len(h) else ():
            add_products(self.products, unit_rows(block, torch.float64))
            self.zero_rows = self.zero_rows + (block == 0).all(1).sum()
        self.rows = self.rows + len(h)

    def compute(self) -> dict[str, Tensor]:
        """`self_cluster`, `rows` and `zero_rows`."""
        n, d = (self.rows - self.zero_rows).double(), self.num_features
        upper = self.products.triu(1)
        squares = 2 * upper.square().sum() + self.products.diagonal().square().sum()
        value = (d * squares - n * (d + n - 1)) / ((d - 1) * (n - 1) * n)
        return {"self_cluster": torch.where((n >= 2) & (d > 1), value, torch.nan), "rows": self.rows, "zero_rows": self.zero_rows}
