"""A self-supervised method with an arm's penalty, as a Lightning module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import ssl_kernels  # noqa: F401 (registers the ops)
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.quality.regularizer import QScoreRegularizer
from sslk.training.checkpoints import NonFiniteError, last_good
from sslk.training.config import Arm, TrainingConfig
from sslk.training.methods import Method, MomentumMethod
from sslk.training.optimizer import build_optimizer, build_schedule


class TrainingModule(pl.LightningModule):
    """Minimises `SSL loss + penalty` of an arm over the representations of both views.

    The penalty is 0 (`baseline`), `lasso * sum |H|` over L2-normalised rows (`lasso`), or `QScoreRegularizer`
    (`qscore`, equations 2-3). Over several processes, sums over rows are those of the global batch.

    Args:
        method: encoder and heads.
        views: turns a batch into views.
        arm: which penalty.
        config: settings.
        steps: optimiser steps of the whole run, for the schedules.
        folder: of the run, for messages.
        discriminative: the set S; needed for `qscore`, and for the logs of all arms.
        frozen: train the heads alone.

    Raises:
        ValueError: the arm `qscore` without a set, or a set of another D.
        NonFiniteError: in training, where the loss is NaN or infinite.
    """

    def __init__(
        self,
        method: Method,
        views: nn.Module,
        arm: Arm,
        config: TrainingConfig,
        steps: int,
        folder: Path,
        discriminative: DiscriminativeFeatures | None = None,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        if discriminative is None and arm == "qscore":
            raise ValueError("discriminative is needed for the arm qscore: give the set that `sslk qscore discover` finds.")
        if discriminative is not None and discriminative.num_features != method.num_features:
            raise ValueError(
                f"discriminative was found for D={discriminative.num_features} features but the encoder has "
                f"D={method.num_features}: it belongs to another model."
            )
        self.method, self.arm, self.config, self.steps, self.frozen = method, arm, config, steps, frozen
        self.views, self.folder = views, folder
        self.regularizer = None
        if discriminative is not None:
            weights = (config.lambda1, config.lambda2)
            self.regularizer = QScoreRegularizer(discriminative, *weights, alpha=config.alpha, beta=config.beta)
        method.backbone.requires_grad_(not frozen)
        if config.channels_last:
            method.to(memory_format=torch.channels_last)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.frozen:  # batch statistics too
            self.method.backbone.eval()
            if isinstance(self.method, MomentumMethod):
                self.method.backbone_momentum.eval()
        views = self.views(batch)
        if self.config.channels_last:
            views = [view.contiguous(memory_format=torch.channels_last) for view in views]
        ssl_loss, h = self.method(views)
        step = self.trainer.global_step
        logged = step % self.config.log_every == 0 or step == self.steps - 1
        penalty, log = self._penalty(h, logged)
        loss = ssl_loss + penalty
        if not loss.isfinite():
            raise NonFiniteError(
                f"the loss of arm {self.arm} is not finite at step {step} (SSL loss "
                f"{ssl_loss.item():g}, penalty {penalty.item():g}): lower the learning rate or the penalty's weights; "
                f"{last_good(self.folder)}"
            )
        if logged:
            rate = self.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]
            log |= {"loss": ssl_loss.detach(), "penalty": penalty.detach()}
            values = self.trainer.strategy.reduce(torch.stack([value.float() for value in log.values()]), reduce_op="mean")
            # To the loggers themselves: Lightning's own logging repeats the last values in the steps between.
            entry = dict(zip(log, values.tolist(), strict=True)) | {"learning_rate": rate}
            for logger in self.loggers:
                logger.log_metrics(entry, step)
        return loss

    def _penalty(self, h: Tensor, logged: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """The arm's penalty `[]`, and every diagnostic where they are `logged`."""
        zero = h.new_zeros((), dtype=torch.float32)
        if self.arm == "lasso":
            # Summed over the rows of all processes: DistributedDataParallel will average the gradients.
            penalty = self.config.lasso * self.trainer.world_size * torch.ops.sslk.column_l1(h).sum()
        elif self.arm == "qscore" and not self.frozen:
            assert self.regularizer is not None
            penalty = self.regularizer(h)
        else:
            penalty = zero
        if not logged or self.regularizer is None:
            return penalty, {}
        with torch.no_grad():
            if self.arm != "qscore" or self.frozen:
                self.regularizer(h)
            return penalty, diagnostics(self.regularizer, h)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self.method.before_step(self.trainer.global_step)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        step = self.trainer.global_step
        super().optimizer_step(*args, **kwargs)
        self.method.after_step(step, self.steps)

    def configure_optimizers(self) -> Any:
        c = self.config
        optimizer = build_optimizer([self.method], c.optimizer, c.learning_rate, c.momentum, c.weight_decay)
        schedule = build_schedule(optimizer, self.steps, c.warmup_share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@torch.no_grad()
def diagnostics(regularizer: QScoreRegularizer, h: Tensor) -> dict[str, Tensor]:
    """What the regulariser saw in its last batch `h` `[N, D]`: scores, sets, columns and both terms, each `[]`.

    `mean_q`; `below_alpha`, the share of rows with `Q_i < alpha`; `mean_active`, mean `|L_i|`; `column_l1_tail`, the
    share of the columns' L1 norms that lies in columns above beta; `q_term` and `column_term`, equations (2) and (3).
    """
    q, columns = regularizer.last_scores, regularizer.last_column_l1
    assert q is not None and columns is not None
    alpha = q.mean() if regularizer.alpha is None else regularizer.alpha
    beta = columns.mean() if regularizer.beta is None else regularizer.beta
    _, active = torch.ops.sslk.activation_counts(h, regularizer.eps, regularizer.two_sided)
    tail = columns[columns > beta].sum()
    return {
        "mean_q": q.mean(),
        "below_alpha": (q < alpha).float().mean(),
        "mean_active": active.float().mean(),
        "column_l1_tail": tail / columns.sum().clamp_min(1e-12),
        "q_term": -regularizer.lambda1 * q[q < alpha].sum() / len(q),
        "column_term": regularizer.lambda2 * tail,
    }
