"""Intervals over runs and images together: how far a difference would move with other seeds and with other test images.

Every run (seed) answers every image, so both are crossed: a value is `m + a_run + b_image + e_run,image`, and its mean over S
runs and N images has the variance `A / S + B / N + E / (S N)`. A replicate draws images and runs, with replacement and
independently (the pigeonhole bootstrap of Owen 2007), and adds what both draws change:

`mean over runs, on the drawn images  +  k (mean over the drawn runs - mean over all runs, on all images)`

with `k = sqrt(S / (S - 1)) t(S - 1) / z`, the 97.5 % points of Student's and the normal distribution: a bootstrap of few runs
is too narrow by just this (Hesterberg 2015, section 4.1). k is 9.2 for 2 runs, 2.7 for 3, 1.6 for 5, 1.2 for 10.

What it can say for few runs: the factor k is exact where the runs' effects are normal; nothing in 3 or 5 numbers shows whether
they are. `E` is counted twice, so that the interval is too wide where runs disagree by chance about single images alone. Where
the runs hardly differ it is the interval over images. From one run nothing follows about others: that is an error here.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import torch
from scipy.stats import norm
from scipy.stats import t as student
from torch import Tensor

from sslk.statistics.bootstrap import Interval, percentile_interval
from sslk.statistics.selective import Ranking

BLOCK_BYTES = 8 << 20
Statistic = Callable[[Tensor], Tensor]


def crossed_mean(values: Tensor, *, resamples: int = 1000, seed: int = 0) -> Interval:
    """Mean of `[S, N]` over runs and images, with its 95 % interval over both.

    Args:
        values: one row a run, one column an image, such as the difference of two arms' correctness; finite.
        resamples, seed: of the bootstrap.

    Raises:
        ValueError: fewer than two runs or images, or values that are not finite.

    >>> values = torch.randn(5, 400, generator=torch.Generator().manual_seed(0)) + torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5]]).T
    >>> interval = crossed_mean(values)
    >>> interval.low < 0.3 < interval.high, interval.samples
    (True, 400)
    """
    values = _checked(values)
    return _crossed(lambda times: times @ values.T / values.shape[1], values.shape, resamples, seed)


def crossed_auroc(
    scores: Tensor, correct: Tensor, other_scores: Tensor, other_correct: Tensor, *, resamples: int = 1000, seed: int = 0
) -> Interval:
    """Mean over runs of the difference of two arms' AUROC, with its 95 % interval over runs and images.

    Args:
        scores, correct: `[S, N]` of one arm: a score of every image in every run, and whether the probe was right.
        other_scores, other_correct: the same of the arm that is subtracted; runs in the same order.
        resamples, seed: of the bootstrap.

    Raises:
        ValueError: shapes differ, or as for `crossed_mean`.

    Returns:
        NaN where a run has no right or no wrong answer.

    >>> generator = torch.Generator().manual_seed(0)
    >>> right = torch.rand(3, 500, generator=generator) < 0.6
    >>> noise = torch.rand(3, 500, generator=generator)
    >>> interval = crossed_auroc(noise + right, right, noise, right, resamples=200)
    >>> 0.4 < interval.low < interval.value < interval.high < 0.6
    True
    """
    given = [_checked(part) for part in (scores, correct, other_scores, other_correct)]
    if len({part.shape for part in given}) > 1:
        raise ValueError(f"scores and correct must have one shape [S, N], got {[list(part.shape) for part in given]}.")
    ranked = [
        (Ranking(*mine), Ranking(*other))
        for mine, other in zip(zip(given[0], given[1] > 0, strict=True), zip(given[2], given[3] > 0, strict=True), strict=True)
    ]

    def difference(times: Tensor) -> Tensor:
        counts = times.float()  # whole numbers
        return torch.stack(
            [a.measures(counts, areas_only=True)[:, 0] - b.measures(counts, areas_only=True)[:, 0] for a, b in ranked], 1
        )

    return _crossed(difference, given[0].shape, resamples, seed)


def few_runs_factor(runs: int) -> float:
    """k: by how much a bootstrap of so few runs is too narrow.

    >>> [round(few_runs_factor(runs), 2) for runs in (2, 3, 5, 10, 1000)]
    [9.17, 2.69, 1.58, 1.22, 1.0]
    """
    return sqrt(runs / (runs - 1)) * float(student.ppf(0.975, runs - 1) / norm.ppf(0.975))


def _crossed(statistic: Statistic, shape: torch.Size, resamples: int, seed: int) -> Interval:
    """Interval of the mean over runs of a statistic `times [B, N] -> [B, S]` of every run."""
    if resamples < 2:
        raise ValueError(f"resamples must be at least 2, got {resamples}.")
    runs, images = shape
    by_run = statistic(torch.ones(1, images, dtype=torch.float64))[0]
    value = float(by_run.mean())
    if value != value:
        return Interval(value, value, value, images)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(runs, (resamples, runs), generator=generator)
    shift = few_runs_factor(runs) * (by_run[drawn].mean(1) - value)
    block = max(1, BLOCK_BYTES // (8 * images))
    on_drawn_images = [
        statistic(_times(min(block, resamples - start), images, generator)).mean(1) for start in range(0, resamples, block)
    ]
    found = percentile_interval(value, torch.cat(on_drawn_images) + shift)
    return found._replace(samples=images)


def _times(count: int, images: int, generator: torch.Generator) -> Tensor:
    """How often each image occurs in each of `count` resamples, float64 `[count, images]`."""
    drawn = torch.randint(images, (count, images), generator=generator)
    return torch.zeros(count, images, dtype=torch.float64).scatter_add_(1, drawn, torch.ones(drawn.shape, dtype=torch.float64))


def _checked(values: Tensor) -> Tensor:
    values = values.detach().cpu().double()
    if values.ndim != 2 or min(values.shape) < 2:
        raise ValueError(f"values must be [runs, images], at least two of each, got {list(values.shape)}.")
    if not bool(values.isfinite().all()):
        raise ValueError("values must be finite, got NaN or infinity: leave out those images in all runs.")
    return values
