"""Curves and measures of one score as a predictor of which samples are right, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sslk.quality.answers import as_answers
from sslk.statistics.bootstrap import Interval, bootstrap_measures, percentile_interval
from sslk.statistics.selective import MEASURES, Ranking, risk_coverage

_NOTHING = (np.empty(0), np.empty(0), np.empty(0))


@dataclass(frozen=True, eq=False)
class FailureCurves:
    """How well one score separates correctly classified samples (positive) from misclassified ones.

    Equations and what ties do: `sslk.statistics.selective`.

    Attributes:
        auroc: area under the ROC curve; 0.5 is chance.
        auprc: average precision; the accuracy is chance.
        roc: false and true positive rate, each `[T]`.
        precision_recall: recall and precision, each `[T]`.
        aurc: area under the risk-coverage curve; low is good, the error rate is chance.
        e_aurc: the same less that of the best order; 0 is best.
        augrc: area under the generalised risk-coverage curve; low is good, half the error rate is chance.
        fpr95: share of the wrong samples kept where 95 % of the right ones are; low is good.
        risk_coverage: coverage, selective risk and generalised risk, each `[T]`.
    """

    auroc: float
    auprc: float
    roc: tuple[np.ndarray, np.ndarray]
    precision_recall: tuple[np.ndarray, np.ndarray]
    aurc: float = float("nan")
    e_aurc: float = float("nan")
    augrc: float = float("nan")
    fpr95: float = float("nan")
    risk_coverage: tuple[np.ndarray, np.ndarray, np.ndarray] = _NOTHING

    @property
    def measures(self) -> dict[str, float]:
        """Its numbers by name, in the order of `sslk.statistics.selective.MEASURES`."""
        values = (self.auroc, self.auprc, self.aurc, self.e_aurc, self.augrc, self.fpr95)
        return dict(zip(MEASURES, values, strict=True))


@dataclass(frozen=True)
class FailureIntervals:
    """Bootstrap intervals of one score.

    Attributes:
        auroc, auprc: of the score.
        auroc_gain: AUROC of Q-Score less that of this score, on the same resamples; 0 for Q-Score itself.
        measures: of the score, all of `sslk.statistics.selective.MEASURES` by name.
        gains: of Q-Score less this score, likewise; where low is good, a negative one speaks for Q-Score.
    """

    auroc: Interval
    auprc: Interval
    auroc_gain: Interval
    measures: dict[str, Interval] = field(default_factory=dict)
    gains: dict[str, Interval] = field(default_factory=dict)


def failure_curves(scores: Tensor, correct: Tensor) -> FailureCurves:
    """All measures and curves of one score; higher scores should mean correct.

    Raises:
        ValueError: shapes differ, scores are NaN, correct is neither bool nor 0 and 1, or all are correct or all wrong.

    >>> curves = failure_curves(torch.tensor([0.9, 0.8, 0.7, 0.1]), torch.tensor([True, True, False, True]))
    >>> round(curves.aurc, 4), round(curves.e_aurc, 4), round(curves.augrc, 4), curves.fpr95
    (0.1458, 0.0833, 0.0938, 1.0)
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

    values, right = torch.as_tensor(scores).detach().cpu().double(), as_answers(correct, "correct")
    s, c = values.numpy(), right.numpy()
    if s.shape != c.shape or s.ndim != 1:
        raise ValueError(f"scores and correct must both be [N], got {list(s.shape)} and {list(c.shape)}.")
    if np.isnan(s).any():
        raise ValueError(f"scores holds {int(np.isnan(s).sum())} NaN values: drop the samples with non-finite features.")
    if c.all() or not c.any():
        raise ValueError(f"correct must hold both correct and misclassified samples, got {int(c.sum())} correct of {len(c)}.")
    aurc, e_aurc, augrc, fpr95 = Ranking(values, right).measures()[0, 2:].tolist()
    fpr, tpr, _ = roc_curve(c, s)
    precision, recall, _ = precision_recall_curve(c, s)
    coverage, selective, general = (part.numpy() for part in risk_coverage(values, right))
    return FailureCurves(
        float(roc_auc_score(c, s)),
        float(average_precision_score(c, s)),
        (fpr, tpr),
        (recall, precision),
        aurc,
        e_aurc,
        augrc,
        fpr95,
        (coverage, selective, general),
    )


def failure_intervals(
    curves: Mapping[str, FailureCurves], scores: Mapping[str, Tensor], correct: Tensor, resamples: int, seed: int, first: str
) -> dict[str, FailureIntervals]:
    """Intervals of every score, and of `first` less every score, all on the same resamples.

    Args:
        curves: of the scores, by name.
        scores: `[N]` by name.
        correct: bool `[N]`.
        resamples, seed: of the bootstrap.
        first: name of the score that the others are compared with.
    """
    drawn = bootstrap_measures(dict(scores), correct, resamples, seed)
    found = {}
    for name, own in curves.items():
        at_all, gains = {}, {}
        for column, measure in enumerate(MEASURES):
            value, samples = own.measures[measure], drawn[name][:, column]
            at_all[measure] = percentile_interval(value, samples)
            difference = curves[first].measures[measure] - value
            gains[measure] = percentile_interval(difference, drawn[first][:, column] - samples)
        found[name] = FailureIntervals(at_all["AUROC"], at_all["AUPRC"], gains["AUROC"], at_all, gains)
    return found
