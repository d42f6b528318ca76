"""Partial rank correlation: what a score tells of the answers once other scores are known.

Every variable is replaced by its ranks, ties by their mean rank (Spearman 1904); the answers are 0 and 1. With `R` the
correlation matrix of score, answer and covariates, the partial correlation is that of the residuals of score and answer after
a linear regression of both on the covariates. With `P = R^-1` it is `-P_12 / sqrt(P_11 P_22)` (Yule 1907), and with `S` the
Schur complement of the covariates in `R`, which needs no regular matrix, `S_12 / sqrt(S_11 S_22)`.

It removes what is linear in the covariates' ranks: a covariate that acts otherwise leaves something behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sslk.statistics.bootstrap import RESAMPLE_BYTES, Interval, percentile_interval

DETERMINED = 1e-10  # share of a variable's variance below which the covariates leave nothing of it


@dataclass(frozen=True)
class PartialCorrelations:
    """Rank correlations of scores with the answers, given sets of other scores.

    Attributes:
        values: by the names of what is given, then by that of the score. Above 0 a higher score means right more often; NaN
            where the score, or what the covariates leave of it, is constant.
        samples: that have every score.
        missing: that lack one (NaN or infinity), and are left out.
    """

    values: dict[tuple[str, ...], dict[str, Interval]]
    samples: int
    missing: int

    def said(self) -> list[str]:
        """One sentence where samples were left out; else none."""
        if not self.missing:
            return []
        of = self.samples + self.missing
        return [f"{self.missing} of {of} samples lack a score (NaN or infinity): partial correlations are without them."]


def partial_rank_correlations(
    scores: Mapping[str, Tensor], correct: Tensor, given: Sequence[Sequence[str]] = ((),), resamples: int = 1000, seed: int = 0
) -> PartialCorrelations:
    """Spearman's correlation of every score with the answers, given other scores, with bootstrap intervals over samples.

    Every resample is ranked anew, and all scores see the same ones, those of `bootstrap_areas` of this seed.

    Args:
        scores: `[N]` by name, the covariates among them.
        correct: bool `[N]`.
        given: sets of names; of each set the correlations of all other scores. An empty one is Spearman's own.
        resamples, seed: of the bootstrap.

    Raises:
        ValueError: a score has another length, a name is not there, or no right or no wrong sample has every score.

    >>> generator = torch.Generator().manual_seed(0)
    >>> right = torch.rand(800, generator=generator) < 0.6
    >>> known = right + torch.randn(800, generator=generator)
    >>> echo = known + 0.5 * torch.randn(800, generator=generator)  # tells what is known and nothing else
    >>> found = partial_rank_correlations({"known": known, "echo": echo}, right, [(), ("known",)], resamples=200).values
    >>> alone, beyond = (of_set["echo"] for of_set in found.values())
    >>> alone.low > 0.2, beyond.low < 0 < beyond.high
    (True, True)
    """
    answers = correct.detach().cpu().bool()
    if wrong := [name for name, values in scores.items() if values.shape != answers.shape]:
        raise ValueError(
            f"scores must be [N] as correct is, got {wrong[0]} {list(scores[wrong[0]].shape)} and {list(answers.shape)}."
        )
    if unknown := [name for names in given for name in names if name not in scores]:
        raise ValueError(f"given must name scores, got {unknown[0]!r}; there are {', '.join(scores)}.")
    if resamples < 2:
        raise ValueError(f"resamples must be at least 2, got {resamples}.")
    columns = [values.detach().cpu().double() for values in scores.values()]
    finite = torch.stack([values.isfinite() for values in columns]).all(0)
    columns, answers = [values[finite] for values in columns], answers[finite]
    if bool(answers.all()) or not bool(answers.any()):
        raise ValueError(
            f"correct must hold right and wrong samples that have every score, got {int(answers.sum())} right of {len(answers)}."
        )
    ranks = [MeanRanks(values) for values in (*columns, answers.double())]
    place = {name: number for number, name in enumerate(scores)}
    whole = _correlations(ranks, torch.ones(1, len(answers)))
    drawn = _resampled(ranks, len(answers), resamples, seed)
    values: dict[tuple[str, ...], dict[str, Interval]] = {}
    for names in given:
        known = [place[name] for name in names]
        values[tuple(names)] = {
            name: _interval(float(_partial(whole, number, known)), _partial(drawn, number, known))
            for name, number in place.items()
            if name not in names
        }
    return PartialCorrelations(values, len(answers), int((~finite).sum()))


class MeanRanks:
    """Ranks of a variable, in resamples too.

    Args:
        values: finite `[N]`.

    >>> MeanRanks(torch.tensor([5.0, 1.0, 5.0])).of(torch.tensor([[1.0, 1.0, 1.0], [2.0, 1.0, 0.0]])).tolist()
    [[2.5, 1.0, 2.5], [2.5, 1.0, 2.5]]
    """

    def __init__(self, values: Tensor) -> None:
        self._order = values.argsort(stable=True)
        _, tie, sizes = torch.unique_consecutive(values[self._order], return_inverse=True, return_counts=True)
        self._last = sizes.cumsum(0) - 1
        self._tie = torch.empty_like(tie).scatter_(0, self._order, tie)  # of every sample the number of its distinct value

    def of(self, times: Tensor) -> Tensor:
        """Mean rank of every sample, float64 `[B, N]`, where it occurs as often as `times` `[B, N]` says."""
        reached = times[:, self._order].cumsum(1, dtype=torch.float64)[:, self._last]
        before = torch.cat([reached.new_zeros(len(reached), 1), reached[:, :-1]], 1)
        return ((before + reached + 1) / 2)[:, self._tie]


def _resampled(ranks: Sequence[MeanRanks], count: int, resamples: int, seed: int) -> Tensor:
    """Correlation matrices of resamples, `[B, V, V]`."""
    generator = torch.Generator().manual_seed(seed)
    block = max(1, RESAMPLE_BYTES // (8 * count))
    parts = []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = torch.randint(count, (size, count), generator=generator)
        parts.append(_correlations(ranks, torch.zeros(size, count).scatter_add_(1, drawn, torch.ones(size, count))))
    return torch.cat(parts)


def _correlations(ranks: Sequence[MeanRanks], times: Tensor) -> Tensor:
    """Correlation matrices of the ranks, `[B, V, V]`; 0 in the row of a variable that is constant."""
    centre = (times.sum(1, keepdim=True).double() + 1) / 2  # the mean of mean ranks, whatever the ties
    x = torch.stack([variable.of(times) - centre for variable in ranks], 1)
    products = (x * times[:, None]) @ x.mT
    deviation = products.diagonal(dim1=1, dim2=2).sqrt()
    scale = torch.where(deviation > 0, deviation.reciprocal(), 0.0)
    return products * scale[:, :, None] * scale[:, None, :]


def _partial(correlations: Tensor, score: int, known: Sequence[int]) -> Tensor:
    """Partial correlation of a variable with the last one, `[B]`; NaN where nothing is left of either."""
    pair = [score, correlations.shape[1] - 1]
    left = correlations[:, pair][:, :, pair]
    if known:
        between = correlations[:, pair][:, :, list(known)]
        among = correlations[:, list(known)][:, :, list(known)]
        left = left - between @ torch.linalg.pinv(among, rtol=DETERMINED, hermitian=True) @ between.mT
    variances = left.diagonal(dim1=1, dim2=2)
    value = left[:, 0, 1] / variances.clamp(min=DETERMINED).prod(1).sqrt()
    return torch.where((variances > DETERMINED).all(1), value.clamp(-1, 1), torch.nan)


def _interval(value: float, drawn: Tensor) -> Interval:
    if value != value or bool(drawn.isnan().all()):
        return Interval(value, float("nan"), float("nan"))
    return percentile_interval(value, drawn)
