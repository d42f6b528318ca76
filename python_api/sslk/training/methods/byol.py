"""BYOL (Grill et al., NeurIPS 2020): predict the momentum encoder's projection of the other view."""

from __future__ import annotations

from typing import ClassVar

from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead
from torch import Tensor, nn

from sslk.training.methods.base import MomentumMethod


class BYOL(MomentumMethod):
    """Symmetric negative cosine between predictions and the moving copy's projections.

    Args:
        backbone, num_features: see `Method`.
        hidden_dim, output_dim: widths of projector and predictor.
        momentum: of the moving copy at the first step; 1 at the last, along a cosine.
    """

    head_names: ClassVar[tuple[str, ...]] = (*MomentumMethod.head_names, "prediction_head")

    def __init__(
        self, backbone: nn.Module, num_features: int, hidden_dim: int = 4096, output_dim: int = 256, momentum: float = 0.996
    ) -> None:
        heads = [BYOLProjectionHead(num_features, hidden_dim, output_dim) for _ in range(2)]
        super().__init__(backbone, num_features, heads[0], heads[1], momentum, 1.0)
        self.prediction_head = BYOLPredictionHead(output_dim, hidden_dim, output_dim)
        self.criterion = NegativeCosineSimilarity()

    def forward(self, views: list[Tensor]) -> tuple[Tensor, Tensor]:
        first, second = views[:2]
        h = self.encode([first, second])
        # lightly's mean over the rows of both directions is the mean of the two losses.
        return self.loss(self.prediction_head(self.projection_head(h)), self.targets([second, first])), h
