"""How far two arms of further training are apart, paired over runs and over the samples both were evaluated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sslk.statistics.bootstrap import Interval, bootstrap_areas, mean_interval, percentile_interval
from sslk.statistics.hierarchical import crossed_auroc, crossed_mean
from sslk.statistics.selective import Ranking
from sslk.training.samples import ArmSamples


@dataclass(frozen=True)
class ArmDifference:
    """One arm less another, means over the runs, with 95 % bootstrap intervals.

    From several runs (seeds) the intervals are over runs and evaluation samples together, see
    `sslk.statistics.hierarchical`; from one run over the samples alone: such an interval says nothing about other seeds.

    Attributes:
        top1, auroc: of the probe and of Q-Score as its failure predictor, in [0, 1]; None without labels, the area also
            where all answers of a run are right or all wrong.
        mean_q, mean_active: of the Q-Scores and of `|L_i|`.
        by_run: the difference of top-1 in every run.
    """

    top1: Interval | None
    auroc: Interval | None
    mean_q: Interval
    mean_active: Interval
    by_run: list[float]

    @property
    def quantities(self) -> dict[str, tuple[Interval, float]]:
        """Name with unit, interval and the factor to that unit, of what is known."""
        known = {
            "probe top-1 [points]": (self.top1, 100.0),
            "Q-Score AUROC": (self.auroc, 1.0),
            "mean Q": (self.mean_q, 1.0),
            "mean |L_i|": (self.mean_active, 1.0),
        }
        return {name: (interval, factor) for name, (interval, factor) in known.items() if interval is not None}


def arm_difference(
    first: Sequence[ArmSamples], second: Sequence[ArmSamples], *, resamples: int = 1000, seed: int = 0
) -> ArmDifference:
    """Compare two arms, run by run, on the same evaluation samples.

    Samples that are not finite under any of the encoders are left out.

    Args:
        first, second: what both arms gave, one entry a run (seed), in the same order.
        resamples, seed: of the bootstrap.

    Raises:
        ValueError: no runs, not as many of both, or their evaluation samples differ.
    """
    sides = (list(first), list(second))
    if not sides[0] or len(sides[0]) != len(sides[1]):
        raise ValueError(f"first and second must hold the same runs, at least one, got {len(sides[0])} and {len(sides[1])}.")
    index = sides[0][0].index
    if any(not torch.equal(run.index, index) for side in sides for run in side):
        raise ValueError("runs must be evaluated on the same samples: give runs with the same test data.")
    kept = torch.stack([run.scores.isfinite() for side in sides for run in side]).all(0)
    scores, other_scores = (torch.stack([run.scores[kept] for run in side]).double() for side in sides)
    active, other_active = (torch.stack([run.active[kept] for run in side]).double() for side in sides)

    def mean_change(change: Tensor) -> Interval:
        if len(change) == 1:
            return mean_interval(change[0], resamples, seed)
        return crossed_mean(change, resamples=resamples, seed=seed)

    mean_q, mean_active = mean_change(scores - other_scores), mean_change(active - other_active)
    answers = [run.correct[kept] for side in sides for run in side if run.correct is not None]
    if len(answers) < 2 * len(sides[0]):
        return ArmDifference(None, None, mean_q, mean_active, [])
    correct, other_correct = (torch.stack(part) for part in (answers[: len(sides[0])], answers[len(sides[0]) :]))
    area = crossed_auroc if len(scores) > 1 else _one_run
    auroc = area(scores, correct, other_scores, other_correct, resamples=resamples, seed=seed)
    change = correct.double() - other_correct.double()
    return ArmDifference(
        mean_change(change), auroc if auroc.value == auroc.value else None, mean_q, mean_active, change.mean(1).tolist()
    )


def _one_run(
    scores: Tensor, correct: Tensor, other_scores: Tensor, other_correct: Tensor, *, resamples: int, seed: int
) -> Interval:
    """Difference of the areas of one run `[1, N]`, both on the same resamples of the samples."""
    value, areas = 0.0, torch.zeros(resamples, dtype=torch.float64)
    for sign, q, right in ((1, scores[0], correct[0]), (-1, other_scores[0], other_correct[0])):
        value += sign * float(Ranking(q, right).measures(areas_only=True)[0, 0])
        areas += sign * bootstrap_areas({"q": q}, right, resamples, seed)["q"][:, 0]
    return percentile_interval(value, areas)
