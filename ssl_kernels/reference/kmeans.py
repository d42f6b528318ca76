"""The k-means op: nearest centroids."""

from __future__ import annotations

import torch
from torch import Tensor


def kmeans_assign(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the nearest centroid (int32 `[N]`, the lowest of equals) and the squared distance to it, `[N]`."""
    scores = torch.float64 if x.dtype == torch.float64 else torch.float32
    index, distance = [], []
    for rows in x.to(scores).split(64):
        squared = (rows[:, None, :] - centroids.to(scores)[None]).square().sum(dim=2)
        squared = torch.where(squared.isfinite(), squared, torch.inf)
        least = squared.amin(dim=1)
        index.append(squared.argmin(dim=1).int())
        distance.append(torch.where(least.isfinite(), least, torch.nan))
    if not index:
        return x.new_empty(0, dtype=torch.int32), x.new_empty(0, dtype=scores)
    return torch.cat(index), torch.cat(distance)
