"""What the eight self-supervised methods have in common: one encoder, named heads, a loss, and a state between steps."""

from __future__ import annotations

import copy
from typing import ClassVar

import torch
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.utils.scheduler import cosine_schedule
from torch import Tensor, nn

GLOBAL_VIEWS = 2


class Method(nn.Module):
    """A self-supervised method around an encoder: `forward` gives its loss and the representations.

    Sub-modules carry lightly's names (`backbone`, `projection_head`, `prediction_head`, `prototypes`,
    `backbone_momentum`, `projection_head_momentum`), so that a method's `state_dict` is a checkpoint that
    `sslk.models.read_checkpoint` reads as layout `lightly`. All state that lasts longer than a step is in it.

    Args:
        backbone: the encoder, images `[N, 3, H, W]` -> `[N, D]`; trained in place.
        num_features: D.

    Attributes:
        head_names: the sub-modules, besides `backbone`, that training needs.
        multi_crop: whether views after the first two (local crops) enter the loss.
    """

    head_names: ClassVar[tuple[str, ...]] = ("projection_head",)
    multi_crop: ClassVar[bool] = False

    def __init__(self, backbone: nn.Module, num_features: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_features = num_features

    def forward(self, views: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The loss `[]` of one batch and the representations `[2N, D]` of its two global views.

        Args:
            views: two batches `[N, 3, H, W]` of the same images, then any number of local crops `[N, 3, h, w]`.
        """
        raise NotImplementedError

    def encode(self, views: list[Tensor]) -> Tensor:
        """Representations `[V N, D]` of V equally large views in one pass; batch statistics span all of them."""
        return self.backbone(torch.cat(views))

    def before_step(self, step: int) -> None:
        """Called between backward and the optimiser's step number `step`, from 0."""

    def after_step(self, step: int, total: int) -> None:
        """Called after the optimiser's step number `step` of `total`."""


class MomentumMethod(Method):
    """A method with a slowly moving copy of encoder and projector: `theta' <- m theta' + (1 - m) theta`.

    Args:
        backbone, num_features: see `Method`.
        projection_head: the projector.
        projection_head_momentum: its copy.
        momentum: m at the first step.
        final_momentum: m at the last step, reached along a cosine; equal to `momentum` for a constant one.
    """

    head_names: ClassVar[tuple[str, ...]] = ("projection_head", "backbone_momentum", "projection_head_momentum")

    def __init__(
        self,
        backbone: nn.Module,
        num_features: int,
        projection_head: nn.Module,
        projection_head_momentum: nn.Module,
        momentum: float,
        final_momentum: float,
    ) -> None:
        super().__init__(backbone, num_features)
        self.projection_head = projection_head
        self.backbone_momentum = copy.deepcopy(backbone)
        self.projection_head_momentum = projection_head_momentum
        self.momentum, self.final_momentum = momentum, final_momentum
        self.reset_momentum()

    def reset_momentum(self) -> None:
        """Make the copies equal to what they follow."""
        self.backbone_momentum.load_state_dict(self.backbone.state_dict())
        self.projection_head_momentum.load_state_dict(self.projection_head.state_dict())
        deactivate_requires_grad(self.backbone_momentum)
        deactivate_requires_grad(self.projection_head_momentum)

    @torch.no_grad()
    def targets(self, views: list[Tensor]) -> Tensor:
        """Projections `[V N, P]` of the views under the moving copy."""
        return self.projection_head_momentum(self.backbone_momentum(torch.cat(views)))

    def after_step(self, step: int, total: int) -> None:
        m = cosine_schedule(step, total, self.momentum, self.final_momentum)
        update_momentum(self.backbone, self.backbone_momentum, m)
        update_momentum(self.projection_head, self.projection_head_momentum, m)
