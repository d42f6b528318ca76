"""One self-contained HTML page from any set of runs: what `sslk report` writes."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from sslk.files.regular import require_regular_file
from sslk.report.collect import Group, LoadedRun, group_runs, load_runs, merged_tables, summaries
from sslk.report.leaderboard import Leaderboard, leaderboards, measures_table
from sslk.report.paper import paper_table
from sslk.results.atomic import write_atomically
from sslk.results.numbers import column_texts, text_of
from sslk.results.run import RunFigure, RunTable

_SUFFIXES = {".svg": "image/svg+xml", ".png": "image/png", ".csv": "text/csv", ".json": "application/json"}
_MOST_ROWS = 300  # of one table on the page; the whole table is in its download
_MOST_BARS = 16  # metrics drawn per group
_MOST_BOARDS = 24


@dataclass
class _Table:
    """A table as the template wants it: text and sort key of every cell."""

    title: str
    columns: list[str]
    rows: list[list[tuple[str, str]]]
    csv: str | None = None
    left_out: int = 0
    paper: _Table | None = None
    fold: bool = False

    @cached_property
    def numeric(self) -> set[int]:
        """Columns with at least one number."""
        return {i for row in self.rows for i, (_, key) in enumerate(row) if key}


@dataclass
class _Figure:
    title: str
    alt: str
    picture: str | None  # data URI, or None where the file is not embedded
    file: str
    note: str = ""
    data: str | None = None
    data_file: str = ""


@dataclass
class _Bars:
    """One metric over the runs of a group, as shares of the drawing's width in percent."""

    name: str
    alt: str
    zero: float
    bars: list[dict[str, Any]] = field(default_factory=list)


class _Budget:
    """Bytes that pictures and data may still take on the page."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.left_out: list[str] = []

    def embed(self, folder: Path, file: str) -> tuple[str | None, str]:
        """A file of a run as a data URI, or None and why it is not embedded."""
        try:
            path = (folder / file).resolve()
        except (OSError, RuntimeError):  # links that lead to each other
            return None, f"{file} could not be read."
        if not path.is_relative_to(folder.resolve()):
            return None, f"{file} lies outside the run's folder and was not read."
        if path.suffix not in _SUFFIXES:
            return None, f"{file} is of no kind that a page can hold ({', '.join(_SUFFIXES)})."
        try:
            size = require_regular_file(path, "the figure")
            if 4 * size // 3 > self.left:
                self.left_out.append(str(folder / file))
                return None, f"{file} ({size / 1e6:.1f} MB) is too large for this page; it is in the run's folder."
            content = path.read_bytes()
        except OSError as error:
            return None, f"{file} could not be read: {error.strerror}."
        except ValueError:
            return None, f"{file} is no regular file and was not read."
        encoded = base64.b64encode(content).decode()
        self.left -= len(encoded)
        return f"data:{_SUFFIXES[path.suffix]};base64,{encoded}", ""


def render_page(
    folders: Sequence[Path],
    title: str | None = None,
    waiting: Sequence[str] = (),
    watch: bool = False,
    max_megabytes: float = 8.0,
) -> str:
    """The page of the runs in `folders`, as HTML.

    Args:
        folders: run folders, as `sslk.report.collect.find_runs` gives them.
        title: of the page; that of the run where there is only one.
        waiting: sentences about runs that are not finished.
        watch: the page asks its server for changes.
        max_megabytes: pictures and data that would make the page larger are left in their folders, and named.

    Raises:
        ValueError: no run could be read and none is waited for.
    """
    runs, problems = load_runs(folders)
    if not runs and not watch:
        raise ValueError(" ".join(problems) or "no finished run was found: give folders that hold results.json.")
    groups, notes = group_runs(runs)
    budget = _Budget(int(max_megabytes * 1e6 * 0.9))  # the rest is text
    sections = [_section(loaded, number, budget) for number, loaded in enumerate(runs, 1)]
    if budget.left_out:
        notes.append(f"Left out for the size of the page: {', '.join(budget.left_out)}.")
    script = (files("sslk.report") / "templates" / "report.js").read_text(encoding="utf-8")
    environment = Environment(loader=PackageLoader("sslk.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("report.html").render(
        title=title or (runs[0].run.title if len(runs) == 1 else f"Report on {len(runs)} runs"),
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        notes=[*problems, *notes, *waiting],
        lead=sections[0] if sections and sections[0]["kind"] == "evaluation" else None,
        sections=sections,
        boards=[_board(board) for board in leaderboards(runs)[:_MOST_BOARDS]],
        measures=_table(measures_table(runs)),
        groups=[_comparison(group, number) for number, group in enumerate(groups, 1) if len(group.runs) > 1],
        script=script,
        # Only this script may run, whatever a name in the data holds.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        watch=watch,
    )


def write_page(path: str | os.PathLike[str], html: str) -> None:
    """Write the page; what was there stays until the new page is whole."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, html.encode("utf-8", "backslashreplace"))


def _section(loaded: LoadedRun, number: int, budget: _Budget) -> dict[str, Any]:
    run = loaded.run
    return {
        "name": loaded.name,
        "anchor": f"run-{number}",
        "title": run.title,
        "kind": run.kind,
        "findings": run.findings,
        "summary": [(name.replace("_", " "), text_of(value)) for name, value in run.summary.items()],
        "tables": [_table(table) for table in run.tables],
        "figures": [_figure(figure, loaded.folder, budget) for figure in run.figures],
        "provenance": [
            (key, value if isinstance(value, str) else json.dumps(value, indent=1, ensure_ascii=False))
            for key, value in {**run.provenance, "folder": str(loaded.folder)}.items()
        ],
    }


def _comparison(group: Group, number: int) -> dict[str, Any]:
    return {
        "kind": group.kind,
        "anchor": f"compare-{number}",
        "names": [loaded.name for loaded in group.runs],
        "table": _table(summaries(group)),
        "bars": _bars(group),
        "tables": [_table(table) for table in merged_tables(group)],
        "differing": [{"name": name, "values": values} for name, values in group.differing],
    }


def _bars(group: Group) -> list[_Bars]:
    """One bar per run for every headline number that all runs have."""
    drawn: list[_Bars] = []
    for name in group.runs[0].run.summary:
        values = [loaded.run.summary.get(name) for loaded in group.runs]
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        if len(numbers) < len(values) or len(drawn) == _MOST_BARS:
            continue
        low, high = min(0, *numbers), max(0, *numbers)
        scale = 100 / (high - low) if high > low else 0.0
        shown = name.replace("_", " ")
        pairs = list(zip(group.runs, numbers, strict=True))
        alt = f"{shown}: " + ", ".join(f"{loaded.name} {text_of(value)}" for loaded, value in pairs)
        drawn.append(
            _Bars(
                shown,
                alt,
                -low * scale,
                [
                    {
                        "label": loaded.name,
                        "text": text_of(value),
                        "x": (min(value, 0) - low) * scale,
                        "width": abs(value) * scale,
                    }
                    for loaded, value in pairs
                ],
            )
        )
    return drawn


def _board(board: Leaderboard) -> dict[str, Any]:
    """A chart of one number over models: a point and its interval each."""
    rows, texts = [], []
    for (name, measure), (low, value, high) in zip(board.entries, board.spans(), strict=True):
        known = measure.low is not None and measure.high is not None
        text = text_of(measure.value) + (f" [{text_of(measure.low)}, {text_of(measure.high)}]" if known else "")
        rows.append({"label": name, "text": text, "low": low, "value": value, "high": high})
        texts.append(f"{name} {text}")
    title = f"{board.task}: {board.metric}"
    return {"title": title, "data": board.data, "alt": f"{title} on {board.data}: " + ", ".join(texts), "rows": rows}


def _table(table: RunTable) -> _Table:
    width = len(table.columns)  # a row of another length is cut or filled, so that one run cannot cost the page
    shown = [[*row[:width], *[None] * (width - len(row))] for row in table.rows[:_MOST_ROWS] if width]
    texts = zip(*(column_texts(column) for column in zip(*shown, strict=True)), strict=True)
    rows = [
        [(text, _sort_key(cell)) for text, cell in zip(line, row, strict=True)] for line, row in zip(texts, shown, strict=True)
    ]
    left_out = max(0, len(table.rows) - _MOST_ROWS)
    paper = paper_table(table.paper) if table.paper else None
    csv = _csv(table) if left_out else None
    return _Table(table.title, table.columns, rows, csv, left_out, _table(paper) if paper else None, table.fold)


def _figure(figure: RunFigure, folder: Path, budget: _Budget) -> _Figure:
    picture, note = budget.embed(folder, figure.file)
    data, data_note = budget.embed(folder, figure.data) if figure.data else (None, "")
    return _Figure(
        figure.title,
        figure.alt,
        picture,
        Path(figure.file).name,
        " ".join(filter(None, (note, data_note))),
        data,
        Path(figure.data or "").name,
    )


def _sort_key(value: Any) -> str:
    """The full number, or nothing: cells without it sort by their text."""
    return repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _csv(table: RunTable) -> str:
    import io

    from sslk.files.tables import write_rows

    buffer = io.StringIO()
    write_rows(buffer, [table.columns, *table.rows])
    return "data:text/csv;base64," + base64.b64encode(buffer.getvalue().encode("utf-8", "backslashreplace")).decode()
