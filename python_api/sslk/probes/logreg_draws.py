"""Which training rows choose C, and which are drawn for few shots."""

from __future__ import annotations

import torch
from torch import Tensor


def held_out(targets: Tensor, share: float, seed: int) -> Tensor:
    """Rows that choose C, bool `[N]`: of every class its share, one at least, but none of a class of one row.

    >>> targets = torch.tensor([0] * 30 + [1] * 4 + [2])
    >>> torch.bincount(targets[held_out(targets, 0.1, 0)], minlength=3).tolist()
    [3, 1, 0]
    """
    counts = torch.bincount(targets)
    # The smallest addition makes 0.1 of 30 three.
    wanted = torch.where(counts > 1, (counts * share + 1e-9).long().clamp(min=1), 0)
    return _places(targets, seed) < wanted[targets]


def drawn(targets: Tensor, allowed: Tensor, shots: int, seed: int) -> Tensor:
    """Places of `shots` rows of every class among those allowed, all of a class that has fewer.

    >>> targets = torch.tensor([0] * 30 + [1] * 4 + [2])
    >>> torch.bincount(targets[drawn(targets, torch.ones(35, dtype=torch.bool), 5, seed=0)]).tolist()
    [5, 4, 1]
    """
    rows = allowed.nonzero().squeeze(1)
    return rows[_places(targets[rows], seed) < shots]


def _places(targets: Tensor, seed: int) -> Tensor:
    """The place of every row among those of its class, in a random order."""
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
    by_class = order[targets[order].argsort(stable=True)]
    counts = torch.bincount(targets)
    first = (counts.cumsum(0) - counts)[targets[by_class]]
    places = torch.empty_like(targets)
    places[by_class] = torch.arange(len(targets)) - first
    return places
