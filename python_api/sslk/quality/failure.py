"""Predicts which samples a probe classifies correctly, from Q-Score and from the usual baselines."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike

import torch
from torch import Tensor

from sslk.features.store import FeatureStore
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.source import answered_rows
from sslk.probes.usable import matrix, warn_nonfinite
from sslk.quality.answers import NeighbourAnswers, as_answers
from sslk.quality.failure_baselines import LABEL_FREE, LABEL_USING, OF_FEATURES, baseline_scores, norm_and_largest
from sslk.quality.failure_measures import FailureCurves, FailureIntervals, failure_curves, failure_intervals

QSCORE = "Q-Score"


@dataclass(frozen=True, eq=False)
class FailurePrediction:
    """Q-Score as a failure predictor, with baselines.

    Attributes:
        qscore: curves of the Q-Score.
        baselines: curves by name. Without labels: `feature norm`, `max feature`. From a probe that was trained on
            labels: `confidence` (largest softmax probability), `entropy` (negative), `energy` (log-sum-exp of logits). And
            the scores that were given.
        accuracy: share of correctly classified samples, which is also the AUPRC of a random score.
        nonfinite: samples that were left out because their score is NaN, as that of non-finite features is.
        intervals: 95 % bootstrap intervals by name (`Q-Score` and the baselines), where resamples were asked for.
        missing: samples that some other score lacks, by its name; they are left out of all, so that comparisons are in pairs.
        scores: `[n]` of the samples that are left, by name.
        correct: bool `[n]`, their answers.
    """

    qscore: FailureCurves
    baselines: dict[str, FailureCurves]
    accuracy: float
    intervals: dict[str, FailureIntervals] = field(default_factory=dict)
    nonfinite: int = 0
    missing: dict[str, int] = field(default_factory=dict)
    scores: dict[str, Tensor] = field(default_factory=dict)
    correct: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool))

    @property
    def curves(self) -> dict[str, FailureCurves]:
        """Of all scores by name, Q-Score first."""
        return {QSCORE: self.qscore, **self.baselines}

    def table(self) -> list[tuple[str, float, float]]:
        """Rows (name, AUROC, AUPRC), Q-Score first and the trivial score last."""
        rows = [(name, curves.auroc, curves.auprc) for name, curves in self.curves.items()]
        return [*rows, ("random (trivial)", 0.5, self.accuracy)]


def labels_of(name: str) -> str:
    """Whether a score uses labels: no, yes, or unknown of one that was given.

    >>> labels_of("feature norm"), labels_of("confidence"), labels_of("my score")
    ('no', 'yes', 'unknown')
    """
    return "no" if name in LABEL_FREE else "yes" if name in LABEL_USING else "unknown"


def failure_prediction(
    scores: Tensor,
    answers: Tensor | ProbeOutputs | NeighbourAnswers,
    *,
    features: Tensor | FeatureStore | str | PathLike[str] | None = None,
    logits: Tensor | None = None,
    others: Mapping[str, Tensor] | None = None,
    resamples: int = 0,
    seed: int = 0,
) -> FailurePrediction:
    """Evaluate Q-Score as a predictor of correct classification (Kalibhat et al., figure 4).

    Args:
        scores: Q-Scores `[N]`. Samples whose score is NaN are left out, counted and warned of.
        answers: bool (or 0 and 1) `[N]`, whether a linear probe (or a supervised classifier) classified the sample correctly;
            or the probe's outputs, which hold its logits too. Outputs may lack samples of `scores` that are unlabelled or not
            finite: their `index` tells which, in a store given as features or in the arrays that the probe was given. Or what
            `neighbour_answers` returned for the store: AUROC is then R-AUROC.
        features: representations `[N, D]` or a feature store of any size, for the label-free baselines.
        logits: the probe's outputs `[N, C]`, for the baselines that use labels.
        others: more scores `[N]` by name, higher meaning correct, such as those of `sslk.quality.failure_baselines` or of
            another method. Samples that one of them lacks (NaN) are left out of all, counted and warned of.
        resamples: bootstrap resamples for the intervals; 0 for none, 1000 is customary.
        seed: of the resampling.

    Raises:
        StoreError: the outputs are of other samples than the store, or of another model.
        TypeError: features are neither a matrix nor a store.
        ValueError: an argument has another length than scores, the answers are neither bool nor 0 and 1, or they are all
            right or all wrong, or a name in others is one of the baselines.

    Examples:
        >>> import torch, sslk
        >>> correct = torch.tensor([True, True, False, True, False])
        >>> given = {"mine": torch.tensor([0.3, 0.5, 0.1, 0.4, 0.2])}
        >>> result = sslk.failure_prediction(torch.tensor([0.9, 0.8, 0.7, 0.4, 0.1]), correct, others=given)
        >>> round(result.qscore.auroc, 3), result.accuracy, result.baselines["mine"].e_aurc
        (0.833, 0.6, 0.0)
    """
    scores = torch.as_tensor(scores).detach().cpu()
    rows: Tensor | None = None
    if isinstance(features, str | PathLike):
        features = FeatureStore(features)
    if isinstance(answers, NeighbourAnswers):
        rows, answers = answers.rows, answers.correct
    elif isinstance(answers, ProbeOutputs):
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
        norm, largest = norm_and_largest(features)
    elif features is not None:
        h = matrix(features, "features").double()
        norm, largest = h.norm(dim=1).cpu(), h.amax(dim=1).cpu()
    baselines = baseline_scores(norm, largest, None if logits is None else matrix(logits, "logits").cpu())
    for name, values in (others or {}).items():
        if name in baselines or name == QSCORE:
            raise ValueError(f"others must have names of their own, {name!r} is one of {', '.join([QSCORE, *baselines])}.")
        baselines[name] = torch.as_tensor(values).detach().cpu()
    if rows is not None:  # what is given for every sample, for those that were answered
        whole = len(features) if isinstance(features, FeatureStore) else len(scores)
        scores = scores[rows] if len(scores) == whole else scores
        baselines = {name: values[rows] if len(values) == whole else values for name, values in baselines.items()}
    _require_lengths(scores, correct, baselines)
    whole_rows, correct, nonfinite, missing = _complete(scores, correct, baselines)
    warn_nonfinite(nonfinite, len(scores))
    for sentence in said_missing(missing, len(scores) - nonfinite):
        warnings.warn(sentence, stacklevel=2)
    return _predicted(whole_rows, correct, nonfinite, missing, resamples, seed)


def _require_lengths(scores: Tensor, correct: Tensor, baselines: dict[str, Tensor]) -> None:
    """Refuse answers, features or logits of other samples than the scores, by name."""
    if scores.ndim != 1 or scores.shape != correct.shape:
        raise ValueError(f"scores and answers must both be [N], got {list(scores.shape)} and {list(correct.shape)}.")
    for name, values in baselines.items():
        if values.shape != scores.shape:
            what = {"features": OF_FEATURES, "logits": ("confidence", "entropy", "energy")}
            said = next((argument for argument, names in what.items() if name in names), f"others[{name!r}]")
            raise ValueError(f"{said} must have the {len(scores)} rows of scores, got {len(values)}.")


def _complete(
    scores: Tensor, correct: Tensor, baselines: dict[str, Tensor]
) -> tuple[dict[str, Tensor], Tensor, int, dict[str, int]]:
    """The samples that have every score: scores by name, answers; and how many lack Q-Score and how many another one."""
    finite = scores.isfinite()
    nonfinite = int((~finite).sum())
    kept, missing = finite.clone(), {}
    for name, values in baselines.items():
        lacking = finite & ~values.isfinite()
        if count := int(lacking.sum()):
            missing[name] = count
            kept &= ~lacking
    whole = {name: values[kept] for name, values in {QSCORE: scores, **baselines}.items()}
    correct = correct[kept]
    if bool(correct.all()) or not bool(correct.any()):
        out = int((~kept).sum())
        what = "NaN values of scores" if not missing else "samples without a score"
        without = f" once the {out} {what} are left out" if out else ""
        got = f"{int(correct.sum())} correct of {len(correct)}{without}"
        raise ValueError(f"answers must hold both correct and misclassified samples, got {got}.")
    return whole, correct, nonfinite, missing


def said_missing(missing: Mapping[str, int], samples: int) -> list[str]:
    """One sentence for every score that some samples lack.

    >>> said_missing({"mine": 2}, 10)
    ['mine is missing (NaN or infinity) for 2 of 10 samples: they are left out of every score.']
    """
    return [
        f"{name} is missing (NaN or infinity) for {count} of {samples} samples: they are left out of every score."
        for name, count in missing.items()
    ]


def _predicted(
    scores: dict[str, Tensor], correct: Tensor, nonfinite: int, missing: dict[str, int], resamples: int, seed: int
) -> FailurePrediction:
    curves = {name: failure_curves(values, correct) for name, values in scores.items()}
    intervals = failure_intervals(curves, scores, correct, resamples, seed, QSCORE) if resamples else {}
    own, accuracy = curves.pop(QSCORE), float(correct.double().mean())
    return FailurePrediction(own, curves, accuracy, intervals, nonfinite, missing, scores, correct)
