"""A whole training step as one CUDA graph: the host launches once where it would launch a thousand kernels.

What is captured is what the step does anyway, so a step on the graph computes what it would without. Its numbers that
change (step, learning rate, momentum) stand on the device, and nothing in it makes the host wait or binds new memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sslk.training.config import TrainingConfig
from sslk.training.views import TensorViews

WARM_UP = 3  # steps before the capture: they make the optimiser's buffers and choose the convolutions' algorithms

Step = Callable[[tuple[Tensor, ...]], Any]


def obstacle(config: TrainingConfig, views: nn.Module, device: torch.device, world_size: int) -> str | None:
    """Why a step cannot be captured; None where it can."""
    checks = {
        "it needs a GPU": device.type == "cuda",
        "it is for one process": world_size == 1,
        "it is for steps of one batch (accumulate 1)": config.accumulate == 1,
        "16-mixed scales gradients by what the host reads": config.precision != "16-mixed",
        "the optimiser needs momentum": config.momentum > 0,
        "it is for images kept in memory": isinstance(views, TensorViews),
    }
    return next((reason for reason, fine in checks.items() if not fine), None)


def record(function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """Capture what `function` launches, without running it: what runs it, and its outputs, which every run fills."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        outputs = function()
    return graph.replay, outputs


def beside(function: Callable[[], Any], stream: Any) -> Any:
    """`function` on another stream, which this one waits for: backward remembers the stream of its parameters."""
    if stream is None:
        return function()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        result = function()
    torch.cuda.current_stream().wait_stream(stream)
    return result


class CapturedStep:
    """A step that runs as it is at first, is then captured, and from then on runs from its graph.

    Where the capture fails the steps go on as they are, after a warning: nothing has been computed by it.

    Args:
        step: a whole training step of a batch `(tensor, ...)`, on the device from end to end.
        device: where it runs.
        first: number of the first step that does what all later ones do; what joins a step late has its buffers by then.
    """

    def __init__(self, step: Step, device: torch.device, first: int) -> None:
        self.step, self.first = step, first
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.done, self.failed = 0, False
        self.batch: tuple[Tensor, ...] = ()
        self.replay: Callable[[], None] | None = None
        self.outputs: Any = None

    def __call__(self, number: int, batch: tuple[Tensor, ...]) -> Any:
        """What the step number `number` of the run returns; overwritten by the next."""
        if self.replay is None and not self.failed and self.done >= WARM_UP and number >= self.first:
            self._capture(batch)
        if self.replay is None:
            self.done += 1
            return beside(lambda: self.step(batch), self.stream)
        for kept, new in zip(self.batch, batch, strict=True):
            kept.copy_(new, non_blocking=True)
        self.replay()
        return self.outputs

    def _capture(self, batch: tuple[Tensor, ...]) -> None:
        self.batch = tuple(tensor.clone() for tensor in batch)
        torch.clear_autocast_cache()  # half-precision copies of weights belong to the graph, or to what is outside of it
        try:
            self.replay, self.outputs = beside(lambda: record(lambda: self.step(self.batch)), self.stream)
        except RuntimeError as error:
            self.failed, self.batch = True, ()
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            warnings.warn(f"the training step could not be captured and goes on without: {reason}", stacklevel=2)
        finally:
            torch.clear_autocast_cache()


def step_by(optimizer: Optimizer, rate: Tensor) -> None:
    """A step of an optimiser with momentum at the learning rate `rate` `[]`, which stands on the device.

    At rate 0 the optimiser brings its momentum buffers up to date and leaves the weights; then these move.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    for group, value in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = value
    moved = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    with torch.no_grad():
        torch._foreach_sub_(moved, torch._foreach_mul([optimizer.state[p]["momentum_buffer"] for p in moved], rate))
