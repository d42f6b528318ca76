"""The active set in exact integer arithmetic: no rounding anywhere, so that ties are ties."""

from fractions import Fraction

import torch


def active_row(values: list[float], eps: float, two_sided: bool = False) -> list[bool]:
    """`x > mu + eps sigma` as `D x - S > eps sqrt(D Q - S^2)`, both sides squared, with S and Q the exact sums."""
    ratios = [v.as_integer_ratio() for v in values]
    denominator = max((d for _, d in ratios), default=1)  # powers of two: the largest is a multiple of the others
    x = [n * (denominator // d) for n, d in ratios]
    count, total = len(x), sum(x)
    squared = Fraction(eps) ** 2 * (count * sum(v * v for v in x) - total * total)
    numerator, scale = squared.numerator, squared.denominator
    return [bool((two_sided or count * v > total) and (count * v - total) ** 2 * scale > numerator) for v in x]


def active_set(h: torch.Tensor, eps: float, two_sided: bool = False) -> torch.Tensor:
    """L_i as a bool mask [N, D]; nothing is active in a row that is not finite."""
    rows = h.detach().cpu().double()
    mask = [active_row(r.tolist(), eps, two_sided) if r.isfinite().all() else [False] * len(r) for r in rows]
    return torch.tensor(mask, dtype=torch.bool).view(h.shape)
