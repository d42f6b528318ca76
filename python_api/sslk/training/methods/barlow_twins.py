"""Barlow Twins (Zbontar et al., ICML 2021): the cross-correlation of the two views' projections becomes the identity."""

from __future__ import annotations

import torch
from lightly.loss import BarlowTwinsLoss
from lightly.models.modules.heads import BarlowTwinsProjectionHead
from lightly.utils.dist import gather, world_size
from torch import Tensor, nn

from sslk.training.methods.base import Method


class BarlowTwins(Method):
    """Cross-correlation over the global batch.

    Args:
        backbone, num_features: see `Method`.
        hidden_dim, output_dim: widths of the projector.
        redundancy: weight of the off-diagonal terms.
    """

    def __init__(
        self, backbone: nn.Module, num_features: int, hidden_dim: int = 8192, output_dim: int = 8192, redundancy: float = 5e-3
    ) -> None:
        super().__init__(backbone, num_features)
        self.projection_head = BarlowTwinsProjectionHead(num_features, hidden_dim, output_dim)
        self.criterion = BarlowTwinsLoss(redundancy)

    def forward(self, views: list[Tensor]) -> tuple[Tensor, Tensor]:
        h = self.encode(views[:2])
        z0, z1 = self.projection_head(h).chunk(2)
        if world_size() > 1:
            # lightly's own gathering averages correlations that each process standardised by its own statistics.
            z0, z1 = torch.cat(gather(z0)), torch.cat(gather(z1))
        return self.loss(z0, z1), h
