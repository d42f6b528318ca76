"""Bootstrap intervals of failure prediction: how far AUROC and AUPRC would move with other test samples."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BLOCK_BYTES = 128 << 20


class Interval(NamedTuple):
    """A value with its 95 % percentile bootstrap interval, and the number of samples it is of; NaN where there are none.

    >>> str(Interval(0.604, 0.581, 0.627))
    '0.604 [0.581, 0.627]'
    """

    value: float
    low: float
    high: float
    samples: int | None = None

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    @property
    def half_width(self) -> float:
        """Half of its width."""
        return (self.high - self.low) / 2


def bootstrap_areas(scores: dict[str, Tensor], correct: Tensor, resamples: int = 1000, seed: int = 0) -> dict[str, Tensor]:
    """AUROC and AUPRC of every score on the same resamples of the samples, with replacement (Efron 1979).

    Because all scores see the same resamples, differences between two of them can be judged resample by resample.

    Args:
        scores: float `[N]` by name; higher should mean correct.
        correct: bool `[N]`.
        resamples: B.
        seed: of the resampling.

    Returns:
        float64 `[B, 2]` by name, AUROC and AUPRC; NaN where a resample holds one class only.

    >>> generator = torch.Generator().manual_seed(0)
    >>> correct = torch.rand(500, generator=generator) < 0.7
    >>> areas = bootstrap_areas({"noise": torch.rand(500, generator=generator)}, correct, resamples=200)
    >>> low, high = areas["noise"][:, 0].quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    >>> low < 0.5 < high
    True
    """
    if resamples < 2:
        raise ValueError(f"resamples must be at least 2, got {resamples}.")
    count = len(correct)
    generator = torch.Generator().manual_seed(seed)
    sorted_by = {name: _sorted(values, correct) for name, values in scores.items()}
    parts: dict[str, list[Tensor]] = {name: [] for name in scores}
    block = max(1, BLOCK_BYTES // (24 * count))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = torch.randint(count, (size, count), generator=generator)
        times = torch.zeros(size, count).scatter_add_(1, drawn, torch.ones(size, count))
        for name, (order, right, last) in sorted_by.items():
            parts[name].append(_areas(times[:, order], right, last))
    return {name: torch.cat(found) for name, found in parts.items()}


def _sorted(values: Tensor, correct: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Order of descending score, outcomes in it, and the last position of every distinct score."""
    values = values.detach().cpu().double()
    order = values.argsort(descending=True, stable=True)
    _, sizes = torch.unique_consecutive(values[order], return_counts=True)
    return order, correct.cpu()[order].float(), sizes.cumsum(0) - 1


def _areas(times: Tensor, right: Tensor, last: Tensor) -> Tensor:
    """Both areas of samples that occur `times` `[B, N]`, sorted by score: curves at the distinct scores."""
    hits = (times * right).double().cumsum(1)[:, last]
    misses = (times * (1 - right)).double().cumsum(1)[:, last]
    zero = hits.new_zeros(len(hits), 1)
    recall = torch.cat([zero, hits / hits[:, -1:]], 1)
    false_rate = torch.cat([zero, misses / misses[:, -1:]], 1)
    auroc = torch.trapezoid(recall, false_rate, dim=1)
    precision = hits / (hits + misses).clamp(min=1)
    return torch.stack([auroc, (recall.diff(dim=1) * precision).sum(1)], 1)


def percentile_interval(value: float, samples: Tensor) -> Interval:
    """The 95 % percentile interval of a statistic from its bootstrap samples."""
    low, high = samples[~samples.isnan()].double().quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(value, low, high)


def mean_interval(values: Tensor, resamples: int = 1000, seed: int = 0) -> Interval:
    """Mean of `[N]` with its bootstrap interval.

    >>> interval = mean_interval(torch.arange(101.0))
    >>> interval.value, interval.low < 50 < interval.high
    (50.0, True)
    """
    values = values.detach().cpu().double()
    generator = torch.Generator().manual_seed(seed)
    block = max(1, BLOCK_BYTES // (16 * len(values)))
    means = [
        values[torch.randint(len(values), (min(block, resamples - start), len(values)), generator=generator)].mean(1)
        for start in range(0, resamples, block)
    ]
    return percentile_interval(float(values.mean()), torch.cat(means))
