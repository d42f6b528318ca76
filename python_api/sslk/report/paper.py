"""The papers' tables, which stand beside a user's own numbers."""

from __future__ import annotations

import csv
from importlib.resources import files

from sslk.results.run import RunTable


def paper_table(name: str) -> RunTable | None:
    """The table that `RunTable.paper` names (`qscore_table1`, or `table1` where only one paper has it), or None.

    >>> paper_table("no such table") is None
    True
    """
    folder = files("sslk") / "paper_tables"
    if not folder.is_dir():
        return None
    found = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".csv")), key=lambda entry: entry.name)
    wanted = name.removesuffix(".csv").lower()
    exact = [entry for entry in found if entry.name.removesuffix(".csv").lower() == wanted]
    ending = [entry for entry in found if entry.name.removesuffix(".csv").lower().endswith(f"_{wanted}")]
    chosen = exact or (ending if len(ending) == 1 else [])
    if not chosen:
        return None
    columns, *rows = csv.reader(chosen[0].read_text(encoding="utf-8").splitlines())
    return RunTable(f"The paper's numbers ({chosen[0].name})", columns, [[_number(cell) for cell in row] for row in rows])


def _number(cell: str) -> float | str | None:
    try:
        return float(cell) if cell else None
    except ValueError:
        return cell
