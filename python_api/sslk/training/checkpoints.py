"""Writes the state of a training run whole or not at all, and reads it back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from safetensors.torch import save
from torch import nn

from sslk.files.tensors import read_tensors
from sslk.models.checkpoints import read_state
from sslk.results.atomic import write_atomically

LAST = "last.ckpt"


class NonFiniteError(ValueError):
    """A loss or a weight became NaN or infinite; the message names the step and the last good checkpoint."""


class KeepState(pl.Callback):
    """Writes `last.ckpt` every so many optimiser steps and at the end: everything that resuming needs.

    The file is replaced only by a whole one, and only while every loss was and every weight is finite.

    Args:
        folder: where `last.ckpt` goes.
        every: optimiser steps between two checkpoints.
        last_step: the step after which the run ends.
        refuse: called before: raises where a loss was not finite.

    Raises:
        NonFiniteError: a weight is NaN or infinite; the last checkpoint stays.
    """

    def __init__(self, folder: Path, every: int, last_step: int, refuse: Callable[[], None]) -> None:
        self.folder, self.every, self.last_step, self.refuse = folder, every, last_step, refuse
        self.saved_step = -1

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.saved_step = trainer.global_step  # never between two batches of one step: their gradients are not saved

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *unused: Any) -> None:
        step = trainer.global_step
        if step == self.saved_step or (step % self.every and step != self.last_step) or not step:
            return
        self.saved_step = step
        self.refuse()
        names, parameters = zip(*module.named_parameters(), strict=True)
        finite = torch.stack([parameter.isfinite().all() for parameter in parameters]).tolist()  # one wait for all
        if False in finite:
            raise NonFiniteError(
                f"{names[finite.index(False)]} is not finite after step {step}: lower the learning rate or the penalty's "
                f"weights; {last_good(self.folder)}"
            )
        temporary = self.folder / f".{LAST}.tmp"
        trainer.save_checkpoint(temporary)
        if trainer.is_global_zero:
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, self.folder / LAST)
        trainer.strategy.barrier()


def last_good(folder: Path) -> str:
    """Where the last checkpoint is, as the end of an error message."""
    path = folder / LAST
    return f"the last good checkpoint is {path}." if path.exists() else "there is no checkpoint before it."


def save_method(method: nn.Module, path: Path, metadata: Mapping[str, Any], half: bool = False) -> None:
    """A method's whole state as safetensors, atomically; `load_backbone(..., weights=path)` reads its encoder.

    Args:
        method: encoder, heads, momentum copies, queue.
        path: the file; its folder exists.
        metadata: stored in the file's header, values as JSON.
        half: floating-point tensors as float16.
    """
    tensors = {
        name: (value.half() if half and value.is_floating_point() else value).detach().cpu().contiguous().clone()
        for name, value in method.state_dict().items()
        if isinstance(value, torch.Tensor)
    }
    header = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    write_atomically(path, save(tensors, header))


def load_method(method: nn.Module, path: Path) -> None:
    """Read what `save_method` wrote into a method of the same shape.

    Raises:
        ValueError: the file is damaged, or of another method.
    """
    tensors, _ = read_tensors(path, "the method's state")
    try:
        method.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the method: {' '.join(str(error).split())[:500]}") from None


def read_last(folder: Path) -> Mapping[str, Any]:
    """The last checkpoint of a run: at least its `global_step` and `state_dict`.

    Raises:
        ValueError: it is damaged.
    """
    path = folder / LAST
    state = read_state(path)
    step, tensors = state.get("global_step"), state.get("state_dict")
    if not isinstance(step, int) or step < 0 or not isinstance(tensors, Mapping):
        raise ValueError(f"{path} is damaged: it needs global_step and state_dict; delete it to begin anew.")
    return state
