"""Bootstrap intervals of failure prediction: how far its measures would move with other test samples."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sslk.statistics.selective import Ranking

BLOCK_BYTES = 128 << 20
RESAMPLE_BYTES = 1 << 20  # of one float64 array of a block: the dozen that exist at once stay in the cache


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
    return _resampled(scores, correct, resamples, seed, areas_only=True)


def bootstrap_measures(scores: dict[str, Tensor], correct: Tensor, resamples: int = 1000, seed: int = 0) -> dict[str, Tensor]:
    """All of `MEASURES` of every score on the resamples of `bootstrap_areas`: each score is sorted once.

    Returns:
        float64 `[B, 6]` by name; NaN where a resample lacks the class that a measure needs.

    >>> measures = bootstrap_measures({"constant": torch.ones(9)}, torch.arange(9) < 6, resamples=50)["constant"]
    >>> bool((measures[:, 3] >= 0).all()), measures[:, 0].unique().tolist()  # no order is better than the best; ties are chance
    (True, [0.5])
    """
    return _resampled(scores, correct, resamples, seed)


def _resampled(
    scores: dict[str, Tensor], correct: Tensor, resamples: int, seed: int, *, areas_only: bool = False
) -> dict[str, Tensor]:
    if resamples < 2:
        raise ValueError(f"resamples must be at least 2, got {resamples}.")
    count = len(correct)
    generator = torch.Generator().manual_seed(seed)
    ranked = {name: Ranking(values, correct) for name, values in scores.items()}
    parts: dict[str, list[Tensor]] = {name: [] for name in scores}
    block = max(1, RESAMPLE_BYTES // (8 * count))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = torch.randint(count, (size, count), generator=generator)
        times = torch.zeros(size, count).scatter_add_(1, drawn, torch.ones(size, count))
        for name, ranking in ranked.items():
            parts[name].append(ranking.measures(times, areas_only=areas_only))
    return {name: torch.cat(found) for name, found in parts.items()}


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
