"""Compare representations of the same samples by several measures, with intervals, p-values and chance levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from sslk.metrics import Similarity
from sslk.progress import Progress
from sslk.similarity.permutation import p_values
from sslk.similarity.result import Matrix, Similarities
from sslk.similarity.sampled import products, resampled, unit_matrices
from sslk.similarity.settings import PERMUTED, SAMPLED, STREAMED, SimilaritySettings
from sslk.similarity.sources import Sources
from sslk.similarity.streamed import Pair, Pairs

SUMS_BYTES = 2 << 30  # of the sums of products; representations that need more are taken two at a time


def compare(
    representations: Mapping[str, Any],
    settings: SimilaritySettings = SimilaritySettings(),  # noqa: B008 (frozen)
    *,
    columns: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Similarities:
    """Similarities between representations of the same samples, from stores larger than memory or arrays.

    CKA, CCA and Procrustes are of all rows, from sums of products; mutual k-NN, RSA, RBF CKA and the p-values are of a sample of
    them. Rows that are not finite in one representation are left out of all and counted.

    Args:
        representations: by name, feature stores, or tensors or arrays `[N, D]`; widths may differ.
        settings: which measures, and their settings.
        columns: compare every one of `representations` with every one of these, in place of all pairs; a name that stands in
            both is one representation.
        progress: called with what is done, what is to do, and the stage.

    Raises:
        ValueError: fewer than two representations, of other samples, or fewer than 4 usable rows.
        StoreError: a store is incomplete or damaged.

    Examples:
        >>> g = torch.Generator().manual_seed(0)
        >>> x = torch.randn(300, 8, generator=g)
        >>> found = compare({"x": x, "wider": torch.cat([x, x], 1), "other": torch.randn(300, 5, generator=g)})
        >>> [round(abs(value), 1) for value in found.matrices["cka_debiased"].value[0].tolist()]
        [1.0, 1.0, 0.0]
        >>> print(found.at("procrustes", ("x", "wider")), float(found.p_values["rsa"][0, 1]))
        0.000 [0.000, 0.000] 0.005
    """
    everything = {**representations, **(columns or {})}
    for name in set(representations) & set(columns or ()):
        if representations[name] is not (columns or {})[name]:
            raise ValueError(f"columns must not name another representation {name!r} than the rows.")
    sources = Sources(everything)
    down = [sources.names.index(name) for name in representations]
    across = down if columns is None else [sources.names.index(name) for name in columns]
    wanted = sorted({(min(u, v), max(u, v)) for u in down for v in across})
    found = _Found(len(sources.names))
    streamed = [measure for measure in settings.measures if measure in STREAMED]
    if streamed:
        _stream(sources, wanted, streamed, settings, found, progress)
    sampled = _sample(sources, (down, across), wanted, settings, found, progress)
    if sources.samples < 4:
        raise ValueError(f"similarities need at least 4 usable rows, got {sources.samples}.")
    cut = partial(_rectangle, down=down, across=across)
    return Similarities(
        tuple(representations),
        tuple(representations if columns is None else columns),
        sources.samples,
        sources.given - sources.samples,
        sampled,
        {
            measure: Matrix.of(cut(found.values[measure]), cut(found.draws[measure]) if settings.resamples else None)
            for measure in settings.measures
        },
        found.p_values,
        {measure: cut(chance) for measure, chance in found.chance.items()},
        {sources.names[v]: rank for v, rank in found.ranks.items()},
        {measure: cut(draws) for measure, draws in found.draws.items()} if settings.resamples else {},
    )


class _Found:
    """Matrices `[V, V]` as they are filled, NaN where nothing is asked for."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.values: dict[str, Tensor] = {}
        self.draws: dict[str, Tensor] = {}
        self.chance: dict[str, Tensor] = {}
        self.p_values: dict[str, Tensor] = {}
        self.ranks: dict[int, int] = {}

    def put(self, into: dict[str, Tensor], measure: str, part: Tensor, places: Sequence[int]) -> None:
        """A part of a matrix, or of a stack of them, of the representations at these places; its NaN change nothing."""
        if measure not in into:
            into[measure] = part.new_full((*part.shape[:-2], self.count, self.count), torch.nan)
        rows, columns = torch.meshgrid(torch.tensor(places), torch.tensor(places), indexing="ij")
        into[measure][..., rows, columns] = torch.where(part.isnan(), into[measure][..., rows, columns], part)


def _rectangle(matrix: Tensor, down: Sequence[int], across: Sequence[int]) -> Tensor:
    return matrix[..., list(down), :][..., list(across)]


def _stream(
    sources: Sources,
    wanted: Sequence[Pair],
    measures: Sequence[str],
    settings: SimilaritySettings,
    found: _Found,
    progress: Progress | None,
) -> None:
    """The measures of all rows: all representations in one pass, or two by two where their sums would be too large."""
    everyone = tuple(range(len(sources.names)))
    fits = 8 * sum(sources.widths) ** 2 <= SUMS_BYTES
    groups = [everyone] if fits else [pair for pair in combinations(everyone, 2) if pair in set(wanted)]
    for number, places in enumerate(groups):
        part = f" of pair {number + 1} of {len(groups)}" if len(groups) > 1 else ""
        similarity = Similarity([sources.widths[v] for v in places], ridge=settings.ridge)
        for rows in sources.batches(places, progress, f"products{part}"):
            similarity.update(*rows)
        if sources.samples < 4:
            return
        here = [(places.index(u), places.index(v)) for u, v in wanted if u in places and v in places]
        pairs = Pairs(similarity, measures, wanted=here)
        values = pairs.values()
        draws = {}
        if settings.resamples:
            stream = partial(sources.batches, places, progress, f"intervals{part}")
            draws = pairs.resampled(stream, values, settings.resamples, settings.seed)
        for measure in measures:
            found.put(found.values, measure, values[measure], places)
            if settings.resamples:
                found.put(found.draws, measure, draws[measure], places)
        for measure, chance in pairs.chance().items():
            found.put(found.chance, measure, chance, places)
        found.ranks |= {places[v]: rank for v, rank in pairs.ranks().items()}


def _sample(
    sources: Sources,
    places: tuple[Sequence[int], Sequence[int]],
    wanted: Sequence[Pair],
    settings: SimilaritySettings,
    found: _Found,
    progress: Progress | None,
) -> int:
    """The measures of pairs of samples and the p-values; returns how many rows were drawn for them, 0 if none were."""
    down, across = places
    measures = [m for m in settings.measures if m in SAMPLED or (settings.permutations and m in PERMUTED)]
    if not measures or sources.count() < 4:
        return 0
    sample = sources.sampled(settings.sample, settings.seed)
    rows = len(sample[0])
    for measure in measures:
        if progress is not None:
            progress(measures.index(measure), len(measures), "pairs of samples")
        matrices = unit_matrices(measure, sample, settings)
        if measure in SAMPLED:
            values = products(matrices)
            here = [(u, v) for u, v in wanted if u != v and not bool(values[u, v].isnan())]
            everyone = range(found.count)
            found.put(found.values, measure, values, everyone)
            if settings.resamples:
                found.put(found.draws, measure, resampled(measure, matrices, values, here, settings), everyone)
            if measure != "rsa" or settings.correlation != "cosine":
                level = min(settings.k, rows - 1) / (rows - 1) if measure == "mutual_knn" else 0.0
                found.put(found.chance, measure, torch.full_like(values, level), everyone)
        if settings.permutations:
            # All pairs need each pair once: the first columns have no rows above them.
            square = list(down) == list(across)
            right = across[1:] if square else across
            said = f"permutations, {measure}"
            p = p_values([matrices[u] for u in down], [matrices[v] for v in right], settings, progress, said)
            if square:
                p = torch.cat([torch.full((len(down), 1), torch.nan, dtype=p.dtype), p], 1).triu(1)
                p = p + p.T
            same = torch.tensor(down)[:, None] == torch.tensor(across)
            found.p_values[measure] = p.masked_fill(same, torch.nan)
    if progress is not None:
        progress(len(measures), len(measures), "pairs of samples")
    return rows
