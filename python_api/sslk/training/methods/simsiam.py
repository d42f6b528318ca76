"""SimSiam (Chen and He, CVPR 2021): predict the other view's projection, whose gradient is stopped."""

from __future__ import annotations

import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules.heads import SimSiamPredictionHead, SimSiamProjectionHead
from torch import Tensor, nn

from sslk.training.methods.base import Method


class SimSiam(Method):
    """Symmetric negative cosine with stop-gradient.

    Args:
        backbone, num_features: see `Method`.
        hidden_dim, output_dim: widths of the projector.
        prediction_dim: width of the predictor's bottleneck.
    """

    head_names = ("projection_head", "prediction_head")

    def __init__(
        self, backbone: nn.Module, num_features: int, hidden_dim: int = 2048, output_dim: int = 2048, prediction_dim: int = 512
    ) -> None:
        super().__init__(backbone, num_features)
        self.projection_head = SimSiamProjectionHead(num_features, hidden_dim, output_dim)
        self.prediction_head = SimSiamPredictionHead(output_dim, prediction_dim, output_dim)
        self.criterion = NegativeCosineSimilarity()

    def forward(self, views: list[Tensor]) -> tuple[Tensor, Tensor]:
        h = self.encode(views[:2])
        z = self.projection_head(h)
        z0, z1 = z.detach().chunk(2)
        return self.loss(self.prediction_head(z), torch.cat([z1, z0])), h
