"""Output of the commands: progress bars on standard error, results on standard output."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def progress_bar(task: str, quiet: bool = False) -> Iterator[Callable[..., None]]:
    """A bar on standard error with elapsed and remaining time; yields `update(done, total, task)`, the task optional."""
    console = Console(stderr=True, quiet=quiet)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        row = bar.add_task(task, total=None)

        def update(done: int, total: int, name: str | None = None) -> None:
            nonlocal row, task
            if name is not None and name != task:  # the next stage has a bar of its own
                row, task = bar.add_task(name, total=total), name
            bar.update(row, completed=done, total=total)

        yield update


def print_fields(fields: dict[str, Any], as_json: bool) -> None:
    """Print named values, one a line, or as one JSON object."""
    if as_json:
        print(json.dumps(fields, default=str, indent=2))
        return
    width = max(map(len, fields))
    for name, value in fields.items():
        print(f"{name.replace('_', ' '):<{width}}  {f'{value:.4g}' if isinstance(value, float) else value}")
