"""What every protocol leaves in its output folder, and what `sslk report` and `sslk compare` read: `results.json`."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Kind = Literal["qscore", "finetune", "probe", "compression", "transfer", "ablation", "reverse", "masked", "interpret",
               "evaluation"]  # fmt: skip
RESULTS = "results.json"
_FORMAT = "sslk-run-1"


class RunError(ValueError):
    """A folder is no run, or its results are damaged."""


@dataclass(frozen=True)
class RunTable:
    """A table: column names with units, rows of numbers, strings or None; `paper` names the table it answers to."""

    title: str
    columns: list[str]
    rows: list[list[Any]]
    paper: str | None = None


@dataclass(frozen=True)
class RunFigure:
    """A picture (SVG or PNG) and its data (CSV or JSON), both relative to the run's folder, and what it shows."""

    title: str
    file: str
    alt: str
    data: str | None = None


@dataclass(frozen=True)
class Run:
    """The results of one command.

    Attributes:
        kind: which protocol.
        title: one line.
        findings: what was found and how sure it is, one sentence each, numbers with intervals.
        provenance: from `sslk.provenance.provenance`: command, config, seed, data, weights, versions, commit.
        summary: named scalars, the headline numbers.
        tables, figures: what to show, in this order.
    """

    kind: Kind
    title: str
    findings: list[str]
    provenance: dict[str, Any]
    summary: dict[str, float | int | str | None] = field(default_factory=dict)
    tables: list[RunTable] = field(default_factory=list)
    figures: list[RunFigure] = field(default_factory=list)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write `results.json` into the folder; the file appears only when it is whole. NaN becomes null.

        >>> import tempfile
        >>> run = Run("probe", "Linear probe", ["Top-1 is 72.1 %."], {"seed": 0}, {"top1": 0.721})
        >>> Run.load(run.save(tempfile.mkdtemp()).parent).summary
        {'top1': 0.721}
        """
        path = Path(folder) / RESULTS
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{RESULTS}.tmp")
        try:
            temporary.write_text(
                json.dumps({"format": _FORMAT, **_plain(asdict(self))}, indent=1, allow_nan=False), encoding="utf-8"
            )
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        return path

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Run:
        """Read what `save` wrote.

        Raises:
            RunError: the folder holds no results, or they are damaged or of another format.
        """
        path = Path(folder) / RESULTS
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunError(f"{folder} holds no {RESULTS}: it is no run, or the run has not finished.") from None
        except ValueError as error:
            raise RunError(f"{path} is damaged: {error}.") from None
        if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
            raise RunError(f"{path} is not of the format {_FORMAT}.")
        tables = [RunTable(**table) for table in content.pop("tables")]
        figures = [RunFigure(**figure) for figure in content.pop("figures")]
        return cls(**content, tables=tables, figures=figures)


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
    return value if isinstance(value, str | int | float | bool | None) else str(value)
