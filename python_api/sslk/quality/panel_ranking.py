"""Does a label-free number rank encoders as a linear probe does: Kendall's tau-b, its interval, its permutation test."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from sslk.probes.outputs import ProbeOutputs
from sslk.quality.panel_values import CLAIMS, Panel
from sslk.statistics.bootstrap import Interval
from sslk.statistics.influence import resampled_means

FEWEST = 4  # encoders: of three, even a perfect order is chance in one of six
MOST_EXACT = 8  # encoders with ties of which all orders are tried; of more, this many random ones
RANDOM_ORDERS = 10_000
Number = TypeVar("Number", float, Tensor)


@dataclass(frozen=True)
class Ranking:
    """How well one number ranks the encoders of one data set.

    Attributes:
        tau: Kendall's tau-b with the accuracy, of the number turned so that higher is claimed to be better. Its interval is of
            these encoders with other images of the same number: NaN where the number has none.
        p: two-sided permutation test: how often a random order of the encoders agrees or disagrees as much.
        encoders: how many were ranked.
    """

    tau: Interval
    p: float
    encoders: int


def oriented(name: str, values: Number) -> Number:
    """A number turned so that higher is claimed to be better.

    >>> oriented("uniformity", -3.0), oriented("alpha-ReQ", 1.5), oriented("RankMe", 7.0)
    (3.0, -0.5, 7.0)
    """
    if CLAIMS[name] == "near 1":
        return -abs(values - 1)
    return values if CLAIMS[name] == "higher" else -values


def kendall(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Kendall's tau-b and the two-sided p-value of its permutation test; NaN where one of them is constant.

    The test is exact without ties, and with ties up to eight values; above, it tries 10,000 random orders.

    >>> tau, p = kendall([1, 2, 3, 4], [10, 20, 30, 40])
    >>> round(tau, 3), round(p, 4)
    (1.0, 0.0833)
    """
    tied = len(set(first)) < len(first) or len(set(second)) < len(second)
    tau, p = stats.kendalltau(first, second, method="asymptotic" if tied else "exact")
    if not tied or math.isnan(tau):
        return float(tau), float(p)
    rows, columns = np.triu_indices(len(first), 1)
    a, b = (np.sign(np.subtract.outer(x, x)) for x in (np.asarray(first, float), np.asarray(second, float)))
    if len(first) <= MOST_EXACT:
        orders = np.array(list(itertools.permutations(range(len(first)))))
    else:
        generator = np.random.default_rng(0)
        orders = np.array([generator.permutation(len(first)) for _ in range(RANDOM_ORDERS)])
    sums = (a[rows, columns] * b[orders[:, rows], orders[:, columns]]).sum(1)
    as_much = np.abs(sums) >= abs((a * b)[rows, columns].sum())
    exact = len(first) <= MOST_EXACT
    return float(tau), float(as_much.mean() if exact else (as_much.sum() + 1) / (len(orders) + 1))


def rank_encoders(
    panels: Sequence[Panel], outputs: Sequence[ProbeOutputs], resamples: int = 1000, seed: int = 0
) -> dict[str, Ranking]:
    """Kendall's tau between every label-free number and the accuracy of a probe, over encoders on the same data.

    Both sides have their own sampling error: the bootstrap of the panels moves the numbers, a bootstrap over the test images,
    the same for all encoders, the accuracies; tau is computed again from each pair of draws. That other encoders might be
    ranked otherwise is not in the interval; the permutation test speaks of that.

    Args:
        panels: of the encoders.
        outputs: of a probe on each.
        resamples: draws, at most as many as the panels have.
        seed: of the draws of test images.

    Returns:
        By name, of the numbers that every panel has; nothing for fewer than four encoders.

    Raises:
        ValueError: not one set of answers for each panel.
    """
    if len(panels) != len(outputs):
        raise ValueError(f"outputs must hold one set of answers for each of {len(panels)} panels, got {len(outputs)}.")
    if len(panels) < FEWEST:
        return {}
    accuracy = [answers.accuracy for answers in outputs]
    drawn_accuracy = torch.tensor(accuracy, dtype=torch.float64) + accuracy_draws(outputs, resamples, seed)
    found = {}
    for name in CLAIMS:
        values = [panel.values[name].value for panel in panels if name in panel.values]
        if len(values) < len(panels):
            continue
        tau, p = kendall([oriented(name, value) for value in values], accuracy)
        low = high = math.nan
        if not math.isnan(tau) and all(name in panel.draws for panel in panels):
            drawn = torch.tensor(values, dtype=torch.float64) + torch.stack([panel.draws[name] for panel in panels], 1)
            low, high = _tau_interval(oriented(name, drawn), drawn_accuracy)
        found[name] = Ranking(Interval(tau, low, high, len(panels)), p, len(panels))
    return found


def accuracy_draws(outputs: Sequence[ProbeOutputs], resamples: int, seed: int) -> Tensor:
    """What a bootstrap over the test images adds to each accuracy, float64 `[resamples, encoders]`; the same images for all
    encoders that answered the same ones."""
    columns = [answers.correct.double() - answers.accuracy for answers in outputs]
    if all(torch.equal(answers.index, outputs[0].index) for answers in outputs):
        return resampled_means(torch.stack(columns, 1), resamples, seed)
    return torch.cat([resampled_means(c[:, None], resamples, seed + i) for i, c in enumerate(columns)], 1)


def _tau_interval(first: Tensor, second: Tensor) -> tuple[float, float]:
    taus = [stats.kendalltau(a, b).statistic for a, b in zip(first.numpy(), second.numpy(), strict=False)]
    low, high = np.nanquantile(taus, [0.025, 0.975])
    return float(low), float(high)
