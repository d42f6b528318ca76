"""What the eight self-supervised methods have in common: one encoder, named heads, a loss, and a state between steps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from lightly.models.utils import deactivate_requires_grad
from lightly.utils.scheduler import cosine_schedule
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

GLOBAL_VIEWS = 2


def in_float32(function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """`function` of tensors or lists of them in float32, autocast or not; without autocast nothing changes.

    Exponentials of scores over temperatures, covariances and sums over thousands of terms need more than the 8 bits of
    bfloat16, and cost little beside the encoder.

    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     in_float32(torch.mm, torch.ones(1, 2, dtype=torch.bfloat16), torch.ones(2, 1)).dtype
    torch.float32
    """

    def wide(z: Any) -> Any:
        return z.float() if isinstance(z, Tensor) and z.dtype in (torch.bfloat16, torch.float16) else z

    device = next(z.device.type for z in tree_leaves(arguments) if isinstance(z, Tensor))
    with torch.autocast(device, enabled=False):
        return function(*tree_map(wide, arguments))


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
        criterion: the loss of the heads' outputs.
        frozen_steps: first steps in which something stays as it is; from then on all steps do the same.
    """

    head_names: ClassVar[tuple[str, ...]] = ("projection_head",)
    multi_crop: ClassVar[bool] = False
    criterion: nn.Module
    frozen_steps: int = 0

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

    def loss(self, *outputs: Any) -> Tensor:
        """The criterion of the heads' outputs, in float32 under autocast too."""
        return in_float32(self.criterion, *outputs)

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

    def momentum_at(self, step: int, total: int) -> float:
        """m after the step number `step` of `total`."""
        return cosine_schedule(step, total, self.momentum, self.final_momentum)

    @torch.no_grad()
    def follow(self, m: float | Tensor) -> None:
        """`theta' <- m theta' + (1 - m) theta`, all parameters at a time; m may be float64 `[]` on the device."""
        copies: list[Tensor] = [*self.backbone_momentum.parameters(), *self.projection_head_momentum.parameters()]
        followed: list[Tensor] = [*self.backbone.parameters(), *self.projection_head.parameters()]
        if isinstance(m, Tensor):
            torch._foreach_mul_(copies, m.float())
            torch._foreach_add_(copies, list(torch._foreach_mul(followed, (1 - m).float())))
        else:
            torch._foreach_mul_(copies, m)
            torch._foreach_add_(copies, followed, alpha=1 - m)

    def after_step(self, step: int, total: int) -> None:
        self.follow(self.momentum_at(step, total))
