"""Training steps on a device that is not there, and CUDA graphs on a CPU: what shows without a GPU what one would do.

`step_on_device` runs a whole step on fake tensors of a device "lazy": they have shapes and a place and no numbers, so that
whatever reads a number or copies between host and device is seen. torch's fake tensors can also stand on "cuda", but without
a GPU autograd does not run there. `Tape` stands in for a CUDA graph: it records the operations of a step, with the memory they
read and write, and runs exactly these again.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sslk.training.captured import WARM_UP
from sslk.training.config import TrainingConfig
from sslk.training.methods import Method
from sslk.training.module import TrainingModule
from sslk.training.views import Batches, TensorViews

DEVICE = torch.device("lazy")
# They launch nothing: memory, host tensors that travel as arguments, and marks for profilers.
FREE = {"empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided", "lift_fresh", "_record_function_enter_new"}


def writes(operation: Any) -> bool:
    return any(a.alias_info is not None and a.alias_info.is_write for a in operation._schema.arguments)


def is_view(operation: Any) -> bool:
    return not writes(operation) and any(r.alias_info is not None for r in operation._schema.returns)


def launched_alone(name: str, args: Any) -> int:
    """1; for two lists of tensors whose shapes differ, which are worked off one by one, how many."""
    lists = [a for a in args if isinstance(a, list | tuple) and a and isinstance(a[0], Tensor)]
    alike = not name.startswith("_foreach") or len({tuple(t.shape for t in tensors) for tensors in lists}) < 2
    return 1 if alike else len(lists[0])


@dataclass
class Counts:
    """Of one step: operations that compute (an `_foreach` one is one), waits of the host, and copies between places."""

    operations: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    transfers: Counter[str] = field(default_factory=Counter)

    def total(self) -> int:
        return self.operations.total()


class Counting(TorchDispatchMode):
    """Counts into `counts`; a number that is read is 1 and a mask holds everything, so that the step goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counts()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = operation._schema.name.partition("::")[2]
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if operation.namespace in ("prim", "profiler") or name in FREE:
            return operation(*args, **kwargs)
        if name == "_local_scalar_dense" and args[0].device == DEVICE:
            self.counts.waits[name] += 1
            return True if args[0].dtype == torch.bool else args[0].dtype.is_floating_point + 0.0
        if name in ("index", "index_put", "index_put_", "_unsafe_index_put", "_index_put_impl_"):
            mask = next((i for i in args[1] if i is not None and i.dtype == torch.bool), None)
            if mask is not None:
                self.counts.waits[f"{name} with a mask"] += 1
                self.counts.operations[name] += 1
                if name != "index":
                    return args[0].new_empty(args[0].shape)
                return args[0].new_empty(*args[0].shape[: args[0].ndim - mask.ndim], mask.numel())
        if name in ("nonzero", "unique", "_unique2", "masked_select"):
            self.counts.waits[name] += 1
        result = operation(*args, **kwargs)
        places = {t.device for t in tensors} | {t.device for t in tree_leaves(result) if isinstance(t, Tensor)}
        if name in ("_to_copy", "copy_", "clone") and len(places) > 1:
            self.counts.transfers[name] += 1
        if DEVICE in places and not is_view(operation):
            self.counts.operations[name] += launched_alone(name, args)
        return result


def fake_copy(module: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """`module` with fake parameters and buffers on the device, in place."""
    done: dict[Tensor, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        if tensor not in done:
            form = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=DEVICE)
            done[tensor] = nn.Parameter(form, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else form
        return done[tensor]

    with mode:
        for part in module.modules():
            for tensors in (part._parameters, part._buffers):
                for name, tensor in tensors.items():
                    if tensor is not None:
                        tensors[name] = fake(tensor)
    return module


def fake_images(images: Tensor, mode: FakeTensorMode) -> Tensor:
    with mode:
        return torch.empty(images.shape, dtype=images.dtype)


class _NoAutocast(contextlib.nullcontext):
    """There is none for the device."""

    def __init__(self, *unused: Any, **also: Any) -> None:
        super().__init__()


@contextlib.contextmanager
def pretended() -> Iterator[None]:
    """What the device lacks: generators, autocast, and several tensors at a time in optimisers."""
    generator = torch.Generator
    with (
        patch("torch.Generator", lambda device=None: generator()),
        patch("torch.autocast", _NoAutocast),
        patch("torch.optim.sgd._default_to_fused_or_foreach", lambda *unused, **also: (False, True)),
    ):
        yield


class Stand:
    """A `TrainingModule` of fake tensors and what of a Trainer it asks for."""

    def __init__(
        self, method: Method, views: TensorViews, arm: str, config: TrainingConfig, discriminative: Any, step: int = 1
    ) -> None:
        self.mode = FakeTensorMode()
        self.module = TrainingModule(method, views, arm, config, 1000, None, discriminative)  # type: ignore[arg-type]
        fake_copy(self.module, self.mode)
        views.images = fake_images(views.images, self.mode)
        self.module._device = DEVICE
        configured = self.module.configure_optimizers()
        self.optimizer, self.schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
        self.module._trainer = SimpleNamespace(global_step=step, world_size=1, optimizers=[self.optimizer])  # type: ignore[assignment]
        self.batches = Batches(len(views), config.batch_size, config.epochs, 0, views)

    def run(self, step: Callable[[Any], Any], steps: int = 3) -> Counts:
        """What the last of `steps` counts; the first ones make buffers and send the images."""
        with pretended(), self.mode:
            self.module.on_train_start()
            stream = iter(self.batches)
            for _ in range(steps):
                with Counting() as counting:
                    # Lightning's transfer of batches: of images in memory there is nothing left to send.
                    batch = tuple(tensor.to(DEVICE, non_blocking=True) for tensor in next(stream))
                    step(batch)
                    self.schedule.step()
        return counting.counts

    def plain(self, batch: Any) -> None:
        """The step as Lightning's loop takes it."""
        loss = self.module.training_step(batch, 0)
        self.optimizer.zero_grad()
        loss.backward()
        self.module.on_before_optimizer_step(self.optimizer)
        self.optimizer.step()
        self.module.method.after_step(self.module.trainer.global_step, self.module.steps)


def step_on_device(
    method: Method, views: TensorViews, arm: str, config: TrainingConfig, discriminative: Any, whole: bool = False
) -> Counts:
    """What a step of training counts that is not logged; `whole` as it would be captured."""
    stand = Stand(method.train(), views, arm, config, discriminative)
    return stand.run(stand.module.whole_step if whole else stand.plain)


def beside_the_graph(method: Method, views: TensorViews, arm: str, config: TrainingConfig, discriminative: Any) -> Counts:
    """What the host still does in a captured step, the one launch of its graph aside."""
    stand = Stand(method.train(), views, arm, replace(config, capture=True), discriminative, method.frozen_steps + 1)
    with (
        patch("sslk.training.module.obstacle", lambda *unused: None),
        patch("sslk.training.captured.record", lambda function: (lambda: None, function())),
    ):
        return stand.run(lambda batch: stand.module.training_step(batch, 0), WARM_UP + 2)


class Tape(TorchDispatchMode):
    """The operations inside, to be run again on the same memory: what a CUDA graph does, on a CPU.

    Recording a graph computes nothing, so what the operations overwrote is put back at the end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self.before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        assert "_local_scalar_dense" not in str(operation), "a captured step must not read a number"
        if operation.namespace not in ("aten", "sslk"):
            return operation(*args, **kwargs)
        if writes(operation) or "batch_norm" in str(operation):  # its schema does not say that it writes statistics
            for tensor in tree_leaves((args, kwargs)):
                if isinstance(tensor, Tensor) and (memory := tensor.untyped_storage()).data_ptr() not in self.before:
                    self.before[memory.data_ptr()] = memory, memory.clone()
        result = operation(*args, **kwargs)
        self.entries.append((operation, args, kwargs, [t for t in tree_leaves(result) if isinstance(t, Tensor)]))
        return result

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for memory, values in self.before.values():
            memory.copy_(values)

    @torch.no_grad()
    def replay(self) -> None:
        for operation, args, kwargs, outputs in self.entries:
            if is_view(operation):
                continue
            again = operation(*args, **kwargs)
            if not writes(operation):
                for kept, new in zip(outputs, (t for t in tree_leaves(again) if isinstance(t, Tensor)), strict=True):
                    kept.copy_(new)


def taped(function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """In place of `sslk.training.captured.record`."""
    with Tape() as tape:
        outputs = function()
    return tape.replay, outputs
