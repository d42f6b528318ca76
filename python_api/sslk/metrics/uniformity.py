"""Uniformity over all pairs of rows without a matrix of pairs, and alignment of two views (Wang and Isola 2020)."""

import math

import torch
from torch import Tensor

_BLOCK = 4096  # rows that are divided by their lengths at a time


def unit_rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy of `[N, D]` with rows of length 1; a row of zeros stays, and no length over- or underflows."""
    unit = torch.empty(x.shape, dtype=dtype, device=x.device)
    for block, target in zip(x.detach().split(_BLOCK), unit.split(_BLOCK), strict=True) if len(x) else ():
        # In the wider of the two types: `div` would round to the type of the rows whatever it writes to.
        wide = block.to(torch.promote_types(block.dtype, dtype))
        largest = wide.abs().amax(1, keepdim=True)
        torch.div(wide, torch.where(largest > 0, largest, 1), out=target)
        length = torch.linalg.vector_norm(target, dim=1, keepdim=True)
        target /= torch.where(length > 0, length, 1)
    return unit


def uniformity(x: Tensor, t: float = 2.0, normalize: bool = True, tile: int | None = None) -> Tensor:
    """Uniformity: `log mean_{i<j} exp(-t ||x_i - x_j||^2)` over all pairs of rows (Wang and Isola, ICML 2020).

    Low is uniform: about -2t for rows in all directions alike, 0 where all rows are equal. All pairs are taken, `tile x tile`
    of them at a time, on and above the diagonal; one tile and one copy of the rows are kept.

    Args:
        x: `[N, D]`. Products in float32 (float64 for float64), sums in float64.
        t: positive.
        normalize: divide every row by its length first, as the paper's representations are; a row of zeros stays.
        tile: rows of a tile; by default 1,024 on a CPU and 8,192 elsewhere.

    Returns:
        float64 scalar; NaN below two rows, or where a row is not finite.

    Raises:
        ValueError: x is not floating-point `[N, D]`, or t or the tile is not positive.

    Examples:
        >>> round(uniformity(torch.eye(3)).item(), 6), abs(round(uniformity(torch.ones(5, 2)).item(), 6))
        (-4.0, 0.0)
    """
    if x.dim() != 2 or not x.is_floating_point():
        raise ValueError(f"x must be floating-point [N, D], got {x.dtype} {list(x.shape)}.")
    tile = tile if tile is not None else 1024 if x.device.type == "cpu" else 8192
    if t <= 0 or tile < 1:
        raise ValueError(f"t and tile must be positive, got {t} and {tile}.")
    n, dtype = len(x), torch.float64 if x.dtype == torch.float64 else torch.float32
    if n < 2:
        return x.new_tensor(torch.nan, dtype=torch.float64)
    rows = unit_rows(x, dtype) if normalize else x.detach().to(dtype, copy=True)
    squares = torch.stack([block.square().sum(1).max() for block in rows.split(_BLOCK)]).max()
    # The smallest exponent there can be: where its exponential cannot underflow, the plain sum is safe, and faster.
    plain = bool(-4 * t * squares > -60)
    rows *= (2 * t) ** 0.5
    bias = torch.cat([block.square().sum(1) for block in rows.split(_BLOCK)]) / -2
    buffer = rows.new_empty(min(tile, n) ** 2)
    total = rows.new_tensor(0.0 if plain else -torch.inf, dtype=torch.float64)
    for top in range(0, n, tile):
        a = rows[top : top + tile]
        for left in range(top, n, tile):
            b = rows[left : left + tile]
            exponent = buffer[: len(a) * len(b)].view(len(a), len(b))
            # -t ||x_i||^2 - t ||x_j||^2 + 2t x_i.x_j
            torch.add(bias[top : top + tile, None], bias[left : left + tile], out=exponent)
            exponent.addmm_(a, b.T)
            if top == left:
                exponent.fill_diagonal_(-torch.inf)
            half = 0.5 if top == left else 1.0  # the diagonal tile holds every pair twice
            if plain:
                total += half * exponent.exp_().sum(1).double().sum()
            else:
                total = torch.logaddexp(total, torch.logsumexp(exponent.logsumexp(1).double(), 0) + math.log(half))
    return (total.log() if plain else total) - math.log(n * (n - 1) / 2)


def alignment(x: Tensor, y: Tensor, alpha: float = 2.0, normalize: bool = True) -> Tensor:
    """Alignment: `mean_i ||x_i - y_i||^alpha` of two views of the same samples (Wang and Isola, ICML 2020). Low is aligned.

    Args:
        x, y: `[N, D]`.
        alpha: positive.
        normalize: divide every row by its length first.

    Returns:
        float64 scalar; NaN without rows.

    Raises:
        ValueError: the two are not floating-point of one shape `[N, D]`, or alpha is not positive.

    Examples:
        >>> alignment(torch.eye(2), -torch.eye(2)).item()
        4.0
    """
    if x.dim() != 2 or x.shape != y.shape or not (x.is_floating_point() and y.is_floating_point()):
        raise ValueError(
            f"x and y must be floating-point of one shape [N, D], got {x.dtype} {list(x.shape)} and {y.dtype} {list(y.shape)}."
        )
    if alpha <= 0:
        raise ValueError(f"alpha must be positive, got {alpha}.")
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for a, b in zip(x.detach().split(_BLOCK), y.detach().split(_BLOCK), strict=True):
        a, b = (unit_rows(v, torch.float64) if normalize else v.double() for v in (a, b))
        total += torch.linalg.vector_norm(a - b, dim=1).pow(alpha).sum()
    return total / len(x)
