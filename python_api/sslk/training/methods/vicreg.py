"""VICReg (Bardes et al., ICLR 2022): invariance, variance and covariance of the two views' projections."""

from __future__ import annotations

from lightly.models.modules.heads import BarlowTwinsProjectionHead
from torch import Tensor, nn

from sslk.training.methods.base import Method
from sslk.training.methods.losses import VICRegCovariance


class VICReg(Method):
    """Variance and covariance are those of the global batch.

    Args:
        backbone, num_features: see `Method`.
        hidden_dim, output_dim: widths of the projector, three layers as in Barlow Twins.
        invariance, variance, covariance: weights of the three terms.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_features: int,
        hidden_dim: int = 8192,
        output_dim: int = 8192,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
    ) -> None:
        super().__init__(backbone, num_features)
        self.projection_head = BarlowTwinsProjectionHead(num_features, hidden_dim, output_dim)
        self.criterion = VICRegCovariance(invariance, variance, covariance, gather_distributed=True)

    def forward(self, views: list[Tensor]) -> tuple[Tensor, Tensor]:
        h = self.encode(views[:2])
        return self.loss(*self.projection_head(h).chunk(2)), h
