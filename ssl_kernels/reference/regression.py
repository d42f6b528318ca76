"""The regression op: a step of softmax regression on sparse binary rows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def sparse_softmax_sgd_(
    weight: Tensor,
    bias: Tensor,
    weight_velocity: Tensor,
    bias_velocity: Tensor,
    columns: Tensor,
    offsets: Tensor,
    target: Tensor,
    index: Tensor,
    learning_rate: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> Tensor:
    """A step of SGD on the mean cross-entropy of a batch, in place; the summed loss before it, float64.

    The batch's bits are written out, so that both products are dense ones: what a GPU does best.
    """
    n, classes = len(index), len(bias)
    if n == 0:
        return weight.new_zeros((), dtype=torch.float64)
    tiles, concepts, width = weight.shape
    starts, lengths = offsets[index], offsets[index + 1] - offsets[index]
    row = torch.repeat_interleave(torch.arange(n, device=weight.device), lengths)
    inside = torch.arange(len(row), device=weight.device) - (lengths.cumsum(0) - lengths)[row]
    column = columns[starts[row] + inside].long()
    bits = torch.bincount(row * concepts + column, minlength=n * concepts).view(n, concepts).to(weight.dtype)
    logits = (bits @ weight).transpose(0, 1).flatten(1)[:, :classes] + bias
    loss = F.cross_entropy(logits.double(), target[index], reduction="sum")
    error = (logits.softmax(1) - F.one_hot(target[index], classes)) / n
    tiled = F.pad(error, (0, tiles * width - classes)).view(n, tiles, width).transpose(0, 1)
    for parameter, velocity, gradient in ((weight, weight_velocity, bits.T @ tiled), (bias, bias_velocity, error.sum(0))):
        velocity.mul_(momentum).add_(gradient.add_(parameter, alpha=weight_decay))
        parameter.sub_(velocity, alpha=learning_rate)
    return loss
