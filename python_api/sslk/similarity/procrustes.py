"""Distances after the best rotation, from streamed products: orthogonal Procrustes and its angular form."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sslk.similarity.sources import two, varies


def overlap(products: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """`||X'Y||_* / (||X||_F ||Y||_F)`, in [0, 1], and its gradient by the products, for unit norms.

    Args:
        products: `[D_1, D_2]`, sum of centred products `X'Y`.
        left, right: `||X||_F^2` and `||Y||_F^2`, the traces of the own products.

    Returns:
        The overlap, and `U V'` `[D_1, D_2]` of the singular vectors.
    """
    u, s, v = torch.linalg.svd(products, full_matrices=False)
    # Directions without a singular value are arbitrary and have no part in the gradient.
    kept = s > s[0] * max(products.shape) * torch.finfo(s.dtype).eps
    return s.sum() / (left * right).sqrt(), u[:, kept] @ v[kept]


def overlap_influence(x: Tensor, y: Tensor, gradient: Tensor, value: float, left: float, right: float) -> Tensor:
    """Influence of every row on the overlap; `||C||_*` moves by `<U V', dC>`, the norms by their traces.

    Args:
        x, y: `[n, D_1]` and `[n, D_2]`, centred rows.
        gradient: `U V'` of `overlap`.
        value: the overlap.
        left, right: total variances of x and y, population.
    """
    scale = (left * right) ** 0.5
    return ((x @ gradient) * y).sum(1) / scale - value / 2 * (x.square().sum(1) / left + y.square().sum(1) / right)


def procrustes_distance(x: object, y: object) -> float:
    """Orthogonal Procrustes distance `2 - 2 ||X'Y||_*` of centred matrices of unit Frobenius norm (Ding et al. 2021).

    The squared Frobenius distance that is left after the best rotation or reflection of one of the two. Widths may differ:
    the narrower one counts as padded with zeros.

    Args:
        x, y: tensors or arrays `[N, D_1]` and `[N, D_2]` of the same samples.

    Returns:
        In [0, 2]: 0 for rotated, scaled and shifted copies; NaN for a constant.

    Raises:
        ValueError: the rows differ in number, or are not finite.

    >>> a = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    >>> round(procrustes_distance(a, 5 * a.flip(1) + 1), 9)
    0.0
    """
    return 2 - 2 * _overlap(x, y)


def angular_distance(x: object, y: object) -> float:
    """Angle `arccos ||X'Y||_*` between centred matrices of unit Frobenius norm after the best rotation, a metric.

    The shape metric of Williams et al. (2021), rotations and reflections allowed.

    Args:
        x, y: as for `procrustes_distance`.

    Returns:
        In [0, pi/2]; NaN for a constant.

    >>> a = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> round(angular_distance(a, a[:, :1]), 4), round(torch.pi / 4, 4)
    (0.7854, 0.7854)
    """
    return math.acos(_overlap(x, y))


def _overlap(x: object, y: object) -> float:
    a, b = (part.double() for part in two(x, y))
    if not (varies(a) and varies(b)):
        return torch.nan
    a, b = a - a.mean(0), b - b.mean(0)
    value, _ = overlap(a.T @ b, a.square().sum(), b.square().sum())
    return float(value.clamp(max=1))
