"""Concepts near a feature: point-biserial correlation and AUROC of its values with concepts that images have or lack."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata


def concept_scores(features: np.ndarray, concepts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Point-biserial correlation and AUROC of every feature with every concept.

    The point-biserial correlation is Pearson's of the values with 0 and 1. AUROC is the probability that an image with
    the concept has the larger value, ties counting half (Mann-Whitney).

    Args:
        features: `[N, F]`.
        concepts: bool `[N, M]`.

    Returns:
        Two float64 arrays `[F, M]`, NaN where a concept is on all images or none, or a feature is constant.

    >>> correlation, auroc = concept_scores(np.array([[0.1], [0.2], [0.9]]), np.array([[False], [False], [True]]))
    >>> round(float(correlation[0, 0]), 3), float(auroc[0, 0])
    (0.993, 1.0)
    """
    x, y = np.asarray(features, np.float64), np.asarray(concepts, np.float64)
    n, have = len(y), y.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        dx, dy = x - x.mean(0), y - y.mean(0)
        scale = np.sqrt(np.outer((dx**2).sum(0), (dy**2).sum(0)))
        correlation = np.where(scale > 0, dx.T @ dy / scale, np.nan)
        ranks = rankdata(x, axis=0)
        auroc = (ranks.T @ y - have * (have + 1) / 2) / (have * (n - have))
    constant = (x == x[:1]).all(0)[:, None] | (have == 0) | (have == n)
    return np.where(constant, np.nan, correlation), np.where(constant, np.nan, auroc)
