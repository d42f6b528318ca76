"""Representational similarity analysis: do two representations find the same pairs of samples unlike?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sslk.similarity.settings import Correlation, Dissimilarity
from sslk.similarity.sources import two


def dissimilarities(x: Tensor, how: Dissimilarity = "correlation") -> Tensor:
    """The dissimilarities of all pairs of rows, the upper triangle, float64 `[N (N - 1) / 2]`.

    Args:
        x: `[N, D]`.
        how: correlation, 1 - Pearson's correlation of two rows' features (a row whose features are all equal has
            correlation 0 with every other); or euclidean.
    """
    x = x.double()
    if how == "euclidean":
        return torch.pdist(x - x.mean(0))
    rows = x - x.mean(1, keepdim=True)
    level = x.abs().amax(1, keepdim=True) * 1e-12  # what is left of equal features is rounding
    rows = F.normalize(rows * (rows.abs().amax(1, keepdim=True) > level))
    upper = torch.triu_indices(len(x), len(x), 1).unbind()
    return 1 - (rows @ rows.T)[upper]


def standard(pairs: Tensor, how: Correlation) -> Tensor:
    """Dissimilarities whose sum of products with another's is their correlation: ranked and centred as it asks, of norm 1.

    NaN where they are all equal.
    """
    if how == "spearman":
        from scipy.stats import rankdata

        # Equal dissimilarities come out of a matrix product with other last digits, and would be ranked by them.
        step = float(pairs.abs().max()) * 1e-11
        pairs = torch.from_numpy(rankdata((pairs / step).round().numpy() if step > 0 else pairs.numpy()))
    if how != "cosine":
        pairs = pairs - pairs.mean()
    norm = pairs.norm()
    return pairs / norm if norm > 1e-10 * len(pairs) ** 0.5 else torch.full_like(pairs, torch.nan)


def square(pairs: Tensor, rows: int) -> Tensor:
    """The upper triangle as a symmetric matrix `[N, N]` with a diagonal of 0."""
    found = pairs.new_zeros(rows, rows)
    found[torch.triu_indices(rows, rows, 1).unbind()] = pairs
    return found + found.T


def rsa(x: object, y: object, dissimilarity: Dissimilarity = "correlation", correlation: Correlation = "spearman") -> float:
    """Correlation of the dissimilarities that two representations see between all pairs of samples (Kriegeskorte et al. 2008).

    Args:
        x, y: tensors or arrays `[N, D_1]` and `[N, D_2]` of the same samples; `8 N^2` bytes are held.
        dissimilarity: 1 - Pearson's correlation of two samples' features, or the Euclidean distance.
        correlation: of the two upper triangles: Spearman's (equal values share their mean rank), Pearson's, or the cosine.

    Returns:
        In [-1, 1]; independent representations score about 0 (with the cosine far above). NaN where all dissimilarities of
        one are equal.

    Raises:
        ValueError: the rows differ in number, are not finite, or are fewer than 3.

    >>> a = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    >>> round(rsa(a, a.flip(1) * 3 + 1), 9)
    1.0
    """
    a, b = two(x, y)
    if len(a) < 3:
        raise ValueError(f"x and y must hold at least 3 samples, got {len(a)}.")
    left, right = (standard(dissimilarities(part, dissimilarity), correlation) for part in (a, b))
    return float(left @ right)


def pair_influence(a: Tensor, b: Tensor, value: float, how: Correlation) -> Tensor:
    """Influence of every pair of samples on the correlation, `[P]`, up to a constant.

    Of Pearson's correlation and the cosine `a b - r (a^2 + b^2) / 2` of standardised values; of Spearman's, that of the
    correlation of grades: the product of the pair's own grades, and how much it moves the grades of all others.

    Args:
        a, b: of `standard`.
        value: their sum of products.
        how: which correlation.
    """
    scale = len(a) ** 0.5
    if how != "spearman":
        return scale**2 * (a * b - value / 2 * (a.square() + b.square()))
    # Centred grades have standard deviation 1 / sqrt(12) without ties.
    f, g = a * scale / 12**0.5, b * scale / 12**0.5
    return 12 * (f * g + _above(f, g) + _above(g, f))


def _above(f: Tensor, g: Tensor) -> Tensor:
    """Mean of `1{f' >= f} g'` over all pairs, at every pair."""
    order = f.argsort(descending=True)
    found = torch.empty_like(f)
    found[order] = g[order].cumsum(0) / len(f)
    return found
