"""The monitor for a Lightning module of someone else: lightly's, solo-learn's, or one's own."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from sslk.probes.settings import changed
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.training.monitor import Monitor
from sslk.training.monitor_features import Read, labels_of, pooled
from sslk.training.monitor_log import Row, send
from sslk.training.monitor_settings import MonitorSettings


class MonitorCallback(pl.Callback):
    """`Monitor` in any `LightningModule`: watches its backbone by a hook and logs to all loggers of the trainer.

    Values go to the loggers at the step at which they were computed, whatever `log_every_n_steps` is, and into
    `trainer.callback_metrics`, for `ModelCheckpoint(monitor="monitor/rankme")`. The queue, the probe and the curve are part of
    Lightning's checkpoints; those hold the first process's share of the queue, and the others fill theirs anew.

    Args:
        settings: see `MonitorSettings`; `input` names the encoder in the module, `target` the labels in its batches.
        discriminative, held_out, read, folder: as for `Monitor`.
        changes: fields of the settings by name.

    Raises:
        ValueError: at the start of fitting, where the module has no such sub-module; in the first step, where it gave nothing;
            and as for `Monitor`.

    Examples:
        >>> callback = MonitorCallback(every_n_steps=100, target=1, num_classes=10)  # pl.Trainer(callbacks=[callback])
        >>> callback.monitor.settings.input, callback.state_key
        ('backbone', 'MonitorCallback[name=monitor]')
    """

    def __init__(
        self,
        settings: MonitorSettings = MonitorSettings(input="backbone"),  # noqa: B008 (frozen)
        *,
        discriminative: DiscriminativeFeatures | Tensor | None = None,
        held_out: Iterable[Any] | None = None,
        read: Read = pooled,
        folder: str | os.PathLike[str] | None = None,
        **changes: Any,
    ) -> None:
        settings = changed(settings, changes, "MonitorCallback")
        self.monitor = Monitor(None, settings, discriminative=discriminative, held_out=held_out, read=read, folder=folder)

    @property
    def state_key(self) -> str:
        """Tells the states of several monitors of one trainer apart."""
        return f"{type(self).__name__}[name={self.monitor.settings.name}]"

    def state_dict(self) -> dict[str, Any]:
        return self.monitor.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.monitor.load_state_dict(state_dict)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            self.monitor.attach(pl_module)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.monitor.close()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        assert self.monitor.recorder is not None
        self.monitor.recorder.take()  # of a validation with gradients, say
        self.monitor.epochs = trainer.current_epoch

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self.monitor.recorder is not None
        if self.monitor.recorder.outputs or (self.monitor.queue is None and outputs):  # else the module skipped this batch
            self.monitor.push(labels=labels_of(batch, self.monitor.settings.target))
        with trainer.precision_plugin.forward_context():  # of what is held out
            self._log(trainer, pl_module, self.monitor.advance(trainer.global_step))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        with trainer.precision_plugin.forward_context():
            self._log(trainer, pl_module, self.monitor.end_epoch())

    def _log(self, trainer: pl.Trainer, pl_module: pl.LightningModule, values: Row) -> None:
        if values:
            # To the loggers themselves: Lightning's own logging waits for every log_every_n_steps-th step.
            send(trainer.loggers, values, self.monitor.steps)
            pl_module.log_dict(values, logger=False, batch_size=1)
