"""Reads what further training left in a study's folder: the runs of the arms and of the gradients, encoder by encoder."""

from __future__ import annotations

from typing import Literal, NamedTuple

from examples.reproduce.results import EncoderResults, Study, records, table
from examples.reproduce.verdict import Interval
from sslk.results.run import RESULTS, Run

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
