"""Reads what the steps of `signal.py` left in a study's folder."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from examples.reproduce.encoders import METHODS
from examples.reproduce.signal_steps import EPOCHS
from sslk.quality import signal_over_epochs
from sslk.quality.signal import KNOWN
from sslk.quality.studies.signal_tables import AREAS, NESTED, OVER_EPS, OVER_FEATURES, PARTIAL, columns_of, given, records
from sslk.results.atomic import write_table
from sslk.results.run import RESULTS, Run

Rows = list[dict[str, Any]]
NOTHING, NORM, CONFIDENCE, BOTH = GIVEN = tuple(given(names) for names in ((), *KNOWN))
"""What is given, as the tables call it."""
KINDS = ("self-supervised", "supervised", "untrained")


class Bounds(NamedTuple):
    """A number with its 95 % interval; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None

    def text(self, digits: int = 3, sign: str = "") -> str:
        """Such as `0.540 [0.527, 0.553]`; a dash for what is not defined."""
        if self.value is None:
            return "–"
        form = f"{sign}.{digits}f"
        bounds = "" if self.low is None or self.high is None else f" [{self.low:{form}}, {self.high:{form}}]"
        return f"{self.value:{form}}{bounds}"

    def side(self, at: float = 0.0) -> int:
        """1 where the whole interval lies above, -1 where it lies below, else 0."""
        return int(self.low is not None and self.low > at) - int(self.high is not None and self.high < at)


def bounds(row: Mapping[str, Any], name: str) -> Bounds:
    """A column of a table with its ends."""
    return Bounds(row[name], row[f"{name} low"], row[f"{name} high"])


@dataclass(frozen=True)
class Asked:
    """One encoder, and what Q-Score tells of a classifier on it.

    Attributes:
        name, kind, training: of the encoder.
        run: that of `sslk.quality.signal_study`.
    """

    name: str
    kind: str
    training: str
    run: Run

    def rows(self, title: str) -> Rows:
        """The table whose title starts so."""
        return records(next(table for table in self.run.tables if table.title.startswith(title)))

    @property
    def areas(self) -> dict[str, dict[str, Any]]:
        """AUROC and differences to Q-Score by score."""
        return {row["score"]: row for row in self.rows(AREAS)}

    @property
    def over_eps(self) -> Rows:
        """Thresholds at which some feature is discriminative."""
        return [row for row in self.rows(OVER_EPS) if row["AUROC"] is not None]

    @property
    def over_features(self) -> Rows:
        """Sizes of which some subset has a set."""
        return [row for row in self.rows(OVER_FEATURES) if row["AUROC"] is not None]

    def partial(self, score: str, given: str) -> Bounds | None:
        """Rank correlation of a score with correctness; None where it is itself given, or is not there."""
        found = (row for row in self.rows(PARTIAL) if (row["score"], row["given"]) == (score, given))
        return next((bounds(row, "correlation") for row in found), None)

    def added(self, known: str) -> dict[str, Any]:
        """The regressions on what is known, with and without Q-Score."""
        return next(row for row in self.rows(NESTED) if row["known"] == known)

    def number(self, name: str) -> float:
        """Of the summary."""
        value = self.run.summary[name]
        assert isinstance(value, int | float)
        return float(value)


def read_signals(folder: Path) -> list[Asked]:
    """All encoders that were asked about: self-supervised ones, supervised ones, controls."""
    found = []
    for path in folder.glob(f"*/signal/{RESULTS}"):
        run = Run.load(path.parent)
        about = run.provenance
        found.append(Asked(about["encoder"], about["kind"], about["training"], run))

    def order(asked: Asked) -> tuple[int, int, str]:
        place = METHODS.index(asked.name) + 1 if asked.name in METHODS else 0
        return KINDS.index(asked.kind), place, asked.name

    return sorted(found, key=order)


def read_epochs(folder: Path, numbers: Path) -> dict[str, Rows]:
    """The tables over epochs by encoder; those of this study are first written to `numbers/epochs-NAME.csv`.

    The encoders of single epochs are not part of the repository, so that the tables of an earlier study stay.
    """
    for place in sorted(path for path in folder.glob(f"{EPOCHS}/*") if path.is_dir()):
        runs = {int(path.parent.name): Run.load(path.parent) for path in place.glob(f"*/{RESULTS}")}
        if runs:
            columns = columns_of(signal_over_epochs(runs, place.name).tables[0])
            write_table(numbers / f"{EPOCHS}-{place.name}.csv", [columns, *zip(*columns.values(), strict=True)])
    tables = {}
    for path in sorted(numbers.glob(f"{EPOCHS}-*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            rows: Rows = [{key: float(cell) if cell else None for key, cell in row.items()} for row in csv.DictReader(file)]
        tables[path.stem.removeprefix(f"{EPOCHS}-")] = [{**row, "epoch": int(row["epoch"])} for row in rows]
    return {name: rows for name, rows in tables.items() if len(rows) > 1}
