"""What every protocol leaves in its output folder, and what `sslk report` and `sslk report compare` read: `results.json`."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sslk.files.regular import require_regular_file
from sslk.results.atomic import write_atomically

Kind = Literal[
    "qscore",
    "finetune",
    "probe",
    "compression",
    "transfer",
    "ablation",
    "reverse",
    "masked",
    "interpret",
    "evaluation",
    "panel",
    "similarity",
    "monitor",
]
RESULTS = "results.json"
Value = float | int | str | bool | None
_FORMAT = "sslk-run-1"
_MOST_BYTES = 64 << 20  # of a results.json that is read


class RunError(ValueError):
    """A folder is no run, or its results are damaged."""


@dataclass(frozen=True)
class RunTable:
    """A table of a run.

    Attributes:
        title: one line.
        columns: names, with units.
        rows: numbers, strings or None.
        paper: the table of a paper it answers to.
        fold: shown folded: what was tried rather than what was found.
    """

    title: str
    columns: list[str]
    rows: list[list[Any]]
    paper: str | None = None
    fold: bool = False


@dataclass(frozen=True)
class Measure:
    """One number: what a model reaches in a task on some data, with its interval where it has one.

    `sslk report` writes those of all its runs as JSON lines, and draws them over models.

    Attributes:
        data: name of the data set, with its split.
        model: what was measured.
        task: how: linear probe, k-NN, failure prediction by Q-Score, label-free panel, ...
        metric: the number's name, with its unit: top-1 [%], AUROC, RankMe, ...
        value: NaN where the data do not define it.
        low, high: ends of its 95 % interval.
        samples: how many samples it is of.
    """

    data: str
    model: str
    task: str
    metric: str
    value: float | int | None
    low: float | None = None
    high: float | None = None
    samples: int | None = None


@dataclass(frozen=True)
class RunFigure:
    """A picture (SVG or PNG) and its data (CSV or JSON), both relative to the run's folder, and what it shows."""

    title: str
    file: str
    alt: str
    data: str | None = None

    def write(self, folder: Path) -> None:
        """Nothing: its files are in the folder. A `sslk.results.Picture` is drawn here."""


@dataclass(frozen=True)
class Run:
    """What a study found: a value, until it is saved into a folder that `sslk report` reads.

    Attributes:
        kind: which protocol.
        title: one line.
        findings: what was found and how sure it is, one sentence each, numbers with intervals.
        provenance: from `sslk.results.provenance.provenance`: command, config, seed, data, weights, versions, commit.
        summary: named scalars, the headline numbers.
        tables, figures: what to show, in this order; figures are drawn when the run is saved.
        measures: its numbers one by one: of which model on which data in which task.
        files: what else the run leaves, such as a probe's answers: by name, a function that writes that file.
    """

    kind: Kind
    title: str
    findings: list[str]
    provenance: dict[str, Any]
    summary: Mapping[str, Value] = field(default_factory=dict)
    tables: list[RunTable] = field(default_factory=list)
    figures: Sequence[RunFigure] = field(default_factory=list)
    measures: Sequence[Measure] = field(default_factory=list)
    files: Mapping[str, Callable[[Path], Any]] = field(default_factory=dict, repr=False, compare=False)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write files, figures and last `results.json`, which appears only when it is whole. NaN becomes null.

        >>> import tempfile
        >>> run = Run("probe", "Linear probe", ["Top-1 is 72.1 %."], {"seed": 0}, {"top1": 0.721})
        >>> Run.load(run.save(tempfile.mkdtemp()).parent).summary
        {'top1': 0.721}
        """
        path = Path(folder) / RESULTS
        path.parent.mkdir(parents=True, exist_ok=True)
        for name, write in self.files.items():
            write(path.parent / name)
        for figure in self.figures:
            figure.write(path.parent)
        text = json.dumps({"format": _FORMAT, **_plain(_content(self))}, indent=1, allow_nan=False)
        write_atomically(path, text.encode())
        return path

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Run:
        """Read what `save` wrote.

        Raises:
            RunError: the folder holds no results, or they are damaged or of another format.
        """
        from pydantic import ValidationError
        from pydantic_core import from_json

        path = Path(folder) / RESULTS
        try:
            require_regular_file(path, "the results", _MOST_BYTES)
            content = from_json(path.read_bytes())
        except FileNotFoundError:
            raise RunError(f"{folder} holds no {RESULTS}: it is no run, or the run has not finished.") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{path} is damaged: {error}.") from None
        if not isinstance(content, dict) or content.pop("format", None) != _FORMAT or "files" in content:
            raise RunError(f"{path} is not of the format {_FORMAT}.")
        try:
            run: Run = _schema().validate_python(content)
            _check(run)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise RunError(f"{path} is damaged: {place}: {first['msg'].lower()}.") from None
        except ValueError as error:
            raise RunError(f"{path} is damaged: {error}") from None
        return run


def _content(run: Run) -> dict[str, Any]:
    """What the file holds of a run."""
    return {
        "kind": run.kind,
        "title": run.title,
        "findings": run.findings,
        "provenance": run.provenance,
        "summary": dict(run.summary),
        "tables": [{name: value for name, value in vars(table).items() if name != "fold" or value} for table in run.tables],
        "figures": [{"title": f.title, "file": f.file, "alt": f.alt, "data": f.data} for f in run.figures],
        "measures": [vars(measure) for measure in run.measures],
    }


@functools.cache
def _schema() -> Any:
    """The types of `Run` as a check of what a file holds."""
    from pydantic import TypeAdapter

    return TypeAdapter(Run)


def _check(run: Run) -> None:
    """What types do not say: numbers that can be drawn, names that a file can have."""
    for value in [*run.summary.values(), *(value for table in run.tables for row in table.rows for value in row)]:
        if not isinstance(value, Value):
            raise ValueError(f"a cell must be a number, a string or null, got {type(value).__name__}.")
        if isinstance(value, int) and abs(value) > 10**300:
            raise ValueError("it holds a number above 1e300.")
    for number in [n for m in run.measures for n in (m.value, m.low, m.high)]:
        if isinstance(number, int) and abs(number) > 10**300:
            raise ValueError("it holds a number above 1e300.")
    for file in [name for figure in run.figures for name in (figure.file, figure.data) if name is not None]:
        if not file or "\0" in file:
            raise ValueError(f"{file!r} is no name of a figure's file.")


def _plain(value: Any) -> Any:
    """Numbers of NumPy and torch as Python's, NaN and infinities as None: what JSON can hold."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, int | float | bool):
        return value
    return str(value).encode("utf-8", "backslashreplace").decode()  # the name of a file may be no UTF-8
