"""Bootstrap intervals of means over images and of their differences."""

from __future__ import annotations

import numpy as np
from scipy import stats

from sslk.statistics.bootstrap import Interval

DRAWS = 2000


def mean_interval(values: np.ndarray, seed: int = 0) -> Interval:
    """Of the values that are not NaN.

    >>> str(mean_interval(np.array([1.0, 1.0, np.nan])))
    '1.000 [1.000, 1.000]'
    """
    return _interval((_kept(values),), lambda x, axis: x.mean(axis), seed)


def paired_difference(first: np.ndarray, second: np.ndarray, seed: int = 0) -> Interval:
    """Mean of `first - second` over the images that have both."""
    return mean_interval(np.asarray(first) - np.asarray(second), seed)


def group_difference(first: np.ndarray, second: np.ndarray, seed: int = 0) -> Interval:
    """Difference of the means of two groups of different images."""
    return _interval((_kept(first), _kept(second)), lambda x, y, axis: x.mean(axis) - y.mean(axis), seed)


def _kept(values: np.ndarray) -> np.ndarray:
    # Sorted, so that the draws, and with them the interval, do not depend on the order of the images.
    values = np.sort(np.asarray(values, dtype=np.float64))
    return values[~np.isnan(values)]


def _interval(samples: tuple[np.ndarray, ...], statistic, seed: int) -> Interval:  # type: ignore[no-untyped-def]
    images = sum(map(len, samples))
    if not all(map(len, samples)):
        return Interval(float("nan"), float("nan"), float("nan"), images)
    centre = float(statistic(*samples, axis=0))
    if any(len(sample) < 2 for sample in samples):
        return Interval(centre, float("nan"), float("nan"), images)
    if all(sample[0] == sample[-1] for sample in samples):
        return Interval(centre, centre, centre, images)
    found = stats.bootstrap(
        samples,
        statistic,
        n_resamples=DRAWS,
        batch=max(1, 4_000_000 // images),
        method="percentile",
        random_state=np.random.default_rng(seed),
    )
    low, high = found.confidence_interval
    return Interval(centre, float(low), float(high), images)
