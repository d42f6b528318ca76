"""What further training changed: active features, Q-Scores and the probe's confidence, sample by sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import ssl_kernels
from sslk.features.manifest import StoreError
from sslk.features.store import FeatureStore
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.source import answered_rows
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.quality.score import qscore
from sslk.statistics.bootstrap import Interval, mean_interval

READ_ROWS = 4096


@dataclass(frozen=True, eq=False)
class Side:
    """One encoder on the test samples that both probes answered.

    Attributes:
        active: int `[N]`, `|L_i|`.
        qscore, confidence: `[N]`.
        correct: bool `[N]`.
    """

    active: Tensor
    qscore: Tensor
    confidence: Tensor
    correct: Tensor


@dataclass(frozen=True, eq=False)
class BeforeAfter:
    """Both sides, and the mean changes (after less before) with 95 % bootstrap intervals over the samples.

    Attributes:
        before, after: per sample.
        active, qscore, confidence, accuracy: mean changes.
        repaired, broken: samples that became correct and that became wrong.
    """

    before: Side
    after: Side
    active: Interval
    qscore: Interval
    confidence: Interval
    accuracy: Interval
    repaired: int
    broken: int


def before_after(
    before: FeatureStore,
    after: FeatureStore,
    before_outputs: ProbeOutputs,
    after_outputs: ProbeOutputs,
    discriminative: DiscriminativeFeatures,
    *,
    resamples: int = 1000,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> BeforeAfter:
    """Compare two encoders on the same samples (Kalibhat et al., figure A.10).

    Args:
        before, after: feature stores of one data set, with the same rows.
        before_outputs, after_outputs: probe outputs on them.
        discriminative: found on the encoder before further training, and kept fixed.
        resamples, seed: of the bootstrap.
        device: where the kernels run.

    Raises:
        StoreError: the stores hold other samples than each other or than the outputs.
        ValueError: the set was not found on the encoder before further training, or one has another D.
    """
    for store, outputs in ((before, before_outputs), (after, after_outputs)):
        answered_rows(store, outputs)
    if before.spec.data_hash != after.spec.data_hash or len(before) != len(after):
        raise StoreError(f"{after.path} does not hold the samples of {before.path}: extract both from one data set.")
    # A sample that is finite on one side alone has no change.
    common = before_outputs.index[torch.isin(before_outputs.index, after_outputs.index)]
    first, second = (
        _side(store, outputs, common, discriminative, device, further)
        for store, outputs, further in ((before, before_outputs, False), (after, after_outputs, True))
    )

    def change(name: str) -> Interval:
        return mean_interval(getattr(second, name).double() - getattr(first, name).double(), resamples, seed)

    return BeforeAfter(
        first,
        second,
        change("active"),
        change("qscore"),
        change("confidence"),
        change("correct"),
        int((~first.correct & second.correct).sum()),
        int((first.correct & ~second.correct).sum()),
    )


def _side(
    store: FeatureStore,
    outputs: ProbeOutputs,
    samples: Tensor,
    found: DiscriminativeFeatures,
    device: str | torch.device,
    further_trained: bool,
) -> Side:
    answers = torch.isin(outputs.index, samples)
    rows = answered_rows(store, outputs)[answers]
    scores = qscore(store, found, device=device, further_trained=further_trained).scores
    active = torch.cat(
        [
            ssl_kernels.activation_counts(batch.features.to(device), found.eps, found.two_sided)[1].cpu()
            for batch in store.batches(READ_ROWS)
        ]
    )
    return Side(active[rows], scores[rows], outputs.confidence[answers], outputs.correct[answers])
