"""Figures into a run's folder: the picture, and the numbers behind it as CSV."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from sslk.files.tables import write_rows
from sslk.results.run import RunFigure


def save_figure(
    figure: Figure,
    folder: str | os.PathLike[str],
    name: str,
    title: str,
    alt: str,
    data: Mapping[str, Sequence[Any]] | None = None,
    picture: Literal["svg", "png"] = "svg",
) -> RunFigure:
    """Write a matplotlib figure and its data into a run's folder, close it, and return the entry for `Run.figures`.

    Args:
        figure: closed afterwards.
        folder: of the run, made if absent.
        name: of the files, without suffix.
        title: one line.
        alt: what the figure shows, for who cannot see it.
        data: columns by name, written as CSV; shorter columns are filled with empty cells.
        picture: png where the figure is made of photographs.

    Examples:
        >>> import tempfile
        >>> figure, axes = plt.subplots()
        >>> lines = axes.plot([1, 2, 3], [1, 4, 9])
        >>> saved = save_figure(figure, tempfile.mkdtemp(), "squares", "Squares", "A parabola.", {"x": [1, 2, 3]})
        >>> saved.file, saved.data
        ('squares.svg', 'squares.csv')
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    # The same figure gives the same bytes: no date, and ids that are not random.
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(path / f"{name}.{picture}", dpi=110, metadata={"Date": None} if picture == "svg" else None)
    plt.close(figure)
    if data is not None:
        with (path / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
            write_rows(stream, [data, *zip_longest(*data.values(), fillvalue="")])
    return RunFigure(title, f"{name}.{picture}", alt, None if data is None else f"{name}.csv")
