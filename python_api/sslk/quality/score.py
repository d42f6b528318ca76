"""Scores samples with Q-Score."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

import ssl_kernels
from sslk.distributed import require_device
from sslk.features.store import FeatureStore
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.source import answered_rows
from sslk.progress import Progress
from sslk.quality.batches import Features, feature_batches, opened
from sslk.quality.belonging import check_set
from sslk.quality.discriminative import DiscriminativeFeatures, warn_if_unreachable
from sslk.statistics.bootstrap import Interval, mean_interval


@dataclass(frozen=True, eq=False)
class QScores:
    """Q-Scores of a set of samples and what is needed to read them.

    Attributes:
        scores: `[N]`, float32 (float64 for float64 features); 0 for empty sets, NaN for non-finite rows.
        active: `[N]`, int32, `|L_i|`, highly activating features of every sample; 0 for non-finite rows.
        eps: threshold in standard deviations.
        num_discriminative: `|S|`.
        empty_share: share of samples whose `L_i` holds no discriminative feature.
        nonfinite: samples that hold NaN or infinity; means and shares are over the others.
    """

    scores: Tensor
    active: Tensor
    eps: float
    num_discriminative: int
    empty_share: float
    nonfinite: int = 0

    @property
    def mean_active(self) -> float:
        """Mean `|L_i|`, highly activating features per sample."""
        return float(self._counted().mean())

    def mean_active_interval(self, resamples: int = 1000, seed: int = 0) -> Interval:
        """`mean_active` with its 95 % bootstrap interval over the samples."""
        return mean_interval(self._counted(), resamples, seed)

    def _counted(self) -> Tensor:
        return self.active[~self.scores.isnan()].double()

    def described(self) -> dict[str, int | float]:
        """What they are as a whole, by name."""
        return {
            "samples": len(self.scores),
            "mean_score": float(self.scores.nanmean()),
            "eps": self.eps,
            "discriminative": self.num_discriminative,
            "mean_active": self.mean_active,
            "empty_share": self.empty_share,
            **({"nonfinite": self.nonfinite} if self.nonfinite else {}),
        }

    def said(self) -> list[str]:
        """One sentence where samples are not finite; else none."""
        if not self.nonfinite:
            return []
        return [
            f"{self.nonfinite} of {len(self.scores)} rows {'is' if self.nonfinite == 1 else 'are'} not finite (NaN or "
            "infinity): their score is NaN, and means and shares are over the others."
        ]


def answered_scores(scores: QScores, answers: Tensor | ProbeOutputs, store: FeatureStore) -> tuple[Tensor, Tensor]:
    """The scores of a store that are numbers and have an answer, and whether it is right, bool.

    Args:
        scores: of the store's rows.
        answers: bool `[N]` for every row, or a probe's outputs, which may lack rows that are unlabelled or not finite.
        store: what was scored.

    Raises:
        StoreError, ValueError: the answers are of other samples.
    """
    values = scores.scores
    if isinstance(answers, ProbeOutputs):
        values, correct = values[answered_rows(store, answers)], answers.correct
    else:
        correct = answers
    if len(values) != len(correct):
        raise ValueError(f"correct must have an answer for each of {len(values)} rows, got {len(correct)}.")
    known = ~values.isnan()
    return values[known], correct[known]


def resolve_set(
    discriminative: DiscriminativeFeatures | Tensor, num_features: int, eps: float | None, two_sided: bool | None
) -> tuple[Tensor, float, bool]:
    """Mask, eps and sidedness from either form of the set; explicit values win over the set's own.

    Raises:
        TypeError, ValueError: the set is no bool mask, is empty, or belongs to a model with another D.
    """
    if isinstance(discriminative, DiscriminativeFeatures):
        mask = discriminative.mask
        eps = discriminative.eps if eps is None else eps
        two_sided = discriminative.two_sided if two_sided is None else two_sided
    elif isinstance(discriminative, Tensor):
        mask = discriminative
    else:
        raise TypeError(f"discriminative must be DiscriminativeFeatures or a bool tensor, got {type(discriminative).__name__}.")
    if mask.dtype != torch.bool or mask.ndim != 1:
        raise TypeError(f"discriminative must be a bool mask [D], got {mask.dtype} of shape {list(mask.shape)}.")
    if len(mask) != num_features:
        raise ValueError(
            f"discriminative was found for D={len(mask)} features but these have D={num_features}: it belongs to another model."
        )
    if not mask.any():
        raise ValueError("discriminative selects no feature.")
    return mask, 4.0 if eps is None else float(eps), bool(two_sided)


def qscore(
    features: Features,
    discriminative: DiscriminativeFeatures | Tensor,
    *,
    eps: float | None = None,
    normalize: bool = True,
    two_sided: bool | None = None,
    further_trained: bool = False,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> QScores:
    """Q-Score of every sample: the mean of `h_ij - mu_i` over its highly activating discriminative features.

    Equation (1) of Kalibhat et al. (AAAI 2024). For the bare, differentiable op see `ssl_kernels.qscore`.

    Args:
        features: representations `[N, D]`, floating point; or a feature store, or its folder, of any size: it is read
            once, only the scores are kept, in the order of the rows.
        discriminative: what `discover` returned, or a bool mask `[D]`.
        eps, two_sided: as stored in `discriminative` by default; for a bare mask 4.0, and where a store's model has
            signed features.
        normalize: divide rows by their L2 norm first.
        further_trained: the encoder of a store was trained further since the set was found: other weights are accepted.
        device: where a store is scored, the CPU by default; a matrix is scored where it is.
        progress: called with the rows of a store read and to read.

    Raises:
        StoreError: the store is incomplete or damaged, or the set belongs to another model.
        TypeError, ValueError: features or set of another shape or dtype, no row that is finite, or a set of another D or that
            is empty.

    Warns:
        UserWarning: rows that are not finite, whose score is NaN.

    Examples:
        >>> import torch, sslk
        >>> features = torch.relu(torch.randn(1000, 256, generator=torch.Generator().manual_seed(0)))
        >>> result = sslk.qscore(features, sslk.discover(features))
        >>> tuple(result.scores.shape), result.eps
        ((1000,), 2.75)
    """
    source = opened(features)
    if isinstance(source, Tensor):
        mask, eps, two_sided = resolve_set(discriminative, source.shape[1], eps, two_sided)
        warn_if_unreachable(eps, source.shape[1])
        scores, active = ssl_kernels.qscore_counts(source, mask.to(source.device), eps, normalize, two_sided)
    else:
        if two_sided is None and isinstance(discriminative, Tensor):
            two_sided = source.spec.signed
        if isinstance(discriminative, DiscriminativeFeatures):
            check_set(discriminative, source, further_trained=further_trained)
        mask, eps, two_sided = resolve_set(discriminative, source.num_features, eps, two_sided)
        warn_if_unreachable(eps, source.num_features)
        on = require_device(device or "cpu")
        on_device = mask.to(on)
        scores, active = torch.empty(len(source), dtype=torch.float32), torch.empty(len(source), dtype=torch.int32)
        done = 0
        for batch in feature_batches(source, on):
            part, counts = ssl_kernels.qscore_counts(batch, on_device, eps, normalize, two_sided)
            scores[done : done + len(part)], active[done : done + len(part)] = part, counts
            done += len(part)
            if progress is not None:
                progress(done, len(source), "scoring")
    missing = int(scores.isnan().sum())
    finite = len(scores) - missing
    if missing and not finite:
        raise ValueError(f"features must hold a row that is finite, got NaN or infinity in all {missing}.")
    empty = int((scores == 0).sum()) / finite if finite else math.nan
    found = QScores(scores, active, eps, int(mask.sum()), empty, missing)
    for sentence in found.said():
        warnings.warn(sentence, stacklevel=2)
    return found
