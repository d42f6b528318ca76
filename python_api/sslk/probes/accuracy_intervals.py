"""How far accuracies would move with other test images, and with other draws of few training images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sslk.statistics.bootstrap import Interval, percentile_interval

_BLOCK_BYTES = 128 << 20


def mean_per_class_interval(correct: Tensor, labels: Tensor, resamples: int = 1000, seed: int = 0) -> Interval:
    """Mean over the classes of the share of correct answers, with its 95 % bootstrap interval over the images.

    A resample is known by how often it holds a right and a wrong image of each class, which is multinomial: no image is drawn.
    A class that a resample lacks is not in its mean.

    Args:
        correct: bool `[N]`.
        labels: integers `[N]`.
        resamples: B.
        seed: of the resampling.

    >>> correct = torch.tensor([1, 1, 1, 0, 1, 0], dtype=torch.bool)
    >>> found = mean_per_class_interval(correct, torch.tensor([3, 3, 3, 3, 7, 7]))
    >>> found.value, found.low < found.value < found.high
    (0.625, True)
    """
    _, member = torch.unique(labels.cpu(), return_inverse=True)
    cells = torch.bincount(2 * member + correct.cpu().long(), minlength=2 * int(member.max()) + 2).numpy()
    drawn = np.random.default_rng(seed).multinomial(len(member), cells / len(member), size=resamples)
    wrong, right = drawn[:, ::2], drawn[:, 1::2]
    with np.errstate(invalid="ignore"):
        values = np.nanmean(right / (right + wrong), 1)
    value = float(np.mean(cells[1::2] / (cells[::2] + cells[1::2])))
    return percentile_interval(value, torch.from_numpy(values))._replace(samples=len(member))


def over_tries(correct: Tensor, labels: Tensor, resamples: int = 1000, seed: int = 0) -> tuple[Interval, Interval]:
    """Means over tries of top-1 and of mean-per-class accuracy, with 95 % intervals over tries and test images together.

    Every resample draws tries, and test images that all of these tries share, with replacement (the pigeonhole bootstrap; Owen,
    "The pigeonhole bootstrap", Ann. Appl. Stat. 1 (2007)). Few tries are still few: it knows the spread of those that there are.

    Args:
        correct: bool `[T, N]`, of every try.
        labels: integers `[N]`.
        resamples: B.
        seed: of the resampling.

    >>> correct = torch.rand(5, 400, generator=torch.Generator().manual_seed(0)) < 0.7
    >>> top1, per_class = over_tries(correct, torch.arange(400) % 4)
    >>> top1.low < 0.7 < top1.high, abs(top1.value - per_class.value) < 1e-9
    (True, True)
    """
    correct, (_, member) = correct.cpu(), torch.unique(labels.cpu(), return_inverse=True)
    tries, count = correct.shape
    classes = int(member.max()) + 1
    generator = torch.Generator().manual_seed(seed)
    order = member.argsort(stable=True)
    right, ends = correct[:, order].double(), torch.bincount(member, minlength=classes).cumsum(0) - 1
    parts = []
    size = max(1, _BLOCK_BYTES // (32 * count))
    for start in range(0, resamples, size):
        block = min(size, resamples - start)
        times = torch.zeros(block, count, dtype=torch.float64)
        times.scatter_add_(1, torch.randint(count, (block, count), generator=generator), torch.ones(block, count).double())
        held = _per_class(times, ends)
        means = torch.empty(2, block, tries, dtype=torch.float64)
        for t in range(tries):
            hits = _per_class(times * right[t], ends)
            means[0, :, t], means[1, :, t] = hits.sum(1) / count, (hits / held).nanmean(1)
        drawn = torch.randint(tries, (block, tries), generator=generator)
        parts.append(means.gather(2, drawn.expand(2, -1, -1)).mean(2))
    samples = torch.cat(parts, 1)
    whole = torch.ones(1, count, dtype=torch.float64)
    shares = torch.stack([(_per_class(row[None], ends) / _per_class(whole, ends)).mean() for row in right])
    values = float(correct.double().mean()), float(shares.mean())
    first, second = (percentile_interval(v, s)._replace(samples=count) for v, s in zip(values, samples, strict=True))
    return first, second


def _per_class(values: Tensor, ends: Tensor) -> Tensor:
    """Sums `[B, K]` of values `[B, N]` sorted by class."""
    return values.cumsum(1)[:, ends].diff(dim=1, prepend=values.new_zeros(len(values), 1))
