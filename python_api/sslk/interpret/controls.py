"""What a heatmap's agreement with masks has to be compared with: random features, the centre, no preference at all."""

from __future__ import annotations

import torch
from torch import Tensor


def random_features(features: Tensor, active: Tensor, generator: torch.Generator) -> Tensor:
    """As many features per image as are active, drawn at random among those above zero: others have an empty map.

    Args:
        features: `[n, D]`.
        active: bool `[n, D]`.
        generator: on the CPU.

    Returns:
        bool `[n, D]`; rows without enough features above zero get all of them.

    >>> active = torch.tensor([[True, True, False, False], [False] * 4])
    >>> random_features(torch.ones(2, 4), active, torch.Generator().manual_seed(0)).sum(1).tolist()
    [2, 0]
    """
    draws = torch.rand(features.shape, generator=generator).to(features.device)
    draws = torch.where(features > 0, draws, -1.0)
    rank = draws.argsort(1, descending=True).argsort(1)
    return (rank < active.sum(1, keepdim=True)) & (features > 0)


def center_prior(height: int, width: int) -> Tensor:
    """A Gaussian at the centre with a standard deviation of a quarter of each side, `[height, width]`, maximum 1.

    >>> center_prior(5, 5)[2].tolist()[:3] == sorted(center_prior(5, 5)[2].tolist()[:3])
    True
    """
    y = (torch.arange(height) + 0.5) / height - 0.5
    x = (torch.arange(width) + 0.5) / width - 0.5
    heat = torch.exp(-(y[:, None].square() + x[None].square()) / (2 * 0.25**2))
    return heat / heat.max()
