"""Lloyd's k-means on all rows, those of several processes together.

Rows are assigned by `ssl_kernels.kmeans_assign`; sums are float64, counts int64, and only rows that change their cluster
touch them. Every process gets the same centroids. (Bounds by the triangle inequality, which save most comparisons in
few dimensions, were tried: in 256 dimensions they spared less than a tenth of the rows and cost more than that.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import ssl_kernels
from sslk.distributed import all_gather, all_sum, first_row, world

_ROWS = 8192  # rows held in float64 at once


@dataclass(frozen=True, eq=False)
class KMeansFit:
    """One run of k-means.

    Attributes:
        centroids: float32 `[K, D]`.
        inertia: sum of the squared distances to the nearest centroid, over all processes.
        iterations: done; fewer than asked where nothing moved any more.
        repaired: empty clusters that were given a row, over all iterations.
    """

    centroids: Tensor
    inertia: float
    iterations: int
    repaired: int


def random_start(x: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """K different rows, float32 `[K, D]`, drawn from those of all processes."""
    offset, total = first_row(len(x), x.device)
    chosen = torch.randperm(total, generator=generator)[:clusters].to(x.device) - offset
    return _rows(x, chosen)


def plus_plus_start(x: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """K rows by k-means++ (Arthur and Vassilvitskii, 2007): each drawn by its squared distance to those before it."""
    offset, total = first_row(len(x), x.device)
    squares = x.square().sum(1)
    centroids = x.new_empty(clusters, x.shape[1])
    chosen = int(torch.randint(total, (1,), generator=generator)) - offset
    nearest = torch.full((len(x),), torch.inf, dtype=torch.float32, device=x.device)
    for k in range(clusters):
        centroids[k] = _rows(x, torch.tensor([chosen], device=x.device))[0]
        distance = squares + centroids[k].square().sum() - 2 * (x @ centroids[k])
        nearest = torch.minimum(nearest, distance.clamp(min=0))
        mass = nearest.double().cumsum(0)
        masses = all_gather(mass[-1] if len(mass) else mass.new_zeros(())).cpu()
        point = float(torch.rand(1, dtype=torch.float64, generator=generator)) * float(masses.sum())
        point -= float(masses[: world()[0]].sum())
        inside = 0 <= point < float(masses[world()[0]])
        # A process that does not own the row gives a number outside of its rows.
        chosen = min(int(torch.searchsorted(mass, point, right=True)), len(x) - 1) if inside else -1
    return centroids


def _rows(x: Tensor, numbers: Tensor) -> Tensor:
    """The rows of the given local numbers; those outside are another process's."""
    mine = (numbers >= 0) & (numbers < len(x))
    rows = x.new_zeros(len(numbers), x.shape[1])
    rows[mine] = x[numbers[mine]]
    return all_sum(rows)


def lloyd(x: Tensor, start: Tensor, iterations: int = 100) -> KMeansFit:
    """Run Lloyd's algorithm from given centroids, on the rows of all processes together.

    A cluster that loses its last row takes the row that is farthest from its own centroid (the lowest number of
    equals), in the order of the clusters: the same in every run and for every number of processes.

    Args:
        x: float32 `[N, D]`, finite.
        start: float32 `[K, D]`.
        iterations: at most.

    >>> x = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    >>> fit = lloyd(x, x[:2])
    >>> fit.centroids.flatten().tolist(), fit.inertia
    ([0.5, 10.5], 1.0)
    """
    state = _Lloyd(x, start)
    done = 0
    while done < iterations:
        done += 1
        if not state.step():
            break
    inertia = all_sum(ssl_kernels.kmeans_assign(x, state.centroids)[1].double().sum())
    return KMeansFit(state.centroids, float(inertia), done, state.repaired)


class _Lloyd:
    """Assignment and sums between iterations."""

    def __init__(self, x: Tensor, start: Tensor) -> None:
        self.x, self.centroids = x, start.clone()
        k, d = start.shape
        self.assignment = torch.full((len(x),), -1, dtype=torch.int64, device=x.device)
        self.sums = torch.zeros(k, d, dtype=torch.float64, device=x.device)
        self.counts = torch.zeros(k, dtype=torch.int64, device=x.device)
        self.repaired = 0

    def step(self) -> bool:
        """Assign, then move the centroids; False where no row changed its cluster."""
        nearest, distance = ssl_kernels.kmeans_assign(self.x, self.centroids)
        changed = (nearest != self.assignment).nonzero().flatten()
        if int(all_sum(torch.tensor(len(changed), device=self.x.device))) == 0:
            return False
        for rows in changed.split(_ROWS):
            self._move(rows, nearest[rows].long())
        counts = all_sum(self.counts.clone())
        if bool((counts == 0).any()):
            self._repair(counts, distance)
        sums = all_sum(self.sums.clone())
        # Where even repair found no row (fewer different rows than clusters), the centroid stays.
        filled = counts > 0
        self.centroids[filled] = (sums[filled] / counts[filled, None]).float()
        return True

    def _move(self, rows: Tensor, after: Tensor) -> None:
        before, values = self.assignment[rows], self.x[rows].double()
        known = before >= 0
        self.sums.index_add_(0, after, values)
        self.sums.index_add_(0, before[known], values[known], alpha=-1)
        k = len(self.counts)
        self.counts += torch.bincount(after, minlength=k) - torch.bincount(before[known], minlength=k)
        self.assignment[rows] = after

    def _repair(self, counts: Tensor, distance: Tensor) -> None:
        """Give every empty cluster a row; `counts` are those of all processes and are kept up to date."""
        for cluster in (counts == 0).nonzero().flatten().tolist():
            # A cluster's only row stays, taking it would empty the next one; so does one that lies on its centroid.
            free = torch.where((counts[self.assignment] > 1) & (distance > 0), distance, -torch.inf)
            local = int(free.argmax())
            found = all_gather(free[local])
            winner = int(found.argmax())
            if found[winner] == -torch.inf:
                return
            source = torch.zeros((), dtype=torch.int64, device=self.x.device)
            if winner == world()[0]:
                row = torch.tensor([local], device=self.x.device)
                source += self.assignment[local]
                self._move(row, torch.tensor([cluster], device=self.x.device))
                distance[local] = 0.0
            counts[int(all_sum(source))] -= 1
            counts[cluster] += 1
            self.repaired += 1
