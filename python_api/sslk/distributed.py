"""Sums over the processes of `torchrun`, each holding some of the rows; one process alone needs no process group."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def world() -> tuple[int, int]:
    """This process's rank and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def all_sum(value: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    if world()[1] > 1:
        distributed.all_reduce(value)
    return value


def all_gather(value: Tensor) -> Tensor:
    """`[ranks, ...]`, the value of every process; shapes must be equal."""
    rank, size = world()
    gathered = value.new_zeros(size, *value.shape)
    gathered[rank] = value
    return all_sum(gathered)


def first_row(rows: int, device: torch.device | None = None) -> tuple[int, int]:
    """Number of this process's first row, rows being numbered through by rank, and how many there are in all."""
    counts = all_gather(torch.tensor(rows, dtype=torch.int64, device=device)).tolist()
    return sum(counts[: world()[0]]), sum(counts)
