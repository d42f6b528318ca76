"""Reads what further training left in a study's folder, encoder by encoder, and what the paper reports in its place."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from examples.reproduce.results import EncoderResults, Study, records, table
from examples.reproduce.verdict import Interval
from sslk.report.paper import paper_table
from sslk.results.run import RESULTS, Run
from sslk.training.studies import PAPER_NAMES

TOP1, AUROC, MEAN_Q = "probe top-1 [points]", "Q-Score AUROC", "mean Q"


class Difference(NamedTuple):
    """An arm less another: mean over the seeds, with its interval over seeds and test images."""

    interval: Interval
    seeds: int


def run_of(study: Study, found: EncoderResults, what: Literal["arms", "gradients"]) -> Run | None:
    """The run of an encoder's arms or gradients; None where it is not finished."""
    if what in found.runs:
        return found.runs[what]
    if study.folder is None or not (study.folder / found.encoder.name / what / RESULTS).is_file():
        return None
    return Run.load(study.folder / found.encoder.name / what)


def difference(study: Study, found: EncoderResults, arm: str, reference: str, quantity: str) -> Difference | None:
    """One arm of an encoder less another; None where they were not trained."""
    run = run_of(study, found, "arms")
    if run is None:
        return None
    for row in records(table(run, "Differences")):
        if (row["arm"], row["reference"], row["quantity"]) == (arm, reference, quantity):
            return Difference(Interval(row["difference"], row["low"], row["high"]), row["seeds"])
    return None


def paper_row(found: EncoderResults) -> dict[str, Any]:
    """The row of the encoder's method in the paper's table A.1, CIFAR-10, by column; empty where it has none."""
    rows = paper_table("tableA1")
    name = PAPER_NAMES.get(found.encoder.method or "")
    for row in [] if rows is None else records(rows):
        if (row["model"], row["dataset"]) == (name, "CIFAR-10"):
            return row
    return {}


def paper_difference(found: EncoderResults, arm: str, reference: str) -> float | None:
    """Top-1 of one arm less another in the paper's table A.1, CIFAR-10, in points; None where it has none."""
    row = paper_row(found)
    return float(row[arm]) - float(row[reference]) if {arm, reference} <= set(row) else None


def beside(interval: Interval, value: float) -> Literal["above", "below", "inside"]:
    """Where a value lies from an interval.

    >>> [beside(Interval(0.0, -0.2, 0.3), value) for value in (1.48, 0.1, -0.5)]
    ['above', 'inside', 'below']
    """
    return "above" if value > interval.high else "below" if value < interval.low else "inside"
