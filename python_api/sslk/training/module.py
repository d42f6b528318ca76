"""A self-supervised method with an arm's penalty, as a Lightning module."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import ssl_kernels  # noqa: F401 (registers the ops)
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.quality.regularizer import QScoreRegularizer
from sslk.training.captured import CapturedStep, obstacle, step_by
from sslk.training.checkpoints import NonFiniteError, last_good
from sslk.training.config import Arm, TrainingConfig
from sslk.training.methods import Method, MomentumMethod
from sslk.training.optimizer import build_optimizer, build_schedule


class Losses(NamedTuple):
    """Of one batch: `loss` `[]`, its two parts, and the representations `h` `[2N, D]`."""

    loss: Tensor
    ssl_loss: Tensor
    penalty: Tensor
    h: Tensor


class TrainingModule(pl.LightningModule):
    """Minimises `SSL loss + penalty` of an arm over the representations of both views.

    The penalty is 0 (`baseline`), `lasso * sum |H|` (`lasso`), or `QScoreRegularizer` (`qscore`, equations 2-3), over
    L2-normalised rows unless `config.normalize` is false. Over several processes, sums over rows are those of the global
    batch.

    On a GPU the host waits in logged steps and at checkpoints alone. The first loss that is not finite is remembered on
    the device and looked for there, so no checkpoint is written after it; on a CPU it is looked for in every step.

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
        NonFiniteError: in training, where the loss is NaN or infinite; names the first such step.
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
        self.captured: CapturedStep | None = None
        self.regularizer = None
        if discriminative is not None:
            self.regularizer = build_regularizer(discriminative, config)
        method.backbone.requires_grad_(not frozen)
        if config.channels_last:
            method.to(memory_format=torch.channels_last)

    def on_train_start(self) -> None:
        # Of the first loss that is not finite: its step, SSL loss and penalty. No state: a run ends with it.
        self.first_bad = torch.full((3,), -1.0, dtype=torch.float64, device=self.device)
        # Step, learning rate and momentum of the moving copy, where a step on the device reads them.
        self.numbers = torch.zeros(3, dtype=torch.float64, device=self.device)
        self.looks_always = self.device.type == "cpu"  # where it makes nobody wait
        self.captured = None
        if self.config.capture:
            reason = obstacle(self.config, self.views, self.device, self.trainer.world_size)
            if reason is None:
                self.captured = CapturedStep(self.whole_step, self.device, self.method.frozen_steps + 1)
            else:
                warnings.warn(f"the training step is not captured: {reason}.", stacklevel=2)

    def on_train_end(self) -> None:
        self.captured = None  # it holds this module and the graph's memory

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.frozen:  # batch statistics too
            self.method.backbone.eval()
            if isinstance(self.method, MomentumMethod):
                self.method.backbone_momentum.eval()
        step = self.trainer.global_step
        rate = self.optimizers(use_pl_optimizer=False).param_groups[0]["lr"]  # type: ignore[union-attr]
        self.numbers[0].fill_(step)
        if self.captured is None:
            seen = self.losses(batch)
        else:
            self.numbers[1].fill_(rate)
            if isinstance(self.method, MomentumMethod):
                self.numbers[2].fill_(self.method.momentum_at(step, self.steps))
            seen = self.captured(step, batch)
        logged = step % self.config.log_every == 0 or step == self.steps - 1
        if logged or self.looks_always:
            self.refuse_bad()
        if logged:
            self._log(step, rate, seen)
        return seen.loss

    def losses(self, batch: Any) -> Losses:
        """SSL loss and penalty of a batch."""
        views = self.views(batch)
        if self.config.channels_last:
            views = [view.contiguous(memory_format=torch.channels_last) for view in views]
        ssl_loss, h = self.method(views)
        penalty = self._penalty(h)
        loss = ssl_loss + penalty
        with torch.no_grad():
            bad = ~loss.isfinite() & (self.first_bad[0] < 0)
            now = torch.stack([self.numbers[0], ssl_loss.double(), penalty.double()])
            self.first_bad.copy_(torch.where(bad, now, self.first_bad))
        return Losses(loss, ssl_loss.detach(), penalty.detach(), h)

    def whole_step(self, batch: Any) -> Losses:
        """A step from batch to weights, on the device from end to end."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, Optimizer)
        optimizer.zero_grad(set_to_none=True)
        seen = self.losses(batch)
        with torch.autocast(self.device.type, enabled=False):
            seen.loss.backward()
            step = self.trainer.global_step
            self.method.before_step(step)
            step_by(optimizer, self.numbers[1].float())
            if isinstance(self.method, MomentumMethod):
                self.method.follow(self.numbers[2])
            else:
                self.method.after_step(step, self.steps)
        return Losses(*(part.detach() for part in seen))

    def refuse_bad(self) -> None:
        """Raise if a loss was not finite so far, in any process; waits for the device."""
        found = self.first_bad if self.trainer.world_size == 1 else self.all_gather(self.first_bad)
        assert isinstance(found, Tensor)
        bad = [tuple(row) for row in found.view(-1, 3).tolist() if row[0] >= 0]
        if bad:
            step, ssl_loss, penalty = min(bad)
            raise NonFiniteError(
                f"the loss of arm {self.arm} is not finite at step {step:.0f} (SSL loss {ssl_loss:g}, penalty {penalty:g}): "
                f"lower the learning rate or the penalty's weights; {last_good(self.folder)}"
            )

    def _log(self, step: int, rate: float, seen: Losses) -> None:
        log = {}
        if self.regularizer is not None:
            with torch.no_grad():
                if self.arm != "qscore" or self.frozen:
                    self.regularizer(seen.h)
                log = diagnostics(self.regularizer, seen.h)
        log |= {"loss": seen.ssl_loss, "penalty": seen.penalty}
        values = self.trainer.strategy.reduce(torch.stack([value.float() for value in log.values()]), reduce_op="mean")
        # To the loggers themselves: Lightning's own logging repeats the last values in the steps between.
        entry = dict(zip(log, values.tolist(), strict=True)) | {"learning_rate": rate}
        for logger in self.loggers:
            logger.log_metrics(entry, step)

    def _penalty(self, h: Tensor) -> Tensor:
        """The arm's penalty `[]`."""
        if self.arm == "lasso":
            # Summed over the rows of all processes: DistributedDataParallel will average the gradients.
            return self.config.lasso * self.trainer.world_size * torch.ops.sslk.column_l1(h, self.config.normalize).sum()
        if self.arm == "qscore" and not self.frozen:
            assert self.regularizer is not None
            return self.regularizer(h)
        return h.new_zeros((), dtype=torch.float32)

    # A captured step holds backward, the optimiser's step and what follows it: Lightning counts them and does nothing.

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        if self.captured is None:
            super().backward(loss, *args, **kwargs)

    def optimizer_zero_grad(self, *args: Any, **kwargs: Any) -> None:
        if self.captured is None:
            super().optimizer_zero_grad(*args, **kwargs)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self.method.before_step(self.trainer.global_step)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        if self.captured is not None:
            optimizer_closure()
            return
        step = self.trainer.global_step
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.method.after_step(step, self.steps)

    def configure_optimizers(self) -> Any:
        c = self.config
        optimizer = build_optimizer([self.method], c.optimizer, c.learning_rate, c.momentum, c.weight_decay)
        schedule = build_schedule(optimizer, self.steps, c.warmup_share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def build_regularizer(discriminative: DiscriminativeFeatures, config: TrainingConfig, **weights: float) -> QScoreRegularizer:
    """The regulariser of a configuration, with its lambdas or with other `weights`."""
    settings: dict[str, Any] = {name: getattr(config, name) for name in ("alpha", "beta", "alpha_quantile", "normalize")}
    lambdas = {"lambda1": config.lambda1, "lambda2": config.lambda2, **weights}
    return QScoreRegularizer(discriminative, lambdas["lambda1"], lambdas["lambda2"], **settings)


@torch.no_grad()
def diagnostics(regularizer: QScoreRegularizer, h: Tensor) -> dict[str, Tensor]:
    """What the regulariser saw in its last batch `h` `[N, D]`: scores, sets, columns and both terms, each `[]`.

    `mean_q`; `below_alpha`, the share of rows with `Q_i < alpha`; `mean_active`, mean `|L_i|`; `column_l1_tail`, the
    share of the columns' L1 norms that lies in columns above beta; `q_term` and `column_term`, equations (2) and (3).
    """
    q, columns = regularizer.last_scores, regularizer.last_column_l1
    assert q is not None and columns is not None
    alpha = regularizer.threshold(q)
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
