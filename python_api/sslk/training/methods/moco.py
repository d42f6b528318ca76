"""MoCo v2 (Chen et al. 2020): InfoNCE against a queue of keys from a momentum encoder, symmetric in the two views."""

from __future__ import annotations

from lightly.models.modules.heads import MoCoProjectionHead
from torch import Tensor, nn

from sslk.training.methods.base import MomentumMethod
from sslk.training.methods.losses import QueuedNTXent


class MoCo(MomentumMethod):
    """InfoNCE with a queue; each view is once query and once key, so that both have a gradient.

    Args:
        backbone, num_features: see `Method`.
        hidden_dim, output_dim: widths of the projector.
        temperature: of InfoNCE.
        momentum: of the key encoder, constant.
        queue_size: keys kept as negatives.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_features: int,
        hidden_dim: int = 2048,
        output_dim: int = 128,
        temperature: float = 0.2,
        momentum: float = 0.999,
        queue_size: int = 65536,
    ) -> None:
        heads = [MoCoProjectionHead(num_features, hidden_dim, output_dim) for _ in range(2)]
        super().__init__(backbone, num_features, heads[0], heads[1], momentum, momentum)
        self.criterion = QueuedNTXent(temperature, queue_size, output_dim)

    def forward(self, views: list[Tensor]) -> tuple[Tensor, Tensor]:
        first, second = views[:2]
        h = self.encode([first, second])
        # One call for both directions: in a second one, a view's own key would stand in the queue as its negative.
        return self.loss(self.projection_head(h), self.targets([second, first])), h
