"""The numbers of a monitor: of rows of features, on their device."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from lightly.utils.debug import std_of_l2_normalized
from torch import Tensor

import ssl_kernels
from sslk.metrics import FeatureSpectrum, alignment, dead_features, effective_rank, rankme, uniformity
from sslk.probes.knn import knn_probe
from sslk.probes.settings import KnnSettings
from sslk.probes.usable import finite_rows
from sslk.quality.discovery import discover
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.quality.score import resolve_set
from sslk.training.monitor_settings import MonitorSettings

Values = dict[str, Tensor]
SPREAD = ("rankme", "effective_rank", "uniformity", "feature_std", "dead_share")
QSCORE = ("mean_qscore", "mean_active", "empty_share")


@dataclass
class QScoreSet:
    """The set S with which a curve of Q-Scores is computed: given, or found anew each time at one eps.

    Attributes:
        given: what `discover` returned, or a bool mask `[D]`; None finds the set of the rows themselves.
        eps, two_sided: of the settings; where they leave it open, of the first evaluation that finds a set.
    """

    given: DiscriminativeFeatures | Tensor | None
    eps: float | None
    two_sided: bool | None

    def values(self, rows: Tensor) -> Values:
        """`mean_qscore`, `mean_active` and `empty_share` of finite rows; NaN where no feature is discriminative."""
        if self.given is not None:
            mask, eps, two_sided = resolve_set(self.given, rows.shape[1], self.eps, self.two_sided)
        else:
            two_sided = bool((rows < 0).any()) if self.two_sided is None else self.two_sided
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found = discover(rows, "auto" if self.eps is None else self.eps, two_sided=two_sided)
            except ValueError:  # too few active features: a later evaluation may find some
                return dict.fromkeys(QSCORE, torch.full((), torch.nan))
            self.eps, self.two_sided = found.eps, two_sided
            mask, eps = found.mask, found.eps
        scores, active = ssl_kernels.qscore_counts(rows, mask.to(rows.device), eps, True, two_sided)
        found_values = scores.double().mean(), active.double().mean(), (scores == 0).double().mean()
        return dict(zip(QSCORE, found_values, strict=True))


def spread(rows: Tensor) -> Values:
    """How far finite rows `[N, D]` use their space: `rankme`, `effective_rank`, `uniformity`, `feature_std`, `dead_share`.

    RankMe and effective rank are not centred; `feature_std` is the mean standard deviation of the features of rows of
    length 1, `1 / sqrt(D)` where they are isotropic and 0 where they have collapsed (Chen and He, CVPR 2021).
    """
    if not len(rows):
        return dict.fromkeys(SPREAD, torch.full((), torch.nan))
    spectrum = FeatureSpectrum(rows.shape[1]).to(rows.device)
    spectrum.update(rows)
    values = spectrum.singular_values()  # of these rows: `compute` would add those of other processes
    variance, mean = torch.var_mean(rows.double(), 0, correction=0)
    found = (
        rankme(values),
        effective_rank(values),
        uniformity(rows),
        std_of_l2_normalized(rows),
        dead_features(mean, variance).double().mean(),
    )
    return dict(zip(SPREAD, found, strict=True))


def aligned(features: Tensor, second: Tensor) -> Tensor:
    """Alignment of two views of the same images, over the rows that have both."""
    both = finite_rows(features) & finite_rows(second)
    return alignment(features[both], second[both])


def neighbors(bank: tuple[Tensor, Tensor], queries: tuple[Tensor, Tensor], settings: MonitorSettings) -> Tensor:
    """Accuracy `[]` of the k-NN classifier; NaN where the bank holds fewer than k labelled rows or than two classes."""
    (x, y), (queried, wanted) = (_usable(*rows) for rows in (bank, queries))
    if len(x) <= settings.k or not len(queried) or len(y.unique()) < 2:
        return torch.full((), torch.nan)
    # The one validation row chooses nothing here, and is in the bank of the queries like all others.
    grid = KnnSettings((settings.k,), (settings.temperature,), validation_share=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.tensor(knn_probe((x, y), (queried, wanted), settings=grid, device=x.device).top1)


def _usable(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    kept = finite_rows(features) & (labels >= 0)
    return features[kept], labels[kept]
