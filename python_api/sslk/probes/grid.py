"""A grid of linear classifiers trained by SGD as one wide layer: one sequence of batches serves all settings."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

MOMENTUM = 0.9


class LinearGrid:
    """G softmax classifiers of `[D] -> [C]` side by side, each with its own learning rate and weight decay.

    SGD with momentum 0.9 and a cosine schedule to zero, as in lightly's and solo-learn's linear evaluations. Biases
    are not decayed.

    Args:
        settings: (learning rate, weight decay) of every classifier.
        num_features: D.
        num_classes: C.
        total_steps: length of the schedule.
        device: where to compute.

    >>> grid = LinearGrid([(0.1, 0.0), (1.0, 0.0)], 2, 2, total_steps=50)
    >>> x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    >>> for _ in range(50): grid.step(x, torch.tensor([0, 1]))
    >>> grid.logits(x).argmax(-1).tolist()
    [[0, 1], [0, 1]]
    """

    def __init__(
        self,
        settings: Iterable[tuple[float, float]],
        num_features: int,
        num_classes: int,
        total_steps: int,
        device: str | torch.device = "cpu",
    ) -> None:
        settings = list(settings)
        self.shape = (len(settings), num_classes, num_features)
        rows = len(settings) * num_classes
        per_row = torch.tensor(settings, device=device).repeat_interleave(num_classes, 0)
        self.rates, self.decays = per_row[:, :1].contiguous(), per_row[:, 1:].contiguous()
        self.weight, self.velocity = (torch.zeros(rows, num_features, device=device) for _ in range(2))
        self.bias, self.bias_velocity = (torch.zeros(rows, 1, device=device) for _ in range(2))
        self.total_steps, self.steps_done = total_steps, 0

    def step(self, x: Tensor, targets: Tensor) -> None:
        """One step of all classifiers on a batch `[n, D]` with targets int64 `[n]` in [0, C)."""
        settings, classes, _ = self.shape
        # Classes before rows: the softmax over a few classes then runs along contiguous memory.
        error = torch.addmm(self.bias, self.weight, x.T).view(settings, classes, len(x)).softmax(1)
        index = targets.expand(settings, 1, -1)
        error.scatter_add_(1, index, error.new_full((1, 1, 1), -1.0).expand_as(index))
        error = error.view(settings * classes, len(x))
        self.velocity.addmm_(error, x, beta=MOMENTUM, alpha=1 / len(x)).addcmul_(self.weight, self.decays)
        self.bias_velocity.mul_(MOMENTUM).add_(error.mean(1, keepdim=True))
        rate = 0.5 * (1 + math.cos(math.pi * self.steps_done / self.total_steps))
        self.weight.addcmul_(self.velocity, self.rates, value=-rate)
        self.bias.addcmul_(self.bias_velocity, self.rates, value=-rate)
        self.steps_done += 1

    def logits(self, x: Tensor) -> Tensor:
        """Class scores `[G, n, C]`."""
        settings, classes, _ = self.shape
        return torch.addmm(self.bias, self.weight, x.T).view(settings, classes, len(x)).transpose(1, 2)
