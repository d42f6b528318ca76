"""What further training changed: active features, Q-Scores and the probe's confidence, sample by sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import ssl_kernels
from sslk.features.manifest import StoreError
from sslk.features.store import FeatureStore
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.source import require_same_rows
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.quality.score import qscore
from sslk.statistics.bootstrap import Interval, mean_interval

READ_ROWS = 4096


@dataclass(frozen=True, eq=False)
class Side:
    """One encoder on the test samples: `active` int `[N]` (`|L_i|`), `qscore` `[N]`, `confidence` and `correct` `[N]`."""

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
    sides = [
        _side(store, outputs, discriminative, device, further)
        for store, outputs, further in ((before, before_outputs, False), (after, after_outputs, True))
    ]
    if before.spec.data_hash != after.spec.data_hash or not torch.equal(before_outputs.index, after_outputs.index):
        raise StoreError(f"{after.path} does not hold the samples of {before.path}: extract both from one data set.")
    first, second = sides

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
    store: FeatureStore, outputs: ProbeOutputs, found: DiscriminativeFeatures, device: str | torch.device, further_trained: bool
) -> Side:
    require_same_rows(store, outputs)
    scores = qscore(store, found, device=device, further_trained=further_trained).scores
    active = torch.cat(
        [
            ssl_kernels.activation_counts(batch.features.to(device), found.eps, found.two_sided)[1].cpu()
            for batch in store.batches(READ_ROWS)
        ]
    )
    return Side(active, scores, outputs.confidence, outputs.correct)
