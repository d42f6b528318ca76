"""A run's tables beside the paper's: rows with the same names, and the differences."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from sslk.report.paper import paper_table
from sslk.results.run import Run, RunTable

_PREFIX = {"reverse": "reverse", "masked": "masked"}


@dataclass(frozen=True)
class Comparison:
    """A run's numbers and a paper's.

    Attributes:
        paper: name of the paper's table.
        keys: the columns by which rows were matched.
        table: keys, then for every shared column ours, the paper's and the difference.
        unmatched: rows of ours that the paper does not have, as text.
    """

    paper: str
    keys: list[str]
    table: RunTable
    unmatched: list[str]

    def described(self) -> dict[str, Any]:
        """As plain data."""
        return {"paper": self.paper, "columns": self.table.columns, "rows": self.table.rows, "unmatched": self.unmatched}


def paper_names() -> list[str]:
    """The tables that are in the package."""
    folder = files("sslk") / "paper_tables"
    return sorted(entry.name.removesuffix(".csv") for entry in folder.iterdir() if entry.name.endswith(".csv"))


def compare(run: Run, paper: str) -> Comparison:
    """The tables of a run beside a table of a paper.

    The run's tables that name the paper's table are compared, or else all that share its columns. Rows match where all
    text columns that both have agree (capitals, blanks and hyphens aside); numbers in shared columns are set side by
    side. Shares in [0, 1] of ours are not turned into percent: tables of runs carry the paper's units.

    Args:
        run: with tables.
        paper: `qscore_table1`, or `table1`, then of the paper that the run's kind belongs to.

    Raises:
        ValueError: no such table (the known ones are listed), or the run has none that can be compared with it.

    >>> ours = RunTable("Arms", ["model", "dataset", "baseline", "qscore"], [["simclr", "CIFAR-10", 70.0, 71.0]])
    >>> found = compare(Run("finetune", "t", [], {}, tables=[ours]), "tableA1")
    >>> found.table.columns
    ['model', 'dataset', 'baseline', 'paper baseline', 'difference', 'qscore', 'paper qscore', 'difference']
    >>> [round(value, 2) for value in found.table.rows[0][2:]]
    [70.0, 90.83, -20.83, 71.0, 92.31, -21.31]
    """
    name = paper if paper in paper_names() else f"{_PREFIX.get(run.kind, 'qscore')}_{paper}"
    theirs = paper_table(name)
    if theirs is None:
        raise ValueError(f"paper must be one of {', '.join(paper_names())} (or their last part), got {paper!r}.")
    named = [table for table in run.tables if table.paper is not None and name.endswith(table.paper)]
    candidates = named or [table for table in run.tables if _shared(table, theirs)[0] and _shared(table, theirs)[1]]
    if not candidates:
        raise ValueError(
            f"the run has no table to compare with {name}: it needs the columns {', '.join(theirs.columns)}, "
            f"the run has {'; '.join(', '.join(table.columns) for table in run.tables) or 'no tables'}."
        )
    keys, numbers = _shared(candidates[0], theirs)
    wanted = {tuple(_plain(row[theirs.columns.index(key)]) for key in keys): row for row in theirs.rows}
    columns = keys + [text for number in numbers for text in (number, f"paper {number}", "difference")]
    rows: list[list[Any]] = []
    unmatched = []
    for table in candidates:
        if _shared(table, theirs) != (keys, numbers):
            continue
        for row in table.rows:
            if len(row) != len(table.columns):
                raise ValueError(f"a row of the table {table.title!r} does not have its {len(table.columns)} columns.")
            own = [row[table.columns.index(key)] for key in keys]
            match = wanted.get(tuple(_plain(value) for value in own))
            if match is None:
                unmatched.append(", ".join(str(value) for value in own))
                continue
            for number in numbers:
                ours, paper_value = row[table.columns.index(number)], match[theirs.columns.index(number)]
                known = isinstance(ours, int | float) and isinstance(paper_value, int | float)
                own += [ours, paper_value, ours - paper_value if known else None]
            rows.append(own)
    return Comparison(name, keys, RunTable(f"{run.title} beside {name}", columns, rows), unmatched)


def _shared(ours: RunTable, theirs: RunTable) -> tuple[list[str], list[str]]:
    """Text columns and number columns that both tables have, in the paper's order."""
    text = [
        column
        for place, column in enumerate(theirs.columns)
        if any(isinstance(row[place], str) for row in theirs.rows) and column in ours.columns
    ]
    return text, [column for column in theirs.columns if column in ours.columns and column not in text]


def _plain(value: Any) -> str:
    return "".join(c for c in str(value).lower() if c.isalnum() or c == "/")
