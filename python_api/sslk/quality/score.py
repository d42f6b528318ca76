"""Scores samples with Q-Score."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import ssl_kernels
from sslk.quality.discover import DiscriminativeFeatures, check_features, warn_if_unreachable


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
        raise TypeError(
            f"discriminative must be DiscriminativeFeatures or a bool tensor, got {type(discriminative).__name__}."
        )
    if mask.dtype != torch.bool or mask.ndim != 1:
        raise TypeError(f"discriminative must be a bool mask [D], got {mask.dtype} of shape {list(mask.shape)}.")
    if len(mask) != num_features:
        raise ValueError(
            f"discriminative was found for D={len(mask)} features but these have D={num_features}: "
            "it belongs to another model."
        )
    if not mask.any():
        raise ValueError("discriminative selects no feature.")
    return mask, 4.0 if eps is None else float(eps), bool(two_sided)


def qscore(
    features: Tensor,
    discriminative: DiscriminativeFeatures | Tensor,
    *,
    eps: float | None = None,
    normalize: bool = True,
    two_sided: bool | None = None,
) -> QScores:
    """Q-Score of every sample: the mean of `h_ij - mu_i` over its highly activating discriminative features.

    Equation (1) of Kalibhat et al. (AAAI 2024). For the bare, differentiable op see `ssl_kernels.qscore`.

    Args:
        features: representations `[N, D]`, floating point.
        discriminative: what `discover` returned, or a bool mask `[D]`.
        eps, two_sided: as stored in `discriminative` by default; 4.0 and False for a bare mask.
        normalize: divide rows by their L2 norm first.

    Raises:
        TypeError, ValueError: features or set of another shape or dtype, or a set of another D.

    Examples:
        >>> import torch, sslk
        >>> features = torch.relu(torch.randn(1000, 256, generator=torch.Generator().manual_seed(0)))
        >>> result = sslk.qscore(features, sslk.discover(features, eps="auto"))
        >>> tuple(result.scores.shape), result.eps
        ((1000,), 2.75)
    """
    features = check_features(features)
    mask, eps, two_sided = resolve_set(discriminative, features.shape[1], eps, two_sided)
    warn_if_unreachable(eps, features.shape[1])
    scores, active = ssl_kernels.qscore_counts(features, mask.to(features.device), eps, normalize, two_sided)
    return QScores(
        scores, eps, float(active.double().mean()), int(mask.sum()), float((scores == 0).double().mean())
    )  # fmt: skip
