"""The numbers of all runs one by one: as lines of JSON, and models in order wherever several have the same number."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslk.report.collect import LoadedRun, load_runs
from sslk.results.atomic import write_atomically
from sslk.results.run import Measure, RunTable


@dataclass(frozen=True)
class Leaderboard:
    """Models with one number on the same data, the largest first.

    Attributes:
        data, task, metric: what the number is.
        entries: name and number; the name of the run follows that of a model which several runs measured.
    """

    data: str
    task: str
    metric: str
    entries: list[tuple[str, Measure]]

    def spans(self) -> list[tuple[float, float, float]]:
        """Start, value and end of every entry's interval as shares of the drawing's width, 0 to 100; equal without one."""
        ends = [_ends(measure) for _, measure in self.entries]
        least, most = min(low for low, _, _ in ends), max(high for _, _, high in ends)
        scale = 100 / (most - least) if most > least else 0.0
        return [tuple((x - least) * scale if scale else 50.0 for x in each) for each in ends]  # type: ignore[misc]


def leaderboards(runs: Iterable[LoadedRun]) -> list[Leaderboard]:
    """One for every (data, task, metric) that at least two models have, in the order in which runs hold them."""
    found: dict[tuple[str, str, str], list[tuple[str, Measure]]] = {}
    for loaded in runs:
        for measure in loaded.run.measures:
            if _is_number(measure.value):
                found.setdefault((measure.data, measure.task, measure.metric), []).append((loaded.name, measure))
    boards = []
    for key, given in found.items():
        models = [measure.model for _, measure in given]
        if len(set(models)) > 1:
            named = [(m.model if models.count(m.model) == 1 else f"{m.model} ({run})", m) for run, m in given]
            boards.append(Leaderboard(*key, sorted(named, key=lambda entry: -float(entry[1].value or 0))))
    return boards


def measures_table(runs: Iterable[LoadedRun]) -> RunTable:
    """Every number of every run, a row each."""
    columns = ["run", "data", "model", "task", "metric", "value", "low", "high", "samples"]
    rows = [[loaded.name, *_cells(measure)] for loaded in runs for measure in loaded.run.measures]
    return RunTable("Every number, with its 95 % interval where it has one", columns, rows, fold=True)


def write_measures(path: str | os.PathLike[str], folders: Sequence[Path]) -> int:
    """Write one line of JSON for every (data, model, task, metric) of the runs in `folders`, and return how many.

    A line has the fields of `sslk.results.Measure` and `run`, the run's name; what is not a number is null. The same number
    measured by two runs is two lines. Runs that cannot be read are left out; the page of the same folders says which.
    """
    runs, _ = load_runs(folders)
    lines = [
        json.dumps({**{name: _plain(value) for name, value in vars(measure).items()}, "run": loaded.name}, ensure_ascii=False)
        for loaded in runs
        for measure in loaded.run.measures
    ]
    write_atomically(Path(path), "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))
    return len(lines)


def _cells(measure: Measure) -> list[Any]:
    return [getattr(measure, name) for name in ("data", "model", "task", "metric", "value", "low", "high", "samples")]


def _ends(measure: Measure) -> tuple[float, float, float]:
    value = float(measure.value or 0)
    low, high = (float(end) if _is_number(end) else value for end in (measure.low, measure.high))  # type: ignore[arg-type]
    return min(low, value), value, max(high, value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) or _is_number(value) else None
