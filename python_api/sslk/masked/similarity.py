"""Similarity of the variants' representations, within every model and between models, from two passes over stores.

The first pass sums (see `sslk.metrics.Similarity`), the second finds the samples' influences for the intervals. Neither
holds more than a batch of features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest

import torch
from torch import Tensor

from sslk.masked.canonical import Canonical, canonical, principal_whitening, projection_weights
from sslk.metrics import Similarity
from sslk.progress import Progress
from sslk.statistics.influence import correlation_influence, hsic_influence, interval, resampled_means

#: Measures within a model, as the tables name them.
MEASURES = {
    "cka_debiased": "linear CKA, debiased",
    "cka_biased": "linear CKA, biased",
    "cca": "CCA, mean squared correlation",
    "svcca": "SVCCA, mean correlation",
    "pwcca": "PWCCA",
}

#: Gives the V representations `[n, D]` of one model, batch by batch, from the start at every call.
Stream = Callable[[], Iterator[Sequence[Tensor]]]


@dataclass(frozen=True, eq=False)
class Matrix:
    """A V x V matrix with its interval, float64 `[V, V]` each.

    Attributes:
        value: the estimate; rows weigh in PWCCA, which is not symmetric.
        low, high: bounds of the bootstrap interval; equal to the value on the diagonal.
    """

    value: Tensor
    low: Tensor
    high: Tensor


@dataclass(frozen=True, eq=False)
class Comparison:
    """Similarities of V variants under M models.

    Attributes:
        variants, models: names.
        samples: N.
        within: model -> measure -> `Matrix`; see `MEASURES`.
        ranks: model -> int64 `[V]`, numerical rank of every representation.
        principal: model -> int64 `[V]`, components that hold 99 % of the variance, what SVCCA keeps.
        across: `cka_debiased`, `cka_biased` and `cca` between all models and variants, float64 `[M V, M V]`; models
            are the outer index.
    """

    variants: tuple[str, ...]
    models: tuple[str, ...]
    samples: int
    within: dict[str, dict[str, Matrix]] = field(default_factory=dict)
    ranks: dict[str, Tensor] = field(default_factory=dict)
    principal: dict[str, Tensor] = field(default_factory=dict)
    across: dict[str, Tensor] = field(default_factory=dict)


def compare_variants(
    streams: Mapping[str, Stream],
    widths: Mapping[str, int],
    variants: Sequence[str],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    ridge: float = 0.0,
    progress: Progress | None = None,
) -> Comparison:
    """Similarity matrices of all variants within every model, with intervals, and between models.

    Args:
        streams: by model; all must yield batches of the same samples in the same order and sizes.
        widths: D by model.
        variants: V names.
        resamples: bootstrap resamples; 0 leaves the intervals NaN and saves the second pass.
        level: of the intervals.
        seed: of the resamples.
        ridge: of the canonical correlations, see `Similarity`.
        progress: called with the models done and all, as the second pass of each begins.

    Raises:
        ValueError: fewer than 4 samples, which debiased CKA needs, or streams of unequal length.

    Examples:
        >>> x = torch.randn(100, 6, generator=torch.Generator().manual_seed(0))
        >>> found = compare_variants({"m": lambda: iter([(x, x * 2)])}, {"m": 6}, ["original", "twice"])
        >>> round(found.within["m"]["cka_debiased"].value[0, 1].item(), 6), found.ranks["m"].tolist()
        (1.0, [6, 6])
    """
    models, count = tuple(streams), len(variants)
    similarity = Similarity([widths[model] for model in models for _ in variants], ridge=ridge)
    samples = 0
    for parts in zip_longest(*(stream() for stream in streams.values())):
        if any(part is None for part in parts):
            raise ValueError(f"streams must hold the same samples for every model, but one ends after {samples}.")
        similarity.update(*chain.from_iterable(parts))
        samples += len(parts[0][0])
    if samples < 4:
        raise ValueError(f"debiased CKA needs at least 4 samples, got {samples}.")
    answer = similarity.compute()
    across = {"cka_debiased": answer["debiased"], "cka_biased": answer["biased"], "cca": answer["r2"]}
    found = Comparison(tuple(variants), models, samples, across=across)
    hsic = similarity.hsic1()
    for number, model in enumerate(models):
        if progress is not None:
            progress(number, len(models), "similarities")
        rows = slice(number * count, (number + 1) * count)
        values = {measure: matrix[rows, rows].clone() for measure, matrix in across.items()}
        pairs = _Pairs(similarity, number * count, count)
        values |= pairs.matrices()
        draws = {measure: torch.full((1, count, count), torch.nan, dtype=torch.float64) for measure in values}
        if resamples:
            draws = pairs.resampled(streams[model], values, hsic[rows, rows], resamples, seed)
        found.within[model] = {measure: _matrix(values[measure], draws[measure], level) for measure in MEASURES}
        found.ranks[model] = answer["ranks"][rows]
        found.principal[model] = torch.tensor([w.shape[1] for w in pairs.principal])
    return found


def _matrix(value: Tensor, draws: Tensor, level: float) -> Matrix:
    low, high = interval(draws, level)
    return Matrix(value, low, high)


class _Pairs:
    """The pairs of one model's variants: their canonical variates, and their intervals from a second pass."""

    def __init__(self, similarity: Similarity, first: int, count: int) -> None:
        self.similarity, self.first, self.count = similarity, first, count
        self.samples = float(similarity.sums[0])
        self.upper = [(u, v) for u in range(count) for v in range(u, count)]
        whole = [similarity.whitening(first + v) for v in range(count)]
        self.principal = [principal_whitening(*similarity.spectrum(first + v)) for v in range(count)]
        self.cca: dict[tuple[int, int], Canonical] = {}
        self.svcca: dict[tuple[int, int], Canonical] = {}
        for u, v in self.upper:
            if u < v and min(whole[u].shape[1], whole[v].shape[1]):
                self.cca[u, v] = canonical(self.products(u, v), whole[u], whole[v])
                self.svcca[u, v] = canonical(self.products(u, v), self.principal[u], self.principal[v])

    def products(self, u: int, v: int) -> Tensor:
        return self.similarity.products(self.first + u, self.first + v)

    def weights(self, u: int, v: int) -> tuple[Tensor, Tensor]:
        """PWCCA's weights with either side to be accounted for."""
        pair = self.cca[u, v]
        return projection_weights(self.products(u, u), pair.left), projection_weights(self.products(v, v), pair.right)

    def matrices(self) -> dict[str, Tensor]:
        """SVCCA and PWCCA, `[V, V]`; NaN for a representation without variance."""
        svcca, pwcca = (torch.full((self.count, self.count), torch.nan, dtype=torch.float64) for _ in range(2))
        for v in range(self.count):
            if self.principal[v].shape[1]:
                svcca[v, v] = pwcca[v, v] = 1.0
        for u, v in self.cca:
            svcca[u, v] = svcca[v, u] = self.svcca[u, v].rho.mean()
            by_left, by_right = self.weights(u, v)
            pwcca[u, v], pwcca[v, u] = by_left @ self.cca[u, v].rho, by_right @ self.cca[u, v].rho
        return {"svcca": svcca, "pwcca": pwcca}

    def resampled(self, stream: Stream, values: dict[str, Tensor], hsic: Tensor, resamples: int, seed: int) -> dict[str, Tensor]:
        """Every measure over the resamples, `[resamples, V, V]`."""
        means = resampled_means(self._influences(stream), resamples, seed)
        moved = means[:, : len(self.upper)].unbind(1)
        draws = {measure: value.expand(resamples, -1, -1).clone() for measure, value in values.items()}
        for measure, base in (("cka_debiased", hsic), ("cka_biased", self._biased_hsic())):
            # The scales move by factors, the same to first order, so that none of them turns negative.
            shifted = {
                (u, v): base[u, v] * (move / base[u, v]).exp() if u == v else base[u, v] + move
                for (u, v), move in zip(self.upper, moved, strict=True)
            }
            for u, v in self.upper:
                if u < v:
                    ratio = shifted[u, v] / (shifted[u, u] * shifted[v, v]).sqrt()
                    draws[measure][:, u, v] = draws[measure][:, v, u] = ratio
        rest = means[:, len(self.upper) :].view(resamples, -1, 4).unbind(1)
        for (u, v), move in zip(self.cca, rest, strict=True):
            for k, measure in enumerate(("cca", "svcca", "pwcca")):
                draws[measure][:, u, v] += move[:, k]
                draws[measure][:, v, u] += move[:, 3 if measure == "pwcca" else k]
        return draws

    def _biased_hsic(self) -> Tensor:
        hsic = torch.zeros(self.count, self.count, dtype=torch.float64)
        for u, v in self.upper:
            hsic[u, v] = hsic[v, u] = self.products(u, v).square().sum() / self.samples**2
        return hsic

    def _influences(self, stream: Stream) -> Tensor:
        """Float64 `[N, pairs on and above the diagonal + 4 x pairs above it]`.

        The products are those of the first pass, in float32: intervals need no more.
        """
        mean = self.similarity.mean().split(self.similarity.num_features)[self.first : self.first + self.count]
        covariance = {pair: (self.products(*pair) / self.samples).float() for pair in self.upper}
        scale = self.samples**0.5  # from unit sums of squares to unit variance
        variates = {
            pair: [
                ((c.left * scale).float(), (c.right * scale).float(), c.rho.float(), gradients.float())
                for c, gradients in self._gradients(pair)
            ]
            for pair in self.cca
        }
        # All there is of N rows in memory: 55 numbers an image for five variants.
        influences = torch.empty(int(self.samples), len(self.upper) + 4 * len(self.cca), dtype=torch.float64)
        done = 0
        for parts in stream():
            rows = [(part.double() - center).float() for part, center in zip(parts, mean, strict=True)]
            columns = [hsic_influence(rows[u], rows[v], covariance[u, v])[:, None] for u, v in self.upper]
            for u, v in self.cca:
                columns += [
                    correlation_influence(rows[u] @ left, rows[v] @ right, rho, gradients)
                    for left, right, rho, gradients in variates[u, v]
                ]
            influences[done : done + len(rows[0])] = torch.cat(columns, dim=1)
            done += len(rows[0])
        return influences

    def _gradients(self, pair: tuple[int, int]) -> list[tuple[Canonical, Tensor]]:
        """Derivatives by the correlations: CCA; then SVCCA; then PWCCA with either side's weights, held fixed."""
        whole, principal = self.cca[pair], self.svcca[pair]
        by_left, by_right = self.weights(*pair)
        mean_square = 2 * whole.rho / len(whole.rho)
        mean = torch.full_like(principal.rho, 1 / max(len(principal.rho), 1))
        return [(whole, mean_square[:, None]), (principal, mean[:, None]), (whole, torch.stack([by_left, by_right], 1))]
