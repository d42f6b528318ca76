"""What a comparison finds: a matrix for every measure, with intervals, p-values and chance levels."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sslk.statistics.bootstrap import Interval
from sslk.statistics.influence import interval

Place = tuple[str, str]


@dataclass(frozen=True, eq=False)
class Matrix:
    """A matrix with its 95 % interval, float64 `[R, C]` each.

    Attributes:
        value: the estimate; rows weigh in PWCCA, which is not symmetric.
        low, high: bounds of the bootstrap interval, NaN where none was asked for; equal to the value where a
            representation meets itself.
    """

    value: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, value: Tensor, draws: Tensor | None, level: float = 0.95) -> Matrix:
        """The matrix with the percentile interval of its draws `[B, R, C]`."""
        if draws is None:
            nothing = torch.full_like(value, torch.nan)
            return cls(value, nothing, nothing.clone())
        return cls(value, *interval(draws, level))


@dataclass(frozen=True, eq=False)
class Similarities:
    """Similarities between the representations of rows and columns; the same ones where all pairs were asked for.

    Attributes:
        rows, columns: names.
        samples: N, rows that are finite in every representation.
        nonfinite: rows that are not, left out.
        sampled: rows drawn for the measures of pairs of samples and for the p-values.
        matrices: measure -> `Matrix` `[R, C]`.
        p_values: measure -> float64 `[R, C]`, NaN where a representation meets itself.
        chance: measure -> float64 `[R, C]`, the mean over all permutations of the samples, exactly, where there is a form
            for it.
        ranks: by name, numerical ranks, where a measure needs them.
        draws: measure -> float64 `[B, R, C]`, the same resamples for all pairs.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    samples: int
    nonfinite: int
    sampled: int
    matrices: dict[str, Matrix]
    p_values: dict[str, Tensor] = field(default_factory=dict)
    chance: dict[str, Tensor] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    draws: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def at(self, measure: str, pair: Place) -> Interval:
        """One entry with its interval.

        Raises:
            ValueError: an unknown measure or name.
        """
        matrix, (r, c) = self._matrix(measure), self._place(pair)
        samples = self.sampled if measure in ("mutual_knn", "rsa", "cka_rbf") else self.samples
        return Interval(float(matrix.value[r, c]), float(matrix.low[r, c]), float(matrix.high[r, c]), samples)

    def difference(self, measure: str, pair: Place, other: Place) -> Interval:
        """How much larger one entry is than another, judged on the same resamples.

        Args:
            measure: a name of `MEASURES`.
            pair, other: row and column.

        Raises:
            ValueError: an unknown measure or name, or no resamples were asked for.
        """
        value, (r, c), (s, d) = self._matrix(measure).value, self._place(pair), self._place(other)
        if measure not in self.draws:
            raise ValueError("differences need resamples, but the comparison was made with resamples=0.")
        low, high = interval(self.draws[measure][:, r, c] - self.draws[measure][:, s, d])
        return Interval(float(value[r, c] - value[s, d]), float(low), float(high), self.at(measure, pair).samples)

    def _matrix(self, measure: str) -> Matrix:
        if measure not in self.matrices:
            raise ValueError(f"measure must be of {', '.join(self.matrices)}, got {measure!r}.")
        return self.matrices[measure]

    def _place(self, pair: Place) -> tuple[int, int]:
        for name, names in zip(pair, (self.rows, self.columns), strict=True):
            if name not in names:
                raise ValueError(f"pair must name representations of {', '.join(names)}, got {name!r}.")
        return self.rows.index(pair[0]), self.columns.index(pair[1])
