"""Features turned into their own principal axes: the same regression, with a Hessian that is nearly diagonal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sslk.probes.rows import Rows

AXES_ROWS = 20_000  # the axes need not be exact: of more rows a part finds them
BLOCK_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class RotatedRows:
    """Rows in the axes of their covariance. `z = (x - center) basis` keeps distances, so that the penalty is the same number.

    Attributes:
        z: `[N, R + 1]`, the last column one; R = min(N, D) at most, as the best weights lie in the span of the rows.
        spread: float64 `[R + 1]`, mean square of every column.
        basis: `[D, R]`, orthonormal columns.
        center: `[D]`.
    """

    z: Tensor
    spread: Tensor
    basis: Tensor
    center: Tensor

    def unrotated(self, position: Tensor) -> Tensor:
        """Classifiers `[..., D + 1]` of the rows before from classifiers `[..., R + 1]` of `z`."""
        weight = position[..., :-1] @ self.basis.to(position).T
        bias = position[..., -1:] - (weight @ self.center.to(position))[..., None]
        return torch.cat([weight, bias], -1)


def filled(rows: Rows, place: Tensor, mean: Tensor, scale: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """All rows as `[N, D + 1]`, `(x - mean) / scale` and a column of ones; row i at `place[i]`.

    On the device where they fill no more than half of its free memory, else in the host's.
    """
    count, width = len(place), rows.num_features + 1
    where = device
    if device.type == "cuda" and count * width * dtype.itemsize > torch.cuda.mem_get_info(device)[0] // 2:
        where = torch.device("cpu")
    x = torch.empty(count, width, dtype=dtype, device=where)
    x[:, -1] = 1
    place, mean, start = place.to(where), mean.to(where, dtype), 0
    for block in rows.ordered():
        x[place[start : start + len(block)], :-1] = (block.to(where, dtype) - mean) / scale
        start += len(block)
    return x


def rotate(x: Tensor, device: torch.device) -> RotatedRows:
    """Rows `[N, D + 1]`, whose last column is one, in the axes of their covariance; `x` is overwritten."""
    count, dim = len(x), x.shape[1] - 1
    center = torch.zeros(dim, dtype=torch.float64, device=device)
    for block in blocks(x, device):
        center += block[:, :-1].sum(0, dtype=torch.float64)
    center = (center / count).to(x.dtype)
    x[:, :-1] -= center.to(x.device)
    if count <= dim:
        return _spanned(x.to(device), center)
    gram = torch.zeros(dim, dim, dtype=torch.float64, device=device)
    some = x[:: max(1, count // AXES_ROWS)]
    for block in blocks(some, device):
        gram += block[:, :-1].T @ block[:, :-1]
    spread, axes = torch.linalg.eigh(gram / len(some))
    basis = axes.to(x.dtype)
    for part in x.split(_rows_at_once(x)):
        part[:, :-1] = (part[:, :-1].to(device) @ basis).to(x.device)
    return RotatedRows(x, torch.cat([spread.clamp(min=0), spread.new_ones(1)]), basis, center)


def blocks(x: Tensor, device: torch.device) -> Iterator[Tensor]:
    """The rows block by block on the device."""
    for part in x.split(_rows_at_once(x)):
        yield part.to(device, non_blocking=True)


def _spanned(x: Tensor, center: Tensor) -> RotatedRows:
    """As `rotate`, of no more rows than features: in the span of the rows, by the Gram matrix of the rows."""
    wide = x[:, :-1].double()
    spread, left = torch.linalg.eigh(wide @ wide.T)
    kept = spread > 1e-13 * spread[-1].clamp(min=1e-30)  # below is rounding
    kept[-1] = True
    size = spread[kept].clamp(min=1e-30).sqrt()
    z = left[:, kept] * size
    basis = wide.T @ (left[:, kept] / size)
    z = torch.cat([z, z.new_ones(len(z), 1)], 1)
    return RotatedRows(z.to(x), z.square().mean(0), basis.to(x), center)


def _rows_at_once(x: Tensor) -> int:
    return max(1, BLOCK_BYTES // (x.shape[1] * x.itemsize))
