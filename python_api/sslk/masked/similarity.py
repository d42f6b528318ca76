"""Similarity of the variants' representations, within every model and between models, from two passes over stores.

The first pass sums (see `sslk.metrics.Similarity`), the second finds the samples' influences for the intervals. Neither
holds more than a batch of features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest

import torch
from torch import Tensor

from sslk.metrics import Similarity
from sslk.progress import Progress
from sslk.similarity import Matrix
from sslk.similarity import settings as similarity_settings
from sslk.similarity.streamed import Pairs, Stream

#: Measures within a model, as the tables name them.
MEASURES: dict[str, str] = {
    str(name): text
    for name, text in similarity_settings.MEASURES.items()
    if name in ("cka_debiased", "cka_biased", "cca", "svcca", "pwcca")
}


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
        pairs = Pairs(similarity, tuple(MEASURES), number * count, count, hsic=hsic)
        values = pairs.values()
        draws = pairs.resampled(streams[model], values, resamples, seed) if resamples else {}
        found.within[model] = {measure: Matrix.of(values[measure], draws.get(measure), level) for measure in MEASURES}
        found.ranks[model] = answer["ranks"][rows]
        found.principal[model] = torch.tensor([pairs.principal[v].shape[1] if v in pairs.places else 0 for v in range(count)])
    return found
