"""One-sided against two-sided Q-Score for signed features, at the same mean number of active features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import ssl_kernels
from sslk.features.store import FeatureStore
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.usable import finite_rows
from sslk.progress import Progress
from sslk.quality.discovery import discover
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.quality.failure import FailureCurves, failure_curves
from sslk.quality.score import QScores, answered_scores, qscore
from sslk.quality.settings import BootstrapSettings, DiscoverSettings
from sslk.statistics.bootstrap import Interval, bootstrap_areas, percentile_interval

BINS_PER_UNIT = 1000
READ_ROWS = 4096


@dataclass(frozen=True, eq=False)
class Sidedness:
    """Failure prediction with one-sided and two-sided sets at matched mean `|L_i|`.

    Attributes:
        one_sided, two_sided: the discriminative features.
        scores: Q-Scores of the test store by side, `one-sided` and `two-sided`.
        curves: AUROC and AUPRC by side.
        auroc: with 95 % bootstrap intervals, by side.
        gain: AUROC two-sided less one-sided, on the same resamples.
        negative_share: share of the features of the train store that are negative.
    """

    one_sided: DiscriminativeFeatures
    two_sided: DiscriminativeFeatures
    scores: dict[str, QScores]
    curves: dict[str, FailureCurves]
    auroc: dict[str, Interval]
    gain: Interval
    negative_share: float


def matching_eps(features: Iterator[Tensor], mean_active: float, *, two_sided: bool = True) -> float:
    """The threshold, in standard deviations, at which rows have `mean_active` highly activating features on average.

    One pass: z-scores are counted in bins of 0.001, so the mean is met to what one bin holds.

    Args:
        features: batches `[n, D]`; rows that are not finite are left out.
        mean_active: wanted mean `|L_i|`, positive and below D.
        two_sided: count `|h_ij - mu_i| > eps sigma_i`.

    Raises:
        ValueError: mean_active cannot be reached with a positive threshold.

    >>> h = torch.randn(2000, 100, generator=torch.Generator().manual_seed(0))
    >>> round(matching_eps(iter([h]), 4.55), 2)  # two standard deviations leave 4.55 % of a normal distribution
    1.99
    """
    counts = torch.zeros(1, dtype=torch.float64)
    rows = width = 0
    for batch in features:
        h = batch[finite_rows(batch)]
        x = h.double()
        z = (x - x.mean(1, keepdim=True)) / x.std(1, correction=0, keepdim=True).clamp(min=1e-30)
        z = z.abs() if two_sided else z[z > 0]
        found = torch.bincount((z.flatten() * BINS_PER_UNIT).long(), minlength=len(counts)).double()
        found[: len(counts)] += counts
        counts, rows, width = found, rows + len(h), h.shape[1]
    above = counts.flip(0).cumsum(0).flip(0) / max(rows, 1)  # mean number of z-scores at or above the bin
    if not 0 < mean_active <= float(above[0]):
        raise ValueError(
            f"mean_active must lie between 0 and {float(above[0]):.1f}, the features of D = {width} that deviate, "
            f"got {mean_active:g}."
        )
    return int((above >= mean_active).nonzero()[-1]) / BINS_PER_UNIT


def compare_sides(
    train: FeatureStore,
    test: FeatureStore,
    correct: Tensor | ProbeOutputs,
    settings: DiscoverSettings = DiscoverSettings(),  # noqa: B008 (frozen)
    bootstrap: BootstrapSettings = BootstrapSettings(),  # noqa: B008
    *,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> Sidedness:
    """Discover and score twice, one-sided and two-sided, and compare how well each predicts failures.

    The two-sided threshold is chosen so that the mean `|L_i|` on the training features equals the one-sided one: the
    comparison is then of the sides and not of the sizes of the sets. (The paper leaves signed features to future work.)

    Args:
        train: store the discriminative features are found on.
        test: store whose samples are scored.
        correct: bool `[N]`, whether a classifier was right, in the order of the test store's rows; or its outputs.
        settings: of the one-sided set, `two_sided` not given.
        bootstrap: of the intervals.
        device: where the kernels run.
        progress: called after each of the four passes.

    Raises:
        StoreError, ValueError: as for `discover`, `qscore` and `failure_curves`; or `two_sided` is given.
    """
    if settings.two_sided is not None:
        raise ValueError(f"two_sided must not be given, as both sides are compared, got {settings.two_sided}.")

    def report(done: int) -> None:
        if progress is not None:
            progress(done, 4, "comparing sides")

    one = discover(train, settings.eps, settings.lower, settings.upper, two_sided=False, device=device)
    report(1)
    matched = matching_eps(_batches(train), one.mean_active)
    report(2)
    two = discover(train, matched, settings.lower, settings.upper, two_sided=True, device=device)
    report(3)
    scores = {"one-sided": qscore(test, one, device=device), "two-sided": qscore(test, two, device=device)}
    answered = {side: answered_scores(found, correct, test) for side, found in scores.items()}
    known = {side: values for side, (values, _) in answered.items()}
    right = answered["one-sided"][1]  # rows that are not finite have no score on either side
    curves = {side: failure_curves(values, right) for side, values in known.items()}
    areas = bootstrap_areas(known, right, **vars(bootstrap))
    auroc = {side: percentile_interval(curves[side].auroc, areas[side][:, 0]) for side in scores}
    gain = percentile_interval(
        curves["two-sided"].auroc - curves["one-sided"].auroc, areas["two-sided"][:, 0] - areas["one-sided"][:, 0]
    )
    negative = sum(float((batch[finite_rows(batch)] < 0).sum()) for batch in _batches(train))
    negative /= one.num_samples * train.num_features
    report(4)
    return Sidedness(one, two, scores, curves, auroc, gain, negative)


def mean_active(features: Tensor, eps: float, two_sided: bool) -> float:
    """Mean `|L_i|` of `[N, D]`.

    >>> mean_active(torch.eye(4, 32), 4.0, False)
    1.0
    """
    return float(ssl_kernels.activation_counts(features, eps, two_sided)[1].double().mean())


def _batches(store: FeatureStore) -> Iterator[Tensor]:
    return (batch.features for batch in store.batches(READ_ROWS))
