"""Similarities from streamed sums, of all samples: values from one pass, intervals from the samples' influences in a second.

Neither pass holds more than a batch of features; the second keeps a few numbers a sample for every pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from sslk.metrics import Similarity
from sslk.similarity.canonical import Canonical, canonical, principal_whitening, projection_weights
from sslk.similarity.procrustes import overlap, overlap_influence
from sslk.statistics.influence import correlation_influence, hsic_influence, resampled_means

#: Gives V representations `[n, D_v]` of the same samples, batch by batch, from the start at every call.
Stream = Callable[[], Iterator[Sequence[Tensor]]]
Pair = tuple[int, int]

CKA = frozenset({"cka_debiased", "cka_biased"})
CCA = frozenset({"cca", "svcca", "pwcca"})
SHAPE = frozenset({"procrustes", "angular"})


class Pairs:
    """Pairs of `count` representations among those whose sums a `Similarity` holds.

    Args:
        similarity: after the first pass.
        measures: names of `sslk.similarity.settings.STREAMED`.
        first: place of the first representation.
        count: how many; all behind it by default.
        wanted: pairs of places, counted from `first`; all by default.
        hsic: `Similarity.hsic1()`, where it is there already.
    """

    def __init__(
        self,
        similarity: Similarity,
        measures: Sequence[str],
        first: int = 0,
        count: int | None = None,
        wanted: Sequence[Pair] | None = None,
        hsic: Tensor | None = None,
    ) -> None:
        self.similarity, self.measures, self.first = similarity, tuple(measures), first
        self.count = len(similarity.num_features) - first if count is None else count
        self.samples, self._hsic1 = float(similarity.sums[0]), hsic
        everyone = range(self.count)
        asked = (
            {(min(pair), max(pair)) for pair in wanted} if wanted is not None else {(u, v) for u in everyone for v in everyone}
        )
        met = {v for pair in asked for v in pair}
        varied = [self._varies(v) if v in met else False for v in everyone]
        #: Places of representations that vary, and the pairs of them on and above the diagonal.
        self.places = [v for v in everyone if varied[v]]
        self.upper = [(u, v) for u in self.places for v in self.places if u == v or (u < v and (u, v) in asked)]
        self.pairs = [(u, v) for u, v in self.upper if u < v]

    def products(self, u: int, v: int) -> Tensor:
        """float64 `[D_u, D_v]`: sum of centred products."""
        return self.similarity.products(self.first + u, self.first + v)

    def _varies(self, v: int) -> bool:
        """Whether there is more variance than the rounding of a constant leaves."""
        mean = self.means[v]
        return bool(self.total(v) > 1e-24 * self.samples * mean.square().sum())

    @cached_property
    def means(self) -> list[Tensor]:
        """Of the features of every representation."""
        parts = self.similarity.mean().split(self.similarity.num_features)
        return list(parts[self.first : self.first + self.count])

    def total(self, v: int) -> Tensor:
        """Sum of squares of the centred representation."""
        return self.products(v, v).trace()

    @cached_property
    def whole(self) -> dict[int, Tensor]:
        """Whitenings, `[D, rank]`."""
        return {v: self.similarity.whitening(self.first + v) for v in self.places}

    @cached_property
    def principal(self) -> dict[int, Tensor]:
        """Whitenings of the components that hold 99 % of the variance."""
        return {v: principal_whitening(*self.similarity.spectrum(self.first + v)) for v in self.places}

    @cached_property
    def cca(self) -> dict[Pair, Canonical]:
        """Canonical variates of the whole representations."""
        return {(u, v): canonical(self.products(u, v), self.whole[u], self.whole[v]) for u, v in self.pairs}

    @cached_property
    def svcca(self) -> dict[Pair, Canonical]:
        """Canonical variates of the principal components."""
        return {(u, v): canonical(self.products(u, v), self.principal[u], self.principal[v]) for u, v in self.pairs}

    @cached_property
    def shapes(self) -> dict[Pair, tuple[Tensor, Tensor]]:
        """Overlaps after the best rotation, and their gradients."""
        return {(u, v): overlap(self.products(u, v), self.total(u), self.total(v)) for u, v in self.pairs}

    def weights(self, u: int, v: int) -> tuple[Tensor, Tensor]:
        """PWCCA's weights with either side to be accounted for."""
        pair = self.cca[u, v]
        return projection_weights(self.products(u, u), pair.left), projection_weights(self.products(v, v), pair.right)

    @cached_property
    def hsic(self) -> dict[str, dict[Pair, Tensor]]:
        """What the two CKAs are ratios of."""
        unbiased = self.similarity.hsic1() if self._hsic1 is None else self._hsic1
        return {
            "cka_debiased": {(u, v): unbiased[self.first + u, self.first + v] for u, v in self.upper},
            "cka_biased": {(u, v): self.products(u, v).square().sum() / self.samples**2 for u, v in self.upper},
        }

    def values(self) -> dict[str, Tensor]:
        """Every measure, float64 `[count, count]`; NaN where not wanted, or for a representation without variance."""
        return {measure: self._filled(torch.nan, self._value(measure)) for measure in self.measures}

    def chance(self) -> dict[str, Tensor]:
        """Exact means over all permutations of the samples, where there is a form for them.

        Of `tr(K P L P')`, K and L centred, it is `tr(K) tr(L) / (N - 1)`; of the unbiased HSIC it is 0.
        """
        entries: dict[str, dict[Pair, Tensor]] = {}
        zero = torch.tensor(0.0, dtype=torch.float64)
        if "cka_debiased" in self.measures:
            entries["cka_debiased"] = {pair: zero for pair in self.upper}
        if "cka_biased" in self.measures:
            spread = {v: self.total(v) / self.samples / self.hsic["cka_biased"][v, v].sqrt() for v in self.places}
            entries["cka_biased"] = {(u, v): spread[u] * spread[v] / (self.samples - 1) for u, v in self.upper}
        if "cca" in self.measures and not self.similarity.ridge:
            ranks = self.ranks()
            entries["cca"] = {(u, v): zero + max(ranks[u], ranks[v]) / (self.samples - 1) for u, v in self.upper}
        return {measure: self._filled(torch.nan, found) for measure, found in entries.items()}

    def ranks(self) -> dict[int, int]:
        """Numerical ranks by place, where a measure of the CCA family is asked for; 0 without variance."""
        if not CCA & set(self.measures):
            return {}
        return {v: self.whole[v].shape[1] if v in self.places else 0 for v in range(self.count)}

    def _value(self, measure: str) -> dict[Pair, Tensor]:
        if measure in CKA:
            hsic = self.hsic[measure]
            return {(u, v): h / (hsic[u, u] * hsic[v, v]).sqrt() for (u, v), h in hsic.items()}
        if measure in SHAPE:
            overlaps = {pair: value for pair, (value, _) in self.shapes.items()}
            overlaps |= {(v, v): torch.tensor(1.0, dtype=torch.float64) for v in self.places}
            return {pair: _distance(measure, value) for pair, value in overlaps.items()}
        one = {(v, v): torch.tensor(1.0, dtype=torch.float64) for v in self.places}
        if measure == "svcca":
            return one | {pair: variates.rho.mean() for pair, variates in self.svcca.items()}
        if measure == "cca":
            if self.similarity.ridge:
                one = {(v, v): canonical(self.products(v, v), w, w).rho.square().mean() for v, w in self.whole.items()}
            return one | {pair: variates.rho.square().mean() for pair, variates in self.cca.items()}
        found = dict(one)
        for (u, v), variates in self.cca.items():
            by_left, by_right = self.weights(u, v)
            found[u, v], found[v, u] = by_left @ variates.rho, by_right @ variates.rho
        return found

    def _filled(self, nothing: float, entries: dict[Pair, Tensor]) -> Tensor:
        """Entries as a matrix; those above the diagonal below it too, where nothing else stands there."""
        found = torch.full((self.count, self.count), nothing, dtype=torch.float64)
        for (u, v), value in entries.items():
            found[u, v] = value
            if (v, u) not in entries:
                found[v, u] = value
        return found

    def resampled(self, stream: Stream, values: dict[str, Tensor], resamples: int, seed: int) -> dict[str, Tensor]:
        """Every measure over the resamples, `[resamples, count, count]`.

        Args:
            stream: of the representations of these places.
            values: of `values`.
            resamples: B.
            seed: the same one gives the same resamples of the same number of samples.
        """
        asked = set(self.measures)
        means = resampled_means(self._influences(stream, asked), resamples, seed)
        draws = {measure: value.expand(resamples, -1, -1).clone() for measure, value in values.items()}
        columns = iter(means.unbind(1))
        if asked & CKA:
            moved = {pair: next(columns) for pair in self.upper}
            for measure in CKA & asked:
                base = self.hsic[measure]
                # The scales move by factors, the same to first order, so that none of them turns negative.
                scale = {v: base[v, v] * (moved[v, v] / base[v, v]).exp() for v in self.places}
                for u, v in self.pairs:
                    ratio = (base[u, v] + moved[u, v]) / (scale[u] * scale[v]).sqrt()
                    draws[measure][:, u, v] = draws[measure][:, v, u] = ratio
        for u, v in self.pairs if asked & CCA else ():
            for measure, places in (
                ("cca", ((u, v), (v, u))),
                ("svcca", ((u, v), (v, u))),
                ("pwcca", ((u, v),)),
                ("pwcca", ((v, u),)),
            ):
                move = next(columns)
                for place in places if measure in asked else ():
                    draws[measure][:, place[0], place[1]] += move
        for u, v in self.pairs if asked & SHAPE else ():
            moved_overlap = self.shapes[u, v][0] + next(columns)
            for measure in SHAPE & asked:
                draws[measure][:, u, v] = draws[measure][:, v, u] = _distance(measure, moved_overlap)
        return draws

    def _influences(self, stream: Stream, asked: set[str]) -> Tensor:
        """Float64 `[N, columns]`: one for every pair on and above the diagonal for CKA; four for every pair above it for CCA,
        SVCCA and PWCCA from either side; one for the distances.

        The products are those of the first pass, in float32: intervals need no more.
        """
        mean = self.means
        covariance = {pair: (self.products(*pair) / self.samples).float() for pair in self.upper} if asked & CKA else {}
        scale = self.samples**0.5  # from unit sums of squares to unit variance
        variates = {
            pair: [
                ((c.left * scale).float(), (c.right * scale).float(), c.rho.float(), gradients.float())
                for c, gradients in self._gradients(pair)
            ]
            for pair in (self.pairs if asked & CCA else ())
        }
        shapes = self.shapes if asked & SHAPE else {}
        variance = {v: float(self.total(v)) / self.samples for v in self.places}
        columns = len(covariance) + 4 * len(variates) + len(shapes)
        # All there is of N rows in memory.
        influences = torch.empty(int(self.samples), columns, dtype=torch.float64)
        done = 0
        for parts in stream():
            rows = [(part.double() - center).float() for part, center in zip(parts, mean, strict=True)]
            found = [hsic_influence(rows[u], rows[v], c)[:, None] for (u, v), c in covariance.items()]
            for (u, v), several in variates.items():
                found += [correlation_influence(rows[u] @ left, rows[v] @ right, rho, g) for left, right, rho, g in several]
            found += [
                overlap_influence(rows[u], rows[v], gradient.float(), float(value), variance[u], variance[v])[:, None]
                for (u, v), (value, gradient) in shapes.items()
            ]
            if found:
                influences[done : done + len(rows[0])] = torch.cat(found, dim=1)
            done += len(rows[0])
        return influences

    def _gradients(self, pair: Pair) -> list[tuple[Canonical, Tensor]]:
        """Derivatives by the correlations: CCA; then SVCCA; then PWCCA with either side's weights, held fixed."""
        whole, principal = self.cca[pair], self.svcca[pair]
        by_left, by_right = self.weights(*pair)
        mean_square = 2 * whole.rho / len(whole.rho)
        mean = torch.full_like(principal.rho, 1 / max(len(principal.rho), 1))
        return [(whole, mean_square[:, None]), (principal, mean[:, None]), (whole, torch.stack([by_left, by_right], 1))]


def _distance(measure: str, overlaps: Tensor) -> Tensor:
    overlaps = overlaps.clamp(max=1)  # rounding must not leave less than no distance
    return 2 - 2 * overlaps if measure == "procrustes" else overlaps.clamp(min=-1).arccos()
