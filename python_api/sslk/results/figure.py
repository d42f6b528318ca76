"""Figures of a run: drawn when it is saved, as a picture with the numbers behind it as CSV."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sslk.results.atomic import write_table
from sslk.results.run import RunFigure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture(RunFigure):
    """A figure that is drawn when its run is saved; made by `picture`.

    Attributes:
        draw: makes the matplotlib figure.
        columns: the numbers behind it by column, written as CSV; shorter columns are filled with empty cells.
        dpi: of the picture.
    """

    draw: Callable[[], Figure] | None = field(default=None, repr=False, compare=False)
    columns: Mapping[str, Sequence[Any]] | None = field(default=None, repr=False, compare=False)
    dpi: int = 110

    def write(self, folder: Path) -> None:
        """Draw the figure, and write the picture and the CSV."""
        name, _, suffix = self.file.rpartition(".")
        assert self.draw is not None
        save_figure(self.draw(), folder, name, self.title, self.alt, self.columns, suffix, self.dpi)  # type: ignore[arg-type]


def picture(
    name: str,
    title: str,
    alt: str,
    draw: Callable[[], Figure],
    columns: Mapping[str, Sequence[Any]] | None = None,
    kind: Literal["svg", "png"] = "svg",
    dpi: int = 110,
) -> Picture:
    """A figure for `Run.figures`.

    Args:
        name: of the files, without suffix.
        title: one line.
        alt: what the figure shows, for who cannot see it.
        draw: makes the matplotlib figure; called when the run is saved.
        columns: the numbers behind it by column.
        kind: png where the figure is made of photographs.
        dpi: of a png.
    """
    return Picture(title, f"{name}.{kind}", alt, None if columns is None else f"{name}.csv", draw, columns, dpi)


def save_figure(
    figure: Figure,
    folder: str | os.PathLike[str],
    name: str,
    title: str,
    alt: str,
    data: Mapping[str, Sequence[Any]] | None = None,
    picture: Literal["svg", "png"] = "svg",
    dpi: int = 110,
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
        dpi: of the picture.

    Examples:
        >>> import tempfile
        >>> from matplotlib import pyplot as plt
        >>> figure, axes = plt.subplots()
        >>> lines = axes.plot([1, 2, 3], [1, 4, 9])
        >>> saved = save_figure(figure, tempfile.mkdtemp(), "squares", "Squares", "A parabola.", {"x": [1, 2, 3]})
        >>> saved.file, saved.data
        ('squares.svg', 'squares.csv')
    """
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    # The same figure gives the same bytes: no date, and ids that are not random.
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(path / f"{name}.{picture}", dpi=dpi, metadata={"Date": None} if picture == "svg" else None)
    plt.close(figure)
    if data is not None:
        write_table(path / f"{name}.csv", [data, *zip_longest(*data.values(), fillvalue="")])
    return RunFigure(title, f"{name}.{picture}", alt, None if data is None else f"{name}.csv")
