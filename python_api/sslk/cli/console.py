"""What commands share: options of their output, progress bars on standard error, results on standard output."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from cyclopts import App, ArgumentCollection, CoercionError, Parameter, Token

if TYPE_CHECKING:
    from sslk.results.run import Run, RunTable

FLAT = Parameter(name="*")  # the fields of a settings dataclass as options of their own


def scalar(kind: Any, tokens: Sequence[Token]) -> int | float | bool | str:
    """A value whose type no signature tells: a whole number, a number, true or false, or a text.

    >>> [scalar(None, [Token(value=text)]) for text in ("3", "0.5", "1e-3", "true", "cosine")]
    [3, 0.5, 0.001, True, 'cosine']
    """
    text = tokens[0].value
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return {"true": True, "false": False}.get(text.lower(), text)


def whole_numbers(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Refuse 1.6 where a whole number is needed, which cyclopts rounds.

    Raises:
        CoercionError: a value is no whole number.
    """
    for argument in arguments:
        if _leaves(argument.hint) == {int}:
            for token in argument.tokens:
                try:
                    whole = float(token.value).is_integer()
                except ValueError:
                    whole = True  # no number at all: the conversion says so
                if not whole:
                    raise CoercionError(argument=argument, token=token, target_type=int)


def _leaves(hint: Any) -> set[Any]:
    inner = get_args(hint)
    return set().union(*map(_leaves, inner)) if inner else {hint} - {type(None), ...}


@dataclass(frozen=True)
class Output:
    """What a command prints.

    Attributes:
        json: print one JSON object.
        quiet: show no progress.
    """

    json: bool = False
    quiet: bool = False

    @contextmanager
    def progress(self) -> Iterator[Callable[[int, int, str], None]]:
        """A bar a stage on standard error, with elapsed and remaining time."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True, quiet=self.quiet)) as bar:
            tasks: dict[str, Any] = {}

            def update(done: int, total: int, stage: str) -> None:
                if stage not in tasks:
                    tasks[stage] = bar.add_task(stage, total=total)
                bar.update(tasks[stage], completed=done, total=total)

            yield update

    def leave(self, run: Run, out: str) -> None:
        """Save a run and print what it found."""
        run.save(out)
        if self.json:
            self.fields({**run.summary, "folder": out})
            return
        print(run.title)
        for finding in run.findings:
            print(f"* {finding}")
        print(Path(out) / "results.json")

    def fields(self, fields: Mapping[str, Any], notes: list[str] | None = None) -> None:
        """Print named values, one a line, or as one JSON object."""
        shown = {**fields, **({"note": " ".join(notes)} if notes else {})}
        if self.json:
            print(json.dumps(shown, default=str, indent=2))
            return
        width = max(map(len, shown))
        for name, value in shown.items():
            print(f"{name.replace('_', ' '):<{width}}  {f'{value:.4g}' if isinstance(value, float) else value}")


def print_table(table: RunTable) -> None:
    """A table of a run on standard output."""
    from rich.console import Console
    from rich.table import Table

    from sslk.results.numbers import column_texts

    shown = Table(title=table.title)
    for place, name in enumerate(table.columns):
        shown.add_column(name, justify="left" if place == 0 else "right")
    for row in zip(*(column_texts(column) for column in zip(*table.rows, strict=True)), strict=True):
        shown.add_row(*row)
    Console().print(shown)
