"""What Q-Score tells of a classifier's answers: over thresholds, over the number of features, and beyond what is known."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sslk.features.store import FeatureStore
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.source import check_same_model
from sslk.progress import Progress
from sslk.quality.combined import Combination, combined
from sslk.quality.discovery import discover
from sslk.quality.discriminative import DiscriminativeFeatures, NoDiscriminativeFeatures
from sslk.quality.failure import QSCORE, FailurePrediction, failure_prediction
from sslk.quality.failure_baselines import OF_FEATURES
from sslk.quality.failure_sources import FailureSources
from sslk.quality.score import QScores, qscore
from sslk.quality.settings import BootstrapSettings, DiscoverSettings, SignalSettings
from sslk.statistics.bootstrap import Interval, bootstrap_areas, percentile_interval
from sslk.statistics.partial import PartialCorrelations, partial_rank_correlations

NORM, CONFIDENCE = OF_FEATURES[0], "confidence"
KNOWN: tuple[tuple[str, ...], ...] = ((NORM,), (CONFIDENCE,), (NORM, CONFIDENCE))
"""What is taken as known: sets of scores beyond which Q-Score must tell something."""


class Areas:
    """AUROC of scores, and of their means and differences, on the same resamples.

    Args:
        scores: finite `[N]` by name.
        correct: bool `[N]`.
        bootstrap: resamples and seed.
    """

    def __init__(self, scores: Mapping[str, Tensor], correct: Tensor, bootstrap: BootstrapSettings) -> None:
        from sklearn.metrics import roc_auc_score

        self._values = {name: float(roc_auc_score(correct, values)) for name, values in scores.items()}
        self._drawn = {name: part[:, 0] for name, part in bootstrap_areas(dict(scores), correct, **vars(bootstrap)).items()}

    def of(self, *names: str) -> Interval:
        """The mean AUROC of scores."""
        value = sum(self._values[name] for name in names) / len(names)
        return percentile_interval(value, torch.stack([self._drawn[name] for name in names]).mean(0))

    def gain(self, first: str, second: str) -> Interval:
        """That of the first less that of the second."""
        return percentile_interval(self._values[first] - self._values[second], self._drawn[first] - self._drawn[second])

    def range(self, *names: str) -> tuple[float, float]:
        """The lowest and the highest of scores."""
        values = [self._values[name] for name in names]
        return min(values), max(values)


@dataclass(frozen=True)
class SubsetScores:
    """Of random subsets of as many features: the names of their scores, and what the sets of Q-Score are like on average.

    Attributes:
        features: D.
        qscore, norm: names, one for each subset that has a set of discriminative features.
        eps, mean_active, empty_share: means over these subsets; NaN without any.
    """

    features: int
    qscore: tuple[str, ...]
    norm: tuple[str, ...]
    eps: float
    mean_active: float
    empty_share: float


@dataclass(frozen=True, eq=False)
class Signal:
    """What Q-Score tells of one classifier's answers.

    Attributes:
        found: the discriminative features.
        scores: Q-Scores of the test samples.
        prediction: all scores as failure predictors, without curves of the sweeps.
        sweep: Q-Scores at every threshold of the grid; None where no feature is discriminative.
        subsets: of features, by size.
        areas: of all scores; those of the sweep by `at_eps(eps)`.
        partial: rank correlations with correctness, given nothing and each of `KNOWN`.
        nested: regressions on each of `KNOWN` with and without Q-Score.
        said: sentences on what was left out.
    """

    found: DiscriminativeFeatures
    scores: QScores
    prediction: FailurePrediction
    sweep: dict[float, QScores | None]
    subsets: list[SubsetScores]
    areas: Areas
    partial: PartialCorrelations
    nested: dict[tuple[str, ...], Combination]
    said: list[str]

    @property
    def names(self) -> list[str]:
        """Of the scores that are compared, Q-Score first."""
        return list(self.prediction.curves)


def at_eps(eps: float) -> str:
    """The name of the Q-Score at a threshold.

    >>> at_eps(2.0)
    'Q-Score at eps 2'
    """
    return f"{QSCORE} at eps {eps:g}"


def signal(
    train: FeatureStore,
    test: FeatureStore,
    outputs: ProbeOutputs,
    settings: SignalSettings = SignalSettings(),  # noqa: B008 (frozen)
    discovery: DiscoverSettings = DiscoverSettings(),  # noqa: B008
    bootstrap: BootstrapSettings = BootstrapSettings(),  # noqa: B008
    *,
    scores: Mapping[str, Tensor] | None = None,
    progress: Progress | None = None,
) -> Signal:
    """Measure what Q-Score tells of a classifier's answers, and what is left once norm and confidence are known.

    Args:
        train: store that sets are found on, and the training samples of the baselines.
        test: the samples that are scored.
        outputs: the classifier's answers, with logits.
        settings: thresholds, subsets, folds.
        discovery: of the set; its eps stands beside the grid, and is that of the subsets.
        bootstrap: of all intervals; its seed also draws the subsets.
        scores: of others, `[N]` by name in the order of the test store's rows; baselines too that need more than the stores.
        progress: called with what is done and to do.

    Raises:
        StoreError: the stores are of two models, or the outputs of other samples.
        ValueError: a setting is out of range, or all answers are right or wrong.
    """
    _check(settings)
    check_same_model(train.require(), test.require())
    found = discover(train, **vars(discovery), progress=progress)
    own = qscore(test, found, progress=progress)
    compared, said = FailureSources(train, scores=scores or {}).compared(test, progress)
    sweep = _over_eps(train, test, settings.grid, discovery, found.two_sided)
    subsets, drawn = _over_features(train, test, settings, replace(discovery, two_sided=found.two_sided), bootstrap.seed)
    swept = {at_eps(eps): part.scores for eps, part in sweep.items() if part is not None}
    # All scores at once, so that all are of the same samples; the sweeps are taken out of what is compared afterwards.
    whole = failure_prediction(own.scores, outputs, features=test, others={**compared, **swept, **drawn})
    extra = {*swept, *drawn}
    prediction = replace(whole, baselines={name: part for name, part in whole.baselines.items() if name not in extra})
    right = int(whole.correct.sum())
    rarer = min(right, len(whole.correct) - right)
    if rarer < 2:
        raise ValueError(f"answers must hold two right and two wrong samples, got {right} right of {len(whole.correct)}.")
    areas = Areas(whole.scores, whole.correct, bootstrap)
    known = {name: values for name, values in whole.scores.items() if name not in drawn}
    partial = partial_rank_correlations(known, whole.correct, [(), *KNOWN], **vars(bootstrap))
    nested = {
        names: combined(
            {name: whole.scores[name] for name in (QSCORE, *names)},
            whole.correct,
            QSCORE,
            folds=min(settings.folds, rarer),
            **vars(bootstrap),
        )
        for names in KNOWN
    }
    return Signal(found, own, prediction, sweep, subsets, areas, partial, nested, said)


def _check(settings: SignalSettings) -> None:
    if not all(0 < share < 1 for share in settings.shares):
        raise ValueError(f"shares must lie between 0 and 1, got {list(settings.shares)}.")
    if settings.draws < 1 or settings.rows < 1:
        raise ValueError(f"draws and rows must be at least 1, got {settings.draws} and {settings.rows}.")


def _over_eps(
    train: FeatureStore, test: FeatureStore, grid: Sequence[float], discovery: DiscoverSettings, two_sided: bool
) -> dict[float, QScores | None]:
    """Q-Scores at every threshold."""
    found: dict[float, QScores | None] = {}
    for eps in grid:
        chosen = replace(discovery, eps=eps, two_sided=two_sided)
        scores = None
        if eps < math.sqrt(train.num_features - 1):  # which no z-score exceeds
            scores = _scored(train, test, chosen)
        found[eps] = scores
    return found


def _scored(train: Any, test: Any, discovery: DiscoverSettings) -> QScores | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rows that are not finite were warned of already
        try:
            return qscore(test, discover(train, **vars(discovery)))
        except NoDiscriminativeFeatures:
            return None


def _over_features(
    train: FeatureStore, test: FeatureStore, settings: SignalSettings, discovery: DiscoverSettings, seed: int
) -> tuple[list[SubsetScores], dict[str, Tensor]]:
    """Q-Score and norm of random subsets of the features, each with a set of its own."""
    generator = torch.Generator().manual_seed(seed)
    width = train.num_features
    rows = torch.zeros(len(train), dtype=torch.bool)
    rows[torch.randperm(len(train), generator=generator)[: settings.rows]] = True
    subsets: list[SubsetScores] = []
    drawn: dict[str, Tensor] = {}
    for count in sorted({max(2, round(share * width)) for share in settings.shares}):
        parts: list[QScores] = []
        names = []
        for draw in range(settings.draws):
            columns = torch.randperm(width, generator=generator)[:count].sort().values
            name = f"{count} features, draw {draw}"
            tested = _columns(test, columns, torch.ones(len(test), dtype=torch.bool))
            try:
                scores = _scored(_columns(train, columns, rows), tested, discovery)
            except ValueError:  # no eps leaves few enough samples without an active feature
                scores = None
            if scores is not None:
                parts.append(scores)
                names.append(name)
                drawn[f"{QSCORE} of {name}"] = scores.scores
                drawn[f"{NORM} of {name}"] = tested.double().norm(dim=1)
        means = [
            sum(getattr(part, what) for part in parts) / len(parts) if parts else math.nan
            for what in ("eps", "mean_active", "empty_share")
        ]
        subsets.append(
            SubsetScores(count, tuple(f"{QSCORE} of {n}" for n in names), tuple(f"{NORM} of {n}" for n in names), *means)
        )
    return subsets, drawn


def _columns(store: FeatureStore, columns: Tensor, rows: Tensor) -> Tensor:
    """Some features of some rows, bool `[N]`."""
    parts, start = [], 0
    for batch in store.batches(4096):
        parts.append(batch.features[rows[start : start + len(batch.features)]][:, columns])
        start += len(batch.features)
    return torch.cat(parts)
