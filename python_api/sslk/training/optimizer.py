"""LARS or SGD with a linear warm-up and a cosine, biases and norms kept out of decay and layer-wise scaling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightly.models.utils import get_weight_decay_parameters
from lightly.utils.lars import LARS
from lightly.utils.scheduler import CosineWarmupScheduler
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

# lightly's LARS scales a parameter only where its weight decay is not zero; this much decays nothing in float32.
_NO_DECAY = 1e-30


class ForeachLARS(LARS):
    """lightly's LARS over all parameters of a group at a time: the same numbers, and no norm is read on the host.

    lightly compares every parameter's two norms in Python, so that a step on a GPU waits for it twice per parameter.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            updates = [p.grad for p in parameters]
            if group["weight_decay"] != 0:
                updates = _scaled(parameters, updates, group["weight_decay"], group["trust_coefficient"], group["eps"])
            if (momentum := group["momentum"]) != 0:
                going = [(self.state[p]["momentum_buffer"], u) for p, u in zip(parameters, updates, strict=True) if self.state[p]]
                if going:
                    buffers, added = (list(tensors) for tensors in zip(*going, strict=True))
                    torch._foreach_mul_(buffers, momentum)
                    torch._foreach_add_(buffers, added, alpha=1 - group["dampening"])
                for p, update in zip(parameters, updates, strict=True):
                    if not self.state[p]:
                        self.state[p]["momentum_buffer"] = update.clone()
                buffers = [self.state[p]["momentum_buffer"] for p in parameters]
                updates = list(torch._foreach_add(updates, buffers, alpha=momentum)) if group["nesterov"] else buffers
            torch._foreach_add_(parameters, updates, alpha=-group["lr"])
        return loss


def _scaled(parameters: list[Tensor], gradients: list[Tensor], decay: float, trust: float, eps: float) -> list[Tensor]:
    """`trust |w| / (|g| + decay |w| + eps) (g + decay w)`; the bare gradient where either norm is zero."""
    sizes, slopes = (torch.stack(torch._foreach_norm(tensors)) for tensors in (parameters, gradients))
    rates = sizes / (slopes + sizes * decay + eps) * trust
    rates = torch.where(slopes == 0, 0.0, torch.where(sizes == 0, 1.0, rates))
    updates = torch._foreach_add(gradients, parameters, alpha=decay)
    torch._foreach_mul_(updates, rates.unbind())
    return list(updates)


def build_optimizer(modules: list[nn.Module], name: str, learning_rate: float, momentum: float, weight_decay: float) -> Optimizer:
    """The optimiser over the trainable parameters of `modules`, in two groups: weights, and biases with norms.

    Args:
        modules: what is trained.
        name: `lars` (You et al. 2017, trust coefficient 0.001) or `sgd`.
        learning_rate, momentum, weight_decay: of the optimiser; the second group has neither decay nor scaling.

    >>> optimizer = build_optimizer([nn.Linear(2, 2), nn.BatchNorm1d(2)], "lars", 0.1, 0.9, 0.0)
    >>> [len(group["params"]) for group in optimizer.param_groups]
    [1, 3]
    """
    weights, rest = get_weight_decay_parameters(modules)
    trained = [[p for p in group if p.requires_grad] for group in (weights, rest)]
    decay = (weight_decay or _NO_DECAY) if name == "lars" else weight_decay
    groups = [{"params": trained[0], "weight_decay": decay}, {"params": trained[1], "weight_decay": 0.0}]
    cls = ForeachLARS if name == "lars" else SGD
    return cls([group for group in groups if group["params"]], lr=learning_rate, momentum=momentum)


def build_schedule(optimizer: Optimizer, steps: int, warmup_share: float) -> LRScheduler:
    """A factor per step: linear up to 1 over the first share of `steps`, then a cosine to 0.

    >>> optimizer = build_optimizer([nn.Linear(2, 2)], "sgd", 1.0, 0.0, 0.0)
    >>> schedule = build_schedule(optimizer, 4, 0.5)
    >>> schedule.get_last_lr()[0]
    0.5
    """
    warmup = min(steps, max(1, round(warmup_share * steps))) if warmup_share else 0
    return CosineWarmupScheduler(optimizer, warmup, steps, end_value=0.0)
