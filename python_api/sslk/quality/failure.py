"""Predicts which samples a probe classifies correctly, from Q-Score and from the usual baselines."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslk.features.store import FeatureStore
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.source import answered_rows
from sslk.probes.usable import matrix, warn_nonfinite
from sslk.statistics.bootstrap import Interval, bootstrap_areas, percentile_interval

_OF_FEATURES = ("feature norm", "max feature")


@dataclass(frozen=True, eq=False)
class FailureCurves:
    """How well one score separates correctly classified samples (positive) from misclassified ones.

    Attributes:
        auroc: area under the ROC curve; 0.5 is chance.
        auprc: average precision; the accuracy is chance.
        roc: false and true positive rate, each `[T]`.
        precision_recall: recall and precision, each `[T]`.
    """

    auroc: float
    auprc: float
    roc: tuple[np.ndarray, np.ndarray]
    precision_recall: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class FailureIntervals:
    """Bootstrap intervals of one score.

    Attributes:
        auroc, auprc: of the score.
        auroc_gain: AUROC of Q-Score less that of this score, on the same resamples; 0 for Q-Score itself.
    """

    auroc: Interval
    auprc: Interval
    auroc_gain: Interval


@dataclass(frozen=True, eq=False)
class FailurePrediction:
    """Q-Score as a failure predictor, with baselines.

    Attributes:
        qscore: curves of the Q-Score.
        baselines: curves by name. Without labels: `feature norm`, `max feature`. From a probe that was trained on
            labels: `confidence` (largest softmax probability), `entropy` (negative), `energy` (log-sum-exp of logits).
        accuracy: share of correctly classified samples, which is also the AUPRC of a random score.
        nonfinite: samples that were left out because their score is NaN, as that of non-finite features is.
        intervals: 95 % bootstrap intervals by name (`Q-Score` and the baselines), where resamples were asked for.
    """

    qscore: FailureCurves
    baselines: dict[str, FailureCurves]
    accuracy: float
    intervals: dict[str, FailureIntervals] = field(default_factory=dict)
    nonfinite: int = 0

    def table(self) -> list[tuple[str, float, float]]:
        """Rows (name, AUROC, AUPRC), Q-Score first and the trivial score last."""
        rows = [("Q-Score", self.qscore.auroc, self.qscore.auprc)]
        rows += [(name, curves.auroc, curves.auprc) for name, curves in self.baselines.items()]
        return [*rows, ("random (trivial)", 0.5, self.accuracy)]


def failure_curves(scores: Tensor, correct: Tensor) -> FailureCurves:
    """AUROC, AUPRC and both curves of one score; higher scores should mean correct.

    Raises:
        ValueError: shapes differ, scores are NaN, correct is neither bool nor 0 and 1, or all are correct or all wrong.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

    s, c = torch.as_tensor(scores).detach().cpu().double().numpy(), as_answers(correct, "correct").numpy()
    if s.shape != c.shape or s.ndim != 1:
        raise ValueError(f"scores and correct must both be [N], got {list(s.shape)} and {list(c.shape)}.")
    if np.isnan(s).any():
        raise ValueError(f"scores holds {int(np.isnan(s).sum())} NaN values: drop the samples with non-finite features.")
    if c.all() or not c.any():
        raise ValueError(f"correct must hold both correct and misclassified samples, got {int(c.sum())} correct of {len(c)}.")
    fpr, tpr, _ = roc_curve(c, s)
    precision, recall, _ = precision_recall_curve(c, s)
    return FailureCurves(float(roc_auc_score(c, s)), float(average_precision_score(c, s)), (fpr, tpr), (recall, precision))


def failure_prediction(
    scores: Tensor,
    answers: Tensor | ProbeOutputs,
    *,
    features: Tensor | FeatureStore | str | PathLike[str] | None = None,
    logits: Tensor | None = None,
    resamples: int = 0,
    seed: int = 0,
) -> FailurePrediction:
    """Evaluate Q-Score as a predictor of correct classification (Kalibhat et al., figure 4).

    Args:
        scores: Q-Scores `[N]`. Samples whose score is NaN are left out, counted and warned of.
        answers: bool (or 0 and 1) `[N]`, whether a linear probe (or a supervised classifier) classified the sample correctly;
            or the probe's outputs, which hold its logits too. Outputs may lack samples of `scores` that are unlabelled or not
            finite: their `index` tells which, in a store given as features or in the arrays that the probe was given.
        features: representations `[N, D]` or a feature store of any size, for the label-free baselines.
        logits: the probe's outputs `[N, C]`, for the baselines that use labels.
        resamples: bootstrap resamples for the intervals; 0 for none, 1000 is customary.
        seed: of the resampling.

    Raises:
        StoreError: the outputs are of other samples than the store, or of another model.
        TypeError: features are neither a matrix nor a store.
        ValueError: an argument has another length than scores, the answers are neither bool nor 0 and 1, or they are all
            right or all wrong.

    Examples:
        >>> import torch, sslk
        >>> correct = torch.tensor([True, True, False, True, False])
        >>> result = sslk.failure_prediction(torch.tensor([0.9, 0.8, 0.7, 0.4, 0.1]), correct)
        >>> round(result.qscore.auroc, 3), result.accuracy
        (0.833, 0.6)
    """
    scores = torch.as_tensor(scores).detach().cpu()
    rows: Tensor | None = None
    if isinstance(features, str | PathLike):
        features = FeatureStore(features)
    if isinstance(answers, ProbeOutputs):
        if isinstance(features, FeatureStore):
            rows = answered_rows(features, answers)
        elif len(scores) > len(answers.index):
            if answers.source:
                raise ValueError(
                    f"answers are of {len(answers.index)} samples of a store and scores of {len(scores)}: give features, the "
                    "store, by which they meet."
                )
            rows = answers.index  # places in what the probe was given
        logits = answers.logits if logits is None else logits
        answers = answers.correct
    correct = as_answers(answers)
    norm = largest = None
    if isinstance(features, FeatureStore):
        norms, maxima = [], []
        for batch in features.batches(4096):
            norms.append(batch.features.double().norm(dim=1))
            maxima.append(batch.features.amax(dim=1).float())
        norm, largest = torch.cat(norms), torch.cat(maxima)
    elif features is not None:
        h = matrix(features, "features").double()
        norm, largest = h.norm(dim=1).cpu(), h.amax(dim=1).cpu()
    baselines = baseline_scores(norm, largest, None if logits is None else matrix(logits, "logits").cpu())
    if rows is not None:  # what is given for every sample, for those that were answered
        whole = len(features) if isinstance(features, FeatureStore) else len(scores)
        scores = scores[rows] if len(scores) == whole else scores
        baselines = {name: values[rows] if len(values) == whole else values for name, values in baselines.items()}
    _require_lengths(scores, correct, baselines)
    finite = ~scores.isnan()
    missing = int((~finite).sum())
    warn_nonfinite(missing, len(scores))
    scores, correct, baselines = scores[finite], correct[finite], {name: b[finite] for name, b in baselines.items()}
    if bool(correct.all()) or not bool(correct.any()):
        without = f" once the {missing} NaN values of scores are left out" if missing else ""
        got = f"{int(correct.sum())} correct of {len(correct)}{without}"
        raise ValueError(f"answers must hold both correct and misclassified samples, got {got}.")
    return _predicted(scores, correct, baselines, resamples, seed, missing)


def _require_lengths(scores: Tensor, correct: Tensor, baselines: dict[str, Tensor]) -> None:
    """Refuse answers, features or logits of other samples than the scores, by name."""
    if scores.ndim != 1 or scores.shape != correct.shape:
        raise ValueError(f"scores and answers must both be [N], got {list(scores.shape)} and {list(correct.shape)}.")
    for name, values in baselines.items():
        if len(values) != len(scores):
            what = "features" if name in _OF_FEATURES else "logits"
            raise ValueError(f"{what} must have the {len(scores)} rows of scores, got {len(values)}.")


def as_answers(answers: Any, name: str = "answers") -> Tensor:
    """Whether each sample was classified correctly, bool `[N]`; from bool, or from 0 and 1.

    Raises:
        ValueError: other numbers, such as labels.

    >>> as_answers([1, 0, 1]).tolist()
    [True, False, True]
    """
    given = torch.as_tensor(answers).detach().cpu()
    if given.dtype != torch.bool and not bool(((given == 0) | (given == 1)).all()):
        odd = given[(given != 0) & (given != 1)].flatten()[0]
        raise ValueError(f"{name} must be bool, or 0 and 1 for wrong and right, got {odd.item():g}: labels are not answers.")
    return given.bool()


def _predicted(
    scores: Tensor, correct: Tensor, baselines: dict[str, Tensor], resamples: int, seed: int, nonfinite: int
) -> FailurePrediction:
    qscore = failure_curves(scores, correct)
    curves = {name: failure_curves(values, correct) for name, values in baselines.items()}
    intervals = {}
    if resamples:
        areas = bootstrap_areas({"Q-Score": scores, **baselines}, correct, resamples, seed)
        for name, own in {"Q-Score": qscore, **curves}.items():
            gain = areas["Q-Score"][:, 0] - areas[name][:, 0]
            intervals[name] = FailureIntervals(
                percentile_interval(own.auroc, areas[name][:, 0]),
                percentile_interval(own.auprc, areas[name][:, 1]),
                percentile_interval(qscore.auroc - own.auroc, gain),
            )
    return FailurePrediction(qscore, curves, float(correct.double().mean()), intervals, nonfinite)


def baseline_scores(norm: Tensor | None, largest: Tensor | None, logits: Tensor | None) -> dict[str, Tensor]:
    """The scores Q-Score is compared with, by name: of the feature norm and largest feature `[N]`, and of logits."""
    scores: dict[str, Tensor] = {}
    if norm is not None:
        scores[_OF_FEATURES[0]] = norm
    if largest is not None:
        scores[_OF_FEATURES[1]] = largest
    if logits is not None:
        log_probabilities = logits.double().log_softmax(dim=1)
        scores["confidence"] = log_probabilities.amax(dim=1).exp()
        scores["entropy"] = (log_probabilities.exp() * log_probabilities).sum(dim=1)
        scores["energy"] = logits.double().logsumexp(dim=1)
    return scores
