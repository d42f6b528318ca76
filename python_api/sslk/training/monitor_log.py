"""Where the values of a monitor go: a CSV file, TensorBoard, any logger of Lightning, a function."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sslk.results.atomic import write_table

Row = dict[str, float]


def send(loggers: Iterable[Any], values: Row, step: int) -> None:
    """Give values to a `SummaryWriter`, a logger of Lightning, or a function of values and step.

    >>> send([lambda values, step: print(step, values)], {"monitor/rankme": 3.0}, 7)
    7 {'monitor/rankme': 3.0}
    """
    for logger in loggers:
        if hasattr(logger, "log_metrics"):
            logger.log_metrics(values, step)
        elif hasattr(logger, "add_scalar"):
            for name, value in values.items():
                logger.add_scalar(name, value, step)
        else:
            logger(values, step)


def require_loggers(loggers: Iterable[Any]) -> None:
    """Raise TypeError where one of them takes no values."""
    for logger in loggers:
        if not (hasattr(logger, "log_metrics") or hasattr(logger, "add_scalar") or callable(logger)):
            raise TypeError(
                "loggers must be SummaryWriters, loggers of Lightning or functions of values and step, got "
                f"{type(logger).__name__}."
            )


def columns_of(rows: list[Row]) -> dict[str, list[float | None]]:
    """The rows by column, step and epoch first; None where a row has no value.

    >>> columns_of([{"step": 1, "a": 2.0}, {"step": 2, "b": 3.0}])
    {'step': [1, 2], 'a': [2.0, None], 'b': [None, 3.0]}
    """
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def write_csv(path: Path, rows: list[Row]) -> None:
    """All rows, atomically: whoever reads sees a whole curve, whenever the training is killed."""
    columns = columns_of(rows)
    write_table(path, [columns, *zip(*columns.values(), strict=True)])
