"""DINO (Caron et al., ICCV 2021): match the centred, sharpened output of a momentum teacher on the other views."""

from __future__ import annotations

import warnings
from typing import ClassVar, cast

from lightly.models.modules.heads import DINOProjectionHead
from torch import Tensor, nn

from sslk.training.methods.base import GLOBAL_VIEWS, MomentumMethod
from sslk.training.methods.losses import CenteredDINO


class DINO(MomentumMethod):
    """Self-distillation without labels; `backbone` is the student, `backbone_momentum` the teacher.

    Args:
        backbone, num_features: see `Method`.
        hidden_dim, bottleneck_dim, output_dim: widths of the projector.
        student_temperature, teacher_temperature: of the two softmaxes.
        center_momentum: of the centre of the teacher's outputs.
        momentum: of the teacher at the first step; 1 at the last, along a cosine.
        batch_norm: batch norm in the projector, as published for convolutional encoders.
        frozen_steps: first steps in which the projector's last layer stays as it is.
    """

    multi_crop: ClassVar[bool] = True

    def __init__(
        self,
        backbone: nn.Module,
        num_features: int,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        output_dim: int = 65536,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        center_momentum: float = 0.9,
        momentum: float = 0.996,
        batch_norm: bool = True,
        frozen_steps: int = 0,
    ) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*weight_norm.*", category=FutureWarning)  # lightly's matter
            heads = [DINOProjectionHead(num_features, hidden_dim, bottleneck_dim, output_dim, batch_norm) for _ in range(2)]
        super().__init__(backbone, num_features, heads[0], heads[1], momentum, 1.0)
        self.criterion = CenteredDINO(
            output_dim,
            warmup_teacher_temp=teacher_temperature,
            teacher_temp=teacher_temperature,
            student_temp=student_temperature,
            center_momentum=center_momentum,
        )
        self.frozen_steps = frozen_steps

    def forward(self, views: list[Tensor]) -> tuple[Tensor, Tensor]:
        h = self.encode(views[:GLOBAL_VIEWS])
        student = list(self.projection_head(h).chunk(GLOBAL_VIEWS))
        if local := views[GLOBAL_VIEWS:]:
            student += self.projection_head(self.encode(local)).chunk(len(local))
        teacher = self.targets(views[:GLOBAL_VIEWS]).chunk(GLOBAL_VIEWS)
        return self.loss(list(teacher), student), h

    def before_step(self, step: int) -> None:
        if step < self.frozen_steps:
            last = cast(nn.Module, self.projection_head.last_layer)
            for parameter in last.parameters():
                parameter.grad = None
