"""Ablations: the two-stage search for the regulariser's weights, and sweeps of eps and the percentiles."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

import ssl_kernels
from sslk.features.store import FeatureStore
from sslk.files.text import read_json
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.usable import finite_rows
from sslk.progress import Progress
from sslk.quality.discriminative import DiscriminativeFeatures, NoDiscriminativeFeatures
from sslk.quality.failure import failure_curves
from sslk.quality.score import answered_scores, qscore
from sslk.quality.settings import LAMBDAS
from sslk.results.atomic import write_atomically


class Train(Protocol):
    """Trains an encoder further with the Q-Score regulariser and says how good it is."""

    def __call__(self, lambda1: float, lambda2: float, seed: int) -> float:
        """Accuracy in [0, 1] of a probe on validation data, never on test data."""
        ...


@dataclass(frozen=True)
class LambdaTrial:
    """One training: stage 1 varies lambda1 at lambda2 = 0, stage 2 lambda2 at the best lambda1."""

    stage: int
    lambda1: float
    lambda2: float
    seed: int
    accuracy: float


@dataclass(frozen=True)
class LambdaSearch:
    """The result of `search_lambdas`: the pair with the best mean accuracy, and all trials."""

    lambda1: float
    lambda2: float
    trials: list[LambdaTrial]

    def curve(self, stage: int) -> list[tuple[float, list[float]]]:
        """(lambda, accuracy of every seed) of one stage, in the order tried."""
        values = dict.fromkeys(t.lambda1 if stage == 1 else t.lambda2 for t in self.trials if t.stage == stage)
        return [
            (value, [t.accuracy for t in self.trials if t.stage == stage and value == (t.lambda1, t.lambda2)[stage - 1]])
            for value in values
        ]


def search_lambdas(
    train: Train,
    *,
    lambda1: Sequence[float] = LAMBDAS,
    lambda2: Sequence[float] = LAMBDAS,
    seeds: Sequence[int] = (0,),
    journal: Path | None = None,
    progress: Progress | None = None,
) -> LambdaSearch:
    """The paper's search order (figure A.8): raise lambda1 at lambda2 = 0, fix the best, then search lambda2.

    Args:
        train: `train(lambda1, lambda2, seed)` trains further and returns the accuracy of a probe on validation data.
        lambda1, lambda2: values to try, not negative.
        seeds: every pair is trained with each; means decide, the smaller lambda wins a tie.
        journal: JSON file of finished trainings. An interrupted search goes on from it.
        progress: called with the trainings done and to do.

    Raises:
        ValueError: a lambda is negative, nothing to try, the journal is damaged, or train returns no accuracy.

    Examples:
        >>> def train(lambda1, lambda2, seed):  # stands for hours of training
        ...     return 0.7 - (lambda1 - 1e-3) ** 2 - (lambda2 - 1e-4) ** 2
        >>> found = search_lambdas(train, lambda1=[0, 1e-3, 1e-2], lambda2=[0, 1e-4, 1e-2])
        >>> found.lambda1, found.lambda2, len(found.trials)
        (0.001, 0.0001, 6)
    """
    for name, values in (("lambda1", lambda1), ("lambda2", lambda2), ("seeds", seeds)):
        if not values or min(values) < 0:
            raise ValueError(f"{name} must hold values that are not negative, got {list(values)}.")
    finished = _read_journal(journal)
    total = (len(lambda1) + len(lambda2)) * len(seeds)
    trials: list[LambdaTrial] = []

    def run(stage: int, first: float, second: float) -> float:
        accuracies = []
        for seed in seeds:
            key = (float(first), float(second), seed)
            # The pair (best lambda1, 0) belongs to both stages and is trained once.
            if key not in finished:
                accuracy = float(train(float(first), float(second), seed))
                if not 0 <= accuracy <= 1:
                    raise ValueError(f"train must return an accuracy in [0, 1], got {accuracy} at lambdas {key[:2]}.")
                finished[key] = accuracy
                if journal is not None:
                    rows = [[*pair, value] for pair, value in finished.items()]
                    write_atomically(journal, json.dumps(rows).encode())
            trials.append(LambdaTrial(stage, *key, finished[key]))
            accuracies.append(finished[key])
            if progress is not None:
                progress(len(trials), total, "training")
        return sum(accuracies) / len(accuracies)

    best1 = max((run(1, value, 0.0), -value) for value in lambda1)[1]
    best2 = max((run(2, -best1, value), -value) for value in lambda2)[1]
    return LambdaSearch(float(-best1) + 0.0, float(-best2) + 0.0, trials)


def _read_journal(journal: Path | None) -> dict[tuple[float, float, int], float]:
    if journal is None or not journal.exists():
        return {}
    content = read_json(journal, "journal")
    try:
        found = {(float(a), float(b), int(seed)): float(value) for a, b, seed, value in content}
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"journal {journal} is damaged: {str(error)[:200]}; delete it to begin anew.") from error
    for (first, second, _), value in found.items():
        if not (0 <= value <= 1 and math.isfinite(first) and math.isfinite(second)):
            raise ValueError(f"journal {journal} is damaged: it has the accuracy {value}; delete it to begin anew.")
    return found


@dataclass(frozen=True)
class SweepPoint:
    """Failure prediction at one eps and percentile band; the AUROC is None where all scores are alike or no set is."""

    eps: float
    lower: float
    upper: float
    num_discriminative: int
    mean_active: float
    empty_share: float
    auroc: float | None
    auprc: float | None

    def row(self) -> list[float | int | None]:
        """Its values, for a table."""
        return list(asdict(self).values())


def sweep_thresholds(
    train: FeatureStore,
    test: FeatureStore,
    correct: Tensor | ProbeOutputs,
    *,
    eps: Sequence[float] = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0),
    bands: Sequence[tuple[float, float]] = ((50.0, 95.0),),
    two_sided: bool | None = None,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> list[SweepPoint]:
    """AUROC of Q-Score over thresholds and percentiles of the activation percentages.

    Activations are counted once per eps, whatever the number of bands.

    Args:
        train: store the discriminative features are found on.
        test: store whose samples are scored.
        correct: bool `[N]`, whether a classifier was right on the test store's rows; or its outputs.
        eps: thresholds in standard deviations.
        bands: (lower, upper) percentiles.
        two_sided: where the features are signed by default.
        device: where the kernels run.
        progress: called with the points done and to do.

    Raises:
        StoreError, ValueError: as for `discover` and `qscore`.
    """
    two_sided = train.spec.signed if two_sided is None else two_sided
    points = []
    for value in eps:
        counts, finite = _counts(train, value, two_sided, device)
        active = float(counts.sum()) / finite
        for lower, upper in bands:
            try:
                found = DiscriminativeFeatures.from_counts(
                    counts, finite, eps=value, lower=lower, upper=upper, two_sided=two_sided
                )
            except NoDiscriminativeFeatures:
                points.append(SweepPoint(value, lower, upper, 0, active, 1.0, None, None))
                continue
            scores = qscore(test, found, device=device)
            known, right = answered_scores(scores, correct, test)
            same = bool((known == known[0]).all())
            curves = None if same else failure_curves(known, right)
            points.append(
                SweepPoint(
                    value,
                    lower,
                    upper,
                    found.num_discriminative,
                    active,
                    scores.empty_share,
                    curves.auroc if curves else None,
                    curves.auprc if curves else None,
                )
            )
            if progress is not None:
                progress(len(points), len(eps) * len(bands), "sweeping")
    return points


def _counts(store: FeatureStore, eps: float, two_sided: bool, device: str | torch.device) -> tuple[Tensor, int]:
    """How often each feature is highly activating, and how many rows are finite."""
    counts, finite = torch.zeros(store.num_features, dtype=torch.int64), 0
    for batch in store.batches(4096):
        counts += ssl_kernels.activation_counts(batch.features.to(device), eps, two_sided)[0].cpu()
        finite += int(finite_rows(batch.features).sum())
    return counts, finite
