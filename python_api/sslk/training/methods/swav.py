"""SwAV (Caron et al., NeurIPS 2020): predict one view's Sinkhorn assignment to prototypes from the other views."""

from __future__ import annotations

from typing import ClassVar

import torch
from lightly.loss import SwaVLoss
from lightly.models.modules.heads import SwaVProjectionHead, SwaVPrototypes
from torch import Tensor, nn
from torch.nn import functional as F

from sslk.training.methods.base import GLOBAL_VIEWS, Method, in_float32


class SwAV(Method):
    """Swapped assignments over the global batch, with local crops where the views have them.

    Args:
        backbone, num_features: see `Method`.
        hidden_dim, output_dim: widths of the projector.
        prototypes: how many.
        temperature: of the softmax over prototypes.
        epsilon: entropy regularisation of the Sinkhorn assignment.
        frozen_steps: first steps in which the prototypes stay as they are.
    """

    head_names: ClassVar[tuple[str, ...]] = ("projection_head", "prototypes")
    multi_crop: ClassVar[bool] = True

    def __init__(
        self,
        backbone: nn.Module,
        num_features: int,
        hidden_dim: int = 2048,
        output_dim: int = 128,
        prototypes: int = 3000,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        frozen_steps: int = 0,
    ) -> None:
        super().__init__(backbone, num_features)
        self.projection_head = SwaVProjectionHead(num_features, hidden_dim, output_dim)
        self.prototypes = SwaVPrototypes(output_dim, prototypes)
        self.prototypes.normalize()
        self.criterion = SwaVLoss(temperature, sinkhorn_epsilon=epsilon, sinkhorn_gather_distributed=True)
        self.frozen_steps = frozen_steps

    def forward(self, views: list[Tensor]) -> tuple[Tensor, Tensor]:
        h = self.encode(views[:GLOBAL_VIEWS])
        large = self._scores(h).chunk(GLOBAL_VIEWS)
        local = views[GLOBAL_VIEWS:]
        small = self._scores(self.encode(local)).chunk(len(local)) if local else ()
        return self.loss(list(large), list(small)).squeeze(0), h

    def _scores(self, h: Tensor) -> Tensor:
        # The loss takes the exponential of scores / epsilon: they are float32 under autocast too.
        return in_float32(lambda z: self.prototypes(F.normalize(z, dim=1)), self.projection_head(h))

    def before_step(self, step: int) -> None:
        if step < self.frozen_steps:
            for parameter in self.prototypes.parameters():
                parameter.grad = None

    def after_step(self, step: int, total: int) -> None:
        with torch.no_grad():
            self.prototypes.normalize()
