"""LARS or SGD with a linear warm-up and a cosine, biases and norms kept out of decay and layer-wise scaling."""

from __future__ import annotations

from lightly.models.utils import get_weight_decay_parameters
from lightly.utils.lars import LARS
from lightly.utils.scheduler import CosineWarmupScheduler
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

# lightly's LARS scales a parameter only where its weight decay is not zero; this much decays nothing in float32.
_NO_DECAY = 1e-30


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
    cls = LARS if name == "lars" else SGD
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
