"""Scores samples with Q-Score."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import ssl_kernels
from sslk.progress import Progress
from sslk.quality.batches import Features, feature_batches, opened
from sslk.quality.belonging import check_set
from sslk.quality.discriminative import DiscriminativeFeatures, warn_if_unreachable


@dataclass(frozen=True, eq=False)
class QScores:
    """Q-Scores of a set of samples and what is needed to read them.

    Attributes:
        scores: `[N]`, float32 (float64 for float64 features); 0 for empty sets, NaN for non-finite rows.
        eps: threshold in standard deviations.
        mean_active: mean `|L_i|`, highly activating features per sample.
        num_discriminative: `|S|`.
        empty_share: share of samples whose `L_i` holds no discriminative feature.
    """

    scores: Tensor
    eps: float
    mean_active: float
    num_discriminative: int
    empty_share: float

    def described(self) -> dict[str, int | float]:
        """What they are as a whole, by name."""
        return {
            "samples": len(self.scores),
            "mean_score": float(self.scores.nanmean()),
            "eps": self.eps,
            "discriminative": self.num_discriminative,
            "mean_active": self.mean_active,
            "empty_share": self.empty_share,
        }


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
        TypeError, ValueError: features or set of another shape or dtype, or a set of another D or that is empty.

    Examples:
        >>> import torch, sslk
        >>> features = torch.relu(torch.randn(1000, 256, generator=torch.Generator().manual_seed(0)))
        >>> result = sslk.qscore(features, sslk.discover(features, eps="auto"))
        >>> tuple(result.scores.shape), result.eps
        ((1000,), 2.75)
    """
    source = opened(features)
    if isinstance(source, Tensor):
        mask, eps, two_sided = resolve_set(discriminative, source.shape[1], eps, two_sided)
        warn_if_unreachable(eps, source.shape[1])
        scores, active = ssl_kernels.qscore_counts(source, mask.to(source.device), eps, normalize, two_sided)
        mean = float(active.double().mean())
    else:
        if two_sided is None and isinstance(discriminative, Tensor):
            two_sided = source.spec.signed
        if isinstance(discriminative, DiscriminativeFeatures):
            check_set(discriminative, source, further_trained=further_trained)
        mask, eps, two_sided = resolve_set(discriminative, source.num_features, eps, two_sided)
        warn_if_unreachable(eps, source.num_features)
        on = torch.device(device or "cpu")
        on_device = mask.to(on)
        scores, counted, done = torch.empty(len(source), dtype=torch.float32), 0, 0
        for batch in feature_batches(source, on):
            part, per_row = ssl_kernels.qscore_counts(batch, on_device, eps, normalize, two_sided)
            scores[done : done + len(part)] = part
            counted += int(per_row.sum())
            done += len(part)
            if progress is not None:
                progress(done, len(source), "scoring")
        mean = counted / len(source)
    return QScores(scores, eps, mean, int(mask.sum()), float((scores == 0).double().mean()))
