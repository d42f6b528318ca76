"""What an encoder gives while it trains, and what it gives for images that are held out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sslk.distributed import world
from sslk.models.readout import described, first_tensor

Read = Callable[[Any], Tensor]
Target = int | str | None


def pooled(output: Any) -> Tensor:
    """Representations `[N, D]` of what an encoder gives: the mean over a map `[N, D, h, w]`, the first of tokens `[N, T, D]`.

    >>> pooled(torch.ones(2, 8, 3, 3)).shape, pooled(torch.ones(2, 5, 8)).shape
    (torch.Size([2, 8]), torch.Size([2, 8]))
    """
    tensor = output if isinstance(output, Tensor) else first_tensor(output)
    if tensor.ndim == 4:
        return tensor.mean((2, 3))
    if tensor.ndim == 3:
        return tensor[:, 0]
    if tensor.ndim != 2 or not tensor.is_floating_point():
        raise ValueError(
            f"input must name a module that gives representations [N, D], got {described(output)}: give read, a function "
            "from its output to them."
        )
    return tensor


def submodule(module: nn.Module, name: str) -> nn.Module:
    """The encoder in a module, which may be wrapped by DistributedDataParallel.

    Raises:
        ValueError: there is no module of that name.
    """
    if isinstance(module, DistributedDataParallel):
        module = module.module
    try:
        return module.get_submodule(name)
    except AttributeError:
        names = ", ".join(child for child, _ in module.named_children())
        raise ValueError(f"input must name a sub-module of {type(module).__name__}, got {name!r}; it has {names}.") from None


class Recorder:
    """Keeps the representations of an encoder's forward passes with gradients enabled, until they are taken.

    Args:
        encoder: watched by a forward hook; whoever compiles it does so afterwards, or gives the compiled module.
        read: what becomes of its output.
    """

    def __init__(self, encoder: nn.Module, read: Read = pooled) -> None:
        self.read = read
        self.outputs: list[Tensor] = []
        self.handle = encoder.register_forward_hook(self._record)

    def _record(self, module: nn.Module, args: Any, output: Any) -> None:
        if torch.is_grad_enabled():
            # A copy: what comes next may work in place. Detached first, so that backward knows nothing of it.
            self.outputs.append(self.read(output).detach().clone())

    def take(self) -> list[Tensor]:
        """What was recorded, which is then forgotten."""
        outputs, self.outputs = self.outputs[:], []
        return outputs

    def remove(self) -> None:
        """Watch no more."""
        self.handle.remove()
        self.outputs = []


def labels_of(batch: Any, target: Target) -> Tensor | None:
    """The labels of a batch, by position or key.

    Raises:
        ValueError: the batch has none there.
    """
    if target is None:
        return None
    try:
        return torch.as_tensor(batch[target])
    except (KeyError, IndexError, TypeError, ValueError):
        raise ValueError(f"target={target!r} must be where a batch has its labels, got {described(batch)}.") from None


def images_of(batch: Any) -> Any:
    """The first part of a batch."""
    if isinstance(batch, dict):
        return next(iter(batch.values()))
    return batch[0] if isinstance(batch, tuple | list) else batch


@contextmanager
def evaluating(encoder: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module is then again in the mode in which it was."""
    modes = [(module, module.training) for module in encoder.modules()]
    encoder.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def encode(encoder: nn.Module, batches: Iterable[Any], target: Target, read: Read = pooled) -> tuple[Tensor, Tensor | None]:
    """Representations and labels of images that are held out; of several processes each encodes its share of the batches.

    Args:
        encoder: its modes and buffers are left as they are.
        batches: tensors, tuples or dictionaries whose first part is the images; the same in every process.
        target: where the labels are.
        read: what becomes of the encoder's output.

    Raises:
        ValueError: there is no batch, or no labels where they should be.
    """
    place = next((tensor.device for tensor in [*encoder.parameters(), *encoder.buffers()]), torch.device("cpu"))
    rank, size = world() if torch.distributed.is_initialized() else (0, 1)
    features, labels = [], []
    with evaluating(encoder):
        for number, batch in enumerate(batches):
            if number % size == rank:
                features.append(read(encoder(images_of(batch).to(place, non_blocking=True))))
                labels.append(labels_of(batch, target))
    if not features:
        raise ValueError("held_out must give at least one batch for every process, got none.")
    known = [part.to(place) for part in labels if part is not None]
    return torch.cat(features), torch.cat(known) if known else None
