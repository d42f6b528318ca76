"""Standardisation of features: zero mean and unit deviation per dimension, with sums in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sslk.distributed import all_sum, first_row, world

_ROWS = 8192  # rows held in float64 at once


@dataclass(frozen=True, eq=False)
class Standardizer:
    """`(x - mean) / std` per dimension; a dimension that was constant becomes 0.

    Attributes:
        mean, std: float64 `[D]`; std is the population's, 0 for a constant dimension.

    >>> fitted = Standardizer.fit(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    >>> fitted(torch.tensor([[1.0, 5.0], [3.0, 6.0]]))
    tensor([[-1.,  0.],
            [ 1.,  0.]])
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def fit(cls, features: Tensor) -> Standardizer:
        """Mean and deviation of the rows of all processes.

        Raises:
            ValueError: features is no `[N, D]`, or holds NaN or infinity; counted, and the first row named.
        """
        check_features(features)
        total = first_row(len(features), features.device)[1]
        # Deviations from one row, so that a constant column gives exactly 0 and large means cost no digits.
        shift = all_sum((features[0] if world()[0] == 0 else torch.zeros_like(features[0])).double())
        sums = torch.zeros(2, features.shape[1], dtype=torch.float64, device=features.device)
        for part in features.split(_ROWS):
            centred = part.double() - shift
            sums += torch.stack([centred.sum(0), centred.square().sum(0)])
        mean, square = all_sum(sums) / total
        return cls(shift + mean, (square - mean.square()).clamp(min=0).sqrt())

    def __call__(self, features: Tensor) -> Tensor:
        """float32 `[N, D]`.

        Raises:
            ValueError: another D, or NaN or infinity.
        """
        check_features(features, len(self.mean))
        varies = self.std > 0
        scale = torch.where(varies, 1 / torch.where(varies, self.std, 1.0), 0.0)
        result = torch.empty(features.shape, dtype=torch.float32, device=features.device)
        for out, part in zip(result.split(_ROWS), features.split(_ROWS), strict=True):
            out.copy_((part.double() - self.mean) * scale)
        return result


def check_features(features: Tensor, dim: int | None = None) -> None:
    """Refuse anything but a finite floating-point matrix `[N, D]`."""
    if features.ndim != 2 or not features.is_floating_point() or 0 in features.shape:
        raise ValueError(f"features must be floating point [N, D] with rows, got {features.dtype} {list(features.shape)}.")
    if dim is not None and features.shape[1] != dim:
        raise ValueError(f"features must have {dim} dimensions as those fitted on, got {features.shape[1]}.")
    bad = ~torch.cat([part.isfinite().all(1) for part in features.split(_ROWS)])
    if bool(bad.any()):
        rows = bad.nonzero().flatten()
        raise ValueError(f"features must be finite, but {len(rows)} of {len(bad)} rows are not, the first is {int(rows[0])}.")
