"""SimCLR (Chen et al., ICML 2020): NT-Xent between the two views, all other views of the global batch as negatives."""

from __future__ import annotations

from lightly.models.modules.heads import SimCLRProjectionHead
from torch import Tensor, nn

from sslk.training.methods.base import Method
from sslk.training.methods.losses import NTXent


class SimCLR(Method):
    """NT-Xent over the global batch.

    Args:
        backbone, num_features: see `Method`.
        hidden_dim, output_dim: widths of the projector.
        temperature: of NT-Xent.
    """

    def __init__(
        self, backbone: nn.Module, num_features: int, hidden_dim: int = 2048, output_dim: int = 128, temperature: float = 0.2
    ) -> None:
        super().__init__(backbone, num_features)
        self.projection_head = SimCLRProjectionHead(num_features, hidden_dim, output_dim)
        self.criterion = NTXent(temperature, gather_distributed=True)

    def forward(self, views: list[Tensor]) -> tuple[Tensor, Tensor]:
        h = self.encode(views[:2])
        return self.loss(*self.projection_head(h).chunk(2)), h
