"""A comparison of representations as a run: matrices with intervals, figures, and what they say in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from sslk.features.store import FeatureStore
from sslk.probes.source import described
from sslk.progress import Progress
from sslk.results.figure import Picture, picture
from sslk.results.provenance import provenance
from sslk.results.run import Measure, Run, RunTable, Value
from sslk.similarity import figures
from sslk.similarity.comparison import compare
from sslk.similarity.findings import findings, pairs_of
from sslk.similarity.result import Similarities
from sslk.similarity.settings import MEASURES, MeasureName, SimilaritySettings

Stores = Mapping[str, FeatureStore]


def similarity_study(
    stores: Stores,
    settings: SimilaritySettings = SimilaritySettings(),  # noqa: B008 (frozen)
    *,
    columns: Stores | None = None,
    curve: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Similarities between stores of the same images: matrices, or curves over their order.

    Args:
        stores: by name, of any models, layers or epochs.
        settings: which measures, and their settings.
        columns: compare each of `stores` with each of these, in place of all pairs.
        curve: `stores` are in an order, such as epochs or layers: draw each one's similarity with the last and with the one
            before it.
        progress: called with what is done, what is to do, and the stage.

    Returns:
        A table and a figure for every measure, findings, and a `Measure` for every pair and measure.

    Raises:
        ValueError: as for `compare`, or a curve of columns.
        StoreError: a store is incomplete or damaged.
    """
    if curve and columns is not None:
        raise ValueError("curve must be of one list of stores, got columns too.")
    found = compare(stores, settings, columns=columns, progress=progress)
    everything = {**stores, **(columns or {})}
    dataset = next(iter(everything.values())).spec.dataset
    origin = provenance(
        {
            "command": "similarity",
            "config": asdict(settings),
            "seed": settings.seed,
            **{name: described(store) for name, store in everything.items()},
        }
    )
    names = f"{len(stores)} representations" if columns is None else f"{len(stores)} x {len(columns)} representations"
    return Run(
        "similarity",
        f"Similarity of {names} of {found.samples} samples of {dataset}",
        findings(found, settings),
        origin,
        _summary(found),
        [*(_table(found, measure) for measure in settings.measures), *_ranks(found)],
        [*([_curve(found, settings.measures)] if curve else []), *(_heatmap(found, measure) for measure in settings.measures)],
        _measures(found, settings.measures, dataset),
    )


def _numbers(found: Similarities, measure: MeasureName, pair: tuple[str, str]) -> list[Any]:
    """Value, interval, chance level and p of a pair."""
    at, place = found.at(measure, pair), (found.rows.index(pair[0]), found.columns.index(pair[1]))
    extra = [float(part[measure][place]) if measure in part else None for part in (found.chance, found.p_values)]
    return [None if value is None or value != value else round(value, 6) for value in (*at[:3], *extra)]


def _table(found: Similarities, measure: MeasureName) -> RunTable:
    rows = [[*pair, *_numbers(found, measure, pair)] for pair in pairs_of(found, both=measure == "pwcca")]
    return RunTable(MEASURES[measure], ["representation", "with", "value", "low", "high", "chance", "p"], rows)


def _ranks(found: Similarities) -> list[RunTable]:
    rows = [[name, rank, found.samples] for name, rank in found.ranks.items()]
    return [RunTable("Ranks of the representations", ["representation", "rank", "samples"], rows, fold=True)] if rows else []


def _heatmap(found: Similarities, measure: MeasureName) -> Picture:
    matrix = found.matrices[measure]
    places = [(r, c) for r in range(len(found.rows)) for c in range(len(found.columns))]
    columns: dict[str, list[Any]] = {
        "representation": [found.rows[r] for r, _ in places],
        "with": [found.columns[c] for _, c in places],
        **{
            name: [round(float(part[place]), 6) for place in places]
            for name, part in (("value", matrix.value), ("low", matrix.low), ("high", matrix.high))
        },
    }
    draw = partial(figures.heatmap, measure, matrix, found.rows, found.columns)
    alt = f"{MEASURES[measure]} between {', '.join(found.rows)} and {', '.join(found.columns)}, with 95 % intervals."
    return picture(measure, MEASURES[measure], alt, draw, columns)


def _curve(found: Similarities, measures: tuple[MeasureName, ...]) -> Picture:
    last = len(found.rows) - 1
    columns: dict[str, list[Any]] = {"representation": list(found.rows)}
    for measure in measures:
        matrix = found.matrices[measure]
        for label, other in (("the last", [last] * (last + 1)), ("the one before", [None, *range(last)])):
            for name, part in (("", matrix.value), (" low", matrix.low), (" high", matrix.high)):
                columns[f"{measure} with {label}{name}"] = [
                    "" if column is None else round(float(part[row, column]), 6) for row, column in enumerate(other)
                ]
    draw = partial(figures.curve, measures, [found.matrices[measure] for measure in measures], found.rows)
    alt = f"Similarity of each of {', '.join(found.rows)} with the last and with the one before it, by {len(measures)} measures."
    return picture("curve", "Similarity over the order given", alt, draw, columns)


def _summary(found: Similarities) -> dict[str, Value]:
    counts: dict[str, Value] = {"samples": found.samples, "sampled": found.sampled}
    if found.nonfinite:
        counts["nonfinite"] = found.nonfinite
    pairs = pairs_of(found)
    if len(pairs) <= 10:
        counts |= {f"{m} {a} ~ {b}": found.at(m, (a, b)).value for m in found.matrices for a, b in pairs}
    return counts


def _measures(found: Similarities, measures: tuple[MeasureName, ...], dataset: str) -> list[Measure]:
    answers = []
    for measure in measures:
        for pair in pairs_of(found, both=measure == "pwcca"):
            value, low, high = _numbers(found, measure, pair)[:3]
            samples = found.at(measure, pair).samples
            answers.append(Measure(dataset, " ~ ".join(pair), "similarity", MEASURES[measure], value, low, high, samples))
    return answers
