"""How far two arms of further training are apart, paired over the samples both were evaluated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import ssl_kernels
from sslk.features.store import FeatureStore
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.source import answered_rows
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.quality.failure import failure_curves
from sslk.quality.score import qscore
from sslk.statistics.bootstrap import Interval, bootstrap_areas, mean_interval, percentile_interval
from sslk.training.finetune import OUTPUTS, SET


@dataclass(frozen=True)
class ArmDifference:
    """One arm less another, means over the runs, with 95 % bootstrap intervals over the evaluation samples.

    The intervals say how far a mean would move with other samples; how far it moves with another seed, only several
    runs can say: `by_run` has each run's difference of accuracies.

    Attributes:
        top1, auroc: of the probe and of Q-Score as its failure predictor, in [0, 1]; None without labels.
        mean_q, mean_active: of the Q-Scores and of `|L_i|`.
        by_run: the difference of top-1 in every run.
    """

    top1: Interval | None
    auroc: Interval | None
    mean_q: Interval
    mean_active: Interval
    by_run: list[float]


def arm_difference(
    runs: Sequence[Path], arm: str, reference: str = "baseline", *, resamples: int = 1000, seed: int = 0
) -> ArmDifference:
    """Compare two arms of one or several runs of `finetune` (seeds) on the same evaluation samples.

    Every sample's differences are averaged over the runs, then the samples are resampled; both arms' AUROC are taken
    on the same resamples.

    Args:
        runs: folders that `finetune` wrote, evaluated on the same samples.
        arm, reference: names of arms, or `before`.
        resamples, seed: of the bootstrap.

    Raises:
        ValueError: no runs, or their evaluation samples differ.
        StoreError, FileNotFoundError: an arm has not been evaluated.
    """
    if not runs:
        raise ValueError("runs must name at least one folder of `sslk train finetune`, got none.")
    pairs = [(_samples(run, arm), _samples(run, reference)) for run in runs]
    index = pairs[0][0].index
    if any(not torch.equal(side.index, index) for pair in pairs for side in pair):
        raise ValueError("runs must be evaluated on the same samples: give runs with the same test data.")

    def mean_change(name: str) -> Interval:
        changes = [getattr(first, name).double() - getattr(second, name).double() for first, second in pairs]
        return mean_interval(torch.stack(changes).mean(0), resamples, seed)

    if any(side.correct is None for pair in pairs for side in pair):
        return ArmDifference(None, None, mean_change("scores"), mean_change("active"), [])
    value, areas = 0.0, torch.zeros(resamples, dtype=torch.float64)
    for pair in pairs:
        for side, sign in zip(pair, (1, -1), strict=True):
            assert side.correct is not None
            value += sign * failure_curves(side.scores, side.correct).auroc / len(pairs)
            areas += sign * bootstrap_areas({"q": side.scores}, side.correct, resamples, seed)["q"][:, 0] / len(pairs)
    by_run = [
        float(first.correct.double().mean() - second.correct.double().mean())
        for first, second in pairs
        if first.correct is not None and second.correct is not None
    ]
    return ArmDifference(
        mean_change("correct"), percentile_interval(value, areas), mean_change("scores"), mean_change("active"), by_run
    )


@dataclass(frozen=True, eq=False)
class _Samples:
    index: Tensor
    scores: Tensor
    active: Tensor
    correct: Tensor | None


def _samples(run: Path, arm: str) -> _Samples:
    """What an arm of a run gave for each evaluation sample, with the set S of the start."""
    found, folder = DiscriminativeFeatures.load(run / SET), run / arm
    store = FeatureStore(folder / "test" if (folder / "test").exists() else folder / "train").require()
    active = [ssl_kernels.activation_counts(batch.features, found.eps, found.two_sided)[1] for batch in store.batches(4096)]
    index, counts = torch.cat([shard.indices for shard in store.shards()]), torch.cat(active)
    scores = qscore(store, found, further_trained=True).scores
    if not (folder / OUTPUTS).exists():
        return _Samples(index, scores, counts, None)
    outputs = ProbeOutputs.load(folder / OUTPUTS)
    rows = answered_rows(store, outputs)
    return _Samples(index[rows], scores[rows], counts[rows], outputs.correct)
