"""Two studies of different seeds side by side: do their intervals overlap?"""

from __future__ import annotations

import math
from statistics import stdev
from typing import Any

from scipy.stats import t as student

from examples.reproduce.claims_masked import similarities
from examples.reproduce.results import EncoderResults, Study, records, table
from examples.reproduce.verdict import Interval

SHOWN = [("original", "center"), ("center", "border")]


def agreement_table(first: Study, second: Study) -> tuple[list[str], list[list[Any]], int]:
    """Columns, rows and how many rows disagree: numbers with intervals that both studies have.

    Intervals are of the test samples (accuracy, AUROC, CKA) or of the clusterings (NMI).
    """
    rows: list[list[Any]] = []
    apart = 0
    others = {found.encoder.name: found for found in second.encoders}
    for found in first.encoders:
        if found.encoder.name not in others:
            continue
        mine, theirs = intervals(found), intervals(others[found.encoder.name])
        for name in (name for name in mine if name in theirs):
            a, b = mine[name], theirs[name]
            overlap = a.low <= b.high and b.low <= a.high
            apart += not overlap
            rows.append([found.encoder.name, name, _text(a), _text(b), "yes" if overlap else "no"])
    columns = ["encoder", "number", f"seed {first.config.seed}", f"seed {second.config.seed}", "overlap"]
    return columns, rows, apart


def intervals(found: EncoderResults) -> dict[str, Interval]:
    """The numbers of an encoder that have an interval."""
    named: dict[str, Interval] = {}
    for label, protocol, name in (
        ("linear probe top-1", "linear", "top1"),
        ("k-NN top-1", "knn", "top1"),
        ("Q-Score AUROC", "failure", "auroc"),
        ("Q-Score AUPRC", "failure", "auprc"),
    ):
        values = [found.number(protocol, key) for key in (name, f"{name}_low", f"{name}_high")]
        if None not in values:
            named[label] = Interval(*(value for value in values if value is not None))
    if "reverse" in found.runs:
        groups: dict[tuple[int, str], list[float]] = {}
        for row in records(table(found.runs["reverse"], "NMI of every")):
            groups.setdefault((row["K"], row["concepts"]), []).append(row["NMI"])
        for (clusters, concepts), values in groups.items():
            if concepts in ("labels", "all") and len(values) > 1:
                mean = math.fsum(values) / len(values)
                half = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
                named[f"NMI, K = {clusters}, {concepts}"] = Interval(mean, mean - half, mean + half)
    if "masked" in found.runs:
        pairs = similarities(found)
        named |= {f"CKA {a}–{b}": pairs[a, b] for a, b in SHOWN}
    return named


def _text(interval: Interval) -> str:
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
