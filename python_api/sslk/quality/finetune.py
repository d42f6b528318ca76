"""Further training of a SimCLR encoder with and without the Q-Score regulariser, from the same checkpoint."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from lightly.loss import NTXentLoss
from lightly.utils.lars import LARS
from torch import Tensor, nn

from sslk.data.augment import BatchSimCLRTransform
from sslk.quality.discover import DiscriminativeFeatures
from sslk.quality.regularizer import QScoreRegularizer

Arm = Literal["baseline", "lasso", "qscore"]
ARMS: tuple[Arm, ...] = get_args(Arm)


@dataclass(frozen=True)
class FinetuneConfig:
    """Settings of further training; the defaults are the paper's.

    Attributes:
        epochs: passes over the images.
        batch_size: images per step; each gives two views.
        learning_rate: peak learning rate of LARS.
        lambda1, lambda2: weights of the regulariser (arm `qscore`).
        lasso: weight of `sum |H|` over L2-normalised rows (arm `lasso`).
        weight_decay, momentum: of LARS; biases and norms get neither decay nor layer-wise scaling.
        warmup_share: share of the steps in which the learning rate rises; then it follows a cosine to zero.
        temperature: of the NT-Xent loss.
        view_size: side of the augmented views, in pixels.
        seed: of the order, the views and nothing else; all arms see the same batches.
    """

    epochs: int = 50
    batch_size: int = 256
    learning_rate: float = 1e-5
    lambda1: float = 1e-4
    lambda2: float = 1e-4
    lasso: float = 1e-4
    weight_decay: float = 1e-6
    momentum: float = 0.9
    warmup_share: float = 0.1
    temperature: float = 0.2
    view_size: int = 24
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Finetuned:
    """A further trained encoder and projector, with per-step logs by name (`loss`, `penalty`, and `mean_q` for qscore)."""

    arm: Arm
    encoder: nn.Module
    projector: nn.Module
    log: dict[str, list[float]] = field(default_factory=dict)


def further_train(
    encoder: nn.Module,
    projector: nn.Module,
    images: Tensor,
    arm: Arm,
    config: FinetuneConfig,
    discriminative: DiscriminativeFeatures,
    on_step: Callable[[int, int, float], None] = lambda step, total, loss: None,
) -> Finetuned:
    """Train copies of encoder and projector further with SimCLR's loss plus the penalty of `arm`.

    The penalty is 0 (`baseline`), `lasso * sum |H|` (`lasso`) or `QScoreRegularizer` (`qscore`), on the
    representations H of both views.

    Args:
        encoder: `[N, 3, H, W] -> [N, D]`; not modified.
        projector: `[N, D] -> [N, P]`; not modified.
        images: uint8 `[N, 3, H, W]`.
        discriminative: found on the encoder before this training, and kept fixed.
        on_step: called with the step, the number of steps and the loss.

    Raises:
        ValueError: an unknown arm, fewer images than a batch, or a loss that is not finite (naming the step).
    """
    if arm not in ARMS:
        raise ValueError(f"arm must be one of {', '.join(ARMS)}, got {arm!r}.")
    if len(images) < config.batch_size:
        raise ValueError(f"images must hold at least one batch of {config.batch_size}, got {len(images)}.")
    encoder, projector = copy.deepcopy(encoder).train(), copy.deepcopy(projector).train()
    regularizer = QScoreRegularizer(discriminative, config.lambda1, config.lambda2)
    augment, criterion = BatchSimCLRTransform(config.view_size), NTXentLoss(config.temperature)
    optimizer = LARS(_parameter_groups(encoder, projector, config.weight_decay), lr=config.learning_rate,
                     momentum=config.momentum)  # fmt: skip
    per_epoch = len(images) // config.batch_size
    total = config.epochs * per_epoch
    warmup = max(1, round(config.warmup_share * total))
    generator = torch.Generator().manual_seed(config.seed)
    log: dict[str, list[float]] = {"loss": [], "penalty": []}
    if arm == "qscore":
        log["mean_q"] = []

    for epoch in range(config.epochs):
        batches = torch.randperm(len(images), generator=generator).split(config.batch_size)[:per_epoch]
        for i, index in enumerate(batches):
            step = epoch * per_epoch + i
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * _schedule(step, warmup, total)
            views = torch.cat([augment(images[index], generator), augment(images[index], generator)])
            h = encoder(views)
            loss = criterion(*projector(h).chunk(2))
            if arm == "qscore":
                penalty = regularizer(h)
            elif arm == "lasso":
                penalty = config.lasso * torch.ops.sslk.column_l1(h).sum()
            else:
                penalty = torch.zeros(())
            if not torch.isfinite(loss + penalty):
                raise ValueError(f"The loss of arm {arm} is not finite at step {step}: lower learning_rate or lambda.")
            optimizer.zero_grad()
            (loss + penalty).backward()
            optimizer.step()
            log["loss"].append(loss.item())
            log["penalty"].append(penalty.item())
            if regularizer.last_scores is not None:
                log["mean_q"].append(regularizer.last_scores.mean().item())
            on_step(step + 1, total, loss.item())
    return Finetuned(arm, encoder.eval(), projector.eval(), log)


def _schedule(step: int, warmup: int, total: int) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def _parameter_groups(encoder: nn.Module, projector: nn.Module, weight_decay: float) -> list[dict]:
    """Matrices and kernels with decay and layer-wise scaling; biases and norms with neither."""
    parameters = [*encoder.parameters(), *projector.parameters()]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        # lightly's LARS scales a parameter only where its weight decay is not zero.
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
