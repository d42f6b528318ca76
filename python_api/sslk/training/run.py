"""Trains one arm, resumably: what `sslk train finetune` and `examples/pretrain.py` both run."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from sslk.distributed import world
from sslk.features.manifest import short
from sslk.files.tables import read_records
from sslk.files.text import read_json
from sslk.progress import Progress
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.results.atomic import write_atomically
from sslk.training.checkpoints import LAST, KeepState, read_last
from sslk.training.config import CARRIED_OUT, Arm, TrainingConfig
from sslk.training.methods import Method
from sslk.training.module import TrainingModule
from sslk.training.views import Batches, ImageViews, TensorViews

logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # its banner and its hints about devices


def best_precision() -> Literal["32-true", "bf16-mixed"]:
    """`bf16-mixed` on a GPU whose units compute in bfloat16, `32-true` elsewhere."""
    if torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16-mixed"
    return "32-true"


@dataclass(frozen=True)
class Carrying:
    """How a run is carried out.

    Attributes:
        identity: what else must be equal for a resumed run (weights, data), JSON.
        stop_epoch: end here for now; the schedules still run over `config.epochs`.
        frozen: train the heads alone.
        trainer_options: further arguments of `pytorch_lightning.Trainer`, such as `devices`.
    """

    identity: dict[str, Any] = field(default_factory=dict)
    stop_epoch: int | None = None
    frozen: bool = False
    trainer_options: dict[str, Any] = field(default_factory=dict)


def train(
    method: Method,
    views: TensorViews | ImageViews,
    folder: Path,
    config: TrainingConfig,
    arm: Arm = "baseline",
    discriminative: DiscriminativeFeatures | None = None,
    carrying: Carrying = Carrying(),
    *,
    progress: Progress | None = None,
) -> list[dict[str, float]]:
    """Train `method` in place, from the start or from where `folder` stands; interrupted at any moment, it goes on.

    On a CPU the weights at the end are bitwise the same, however often the run was interrupted.

    Args:
        method: encoder and heads at the start of the run; holds the trained weights afterwards.
        views: gives the batches.
        folder: of this run: `config.json`, `last.ckpt`, `logs/`, `tensorboard/`.
        config: settings.
        arm: which penalty is added to the method's loss.
        discriminative: the set S of the encoder at the start.
        carrying: what else decides, and where to stop.
        progress: called with the optimiser steps done and all.

    Returns:
        The logs, one dictionary per logged step.

    Raises:
        ValueError: the folder holds another run (naming the first setting that differs), or see `Batches`.
        NonFiniteError: the loss or a weight became NaN; names the step and the last good checkpoint.
    """
    count, stop_epoch = len(views), carrying.stop_epoch
    per_epoch = count // config.batch_size
    steps = config.epochs * per_epoch // config.accumulate
    until = steps if stop_epoch is None else min(steps, stop_epoch * per_epoch // config.accumulate)
    trainer = pl.Trainer(
        accelerator="auto" if torch.cuda.is_available() else "cpu",
        max_epochs=1,  # to Lightning the whole run is one epoch: it can then stop and go on anywhere in the same way
        max_steps=until,
        precision=config.precision,
        benchmark=torch.cuda.is_available(),  # every batch has the same shape
        sync_batchnorm=torch.cuda.is_available(),
        **{**_places(), **carrying.trainer_options},
        accumulate_grad_batches=config.accumulate,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        logger=[CSVLogger(folder, "logs", flush_logs_every_n_steps=1), TensorBoardLogger(folder, "tensorboard", version="")],
    )
    batches = Batches(count, config.batch_size, config.epochs, config.seed, views, trainer.global_rank, trainer.world_size)
    if until < 1:
        raise ValueError(f"accumulate must leave at least one step, got {config.accumulate} for {len(batches)} batches.")
    method.train()  # encoders are loaded for evaluation, and Lightning leaves modes as they are
    module = TrainingModule(method, views, arm, config, steps, folder, discriminative, carrying.frozen)
    if config.compile:
        method.backbone.compile()
    folder.mkdir(parents=True, exist_ok=True)
    claim(folder, {"arm": arm, "config": asdict(config), **carrying.identity}, trainer.is_global_zero)
    done = steps_done(folder)
    trainer.callbacks.append(KeepState(folder, config.checkpoint_every, until, module.refuse_bad))  # type: ignore[attr-defined]
    if progress is not None:
        trainer.callbacks.append(_Progress(progress, until))  # type: ignore[attr-defined]
    if done >= until:
        module.load_state_dict(read_last(folder)["state_dict"])
    else:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*(does not have many workers|treespec|logging interval).*")
            trainer.fit(module, batches, ckpt_path=folder / LAST if done else None, weights_only=True)
    method.backbone.requires_grad_(True)
    return read_logs(folder)


def steps_done(folder: Path) -> int:
    """Optimiser steps in a run's last checkpoint; 0 before the first."""
    if not (folder / LAST).exists():
        return 0
    return read_last(folder)["global_step"]


def _places() -> dict[str, Any]:
    """Devices per machine, machines and strategy for the processes that were started."""
    _, size = world()
    if size == 1:
        return {"devices": 1}
    machines = int(os.environ.get("SLURM_NNODES", 1))
    local = int(os.environ.get("LOCAL_WORLD_SIZE") or size // machines)
    return {"devices": local, "num_nodes": size // local, "strategy": "ddp"}


class _Progress(pl.Callback):
    def __init__(self, progress: Progress, total: int) -> None:
        self.progress, self.total = progress, total

    def on_train_batch_end(self, trainer: pl.Trainer, *unused: Any) -> None:
        self.progress(trainer.global_step, self.total, "training")


def claim(folder: Path, run: dict[str, Any], write: bool) -> None:
    """Remember what the run in `folder` is, or refuse to go on with another."""
    path = folder / "config.json"
    run = json.loads(json.dumps(run))
    if path.exists():
        before = read_json(path, "the run's settings")
        if not isinstance(before, dict):
            raise ValueError(f"{path} is damaged: it must hold the settings of a run.")
        for key, value in _flat(before).items():
            now = _flat(run).get(key)
            if now != value and key.rpartition(".")[2] not in CARRIED_OUT:
                raise ValueError(
                    f"{folder} holds a run with {key[:80]} = {short(value)}, this one has {short(now)}: give another "
                    "folder, or the same settings to go on."
                )
    elif write:
        write_atomically(path, json.dumps(run, indent=1).encode())


def _flat(run: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in run.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def read_logs(folder: Path) -> list[dict[str, float]]:
    """The logged steps of a run, in order; where an interrupted run was repeated, the later numbers count."""
    rows: dict[int, dict[str, float]] = {}
    versions: Sequence[Path] = sorted((folder / "logs").glob("version_*/metrics.csv"), key=_version)
    for path in versions:
        for row in read_records(path, "the log", ("step",)):
            try:
                logged = {key: float(value) for key, value in row.items() if value and key != "epoch"}
                rows[int(row["step"])] = logged
            except ValueError:
                raise ValueError(f"the log {path} is damaged: it must hold numbers, got {short(row)}.") from None
    return [rows[step] for step in sorted(rows)]


def _version(path: Path) -> int:
    return int(path.parent.name.rpartition("_")[2])
