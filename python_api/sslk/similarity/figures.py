"""Figures of similarities: matrices with their intervals, and curves over the order given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from sslk.results.style import BLUE, ORANGE, new_axes
from sslk.similarity.result import Matrix
from sslk.similarity.settings import DISTANCES, MEASURES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

LIMITS = {"procrustes": (0.0, 2.0), "angular": (0.0, 1.571)}
MOST_PRINTED = 20  # rows or columns up to which values are printed


def draw_matrix(
    ax: Axes,
    values: Tensor,
    rows: Sequence[str],
    columns: Sequence[str],
    limits: tuple[float, float],
    bounds: tuple[Tensor, Tensor] | None = None,
    cmap: str = "viridis",
) -> AxesImage:
    """A matrix in colours on one axes, its values printed, and their intervals small below them.

    Args:
        ax: the axes.
        values: `[R, C]`; NaN stays blank.
        rows, columns: names.
        limits: of the colours; values beyond them are printed all the same.
        bounds: of the intervals; entries whose bounds are equal have none.
        cmap: a dark colour for the lower limit, a light one for the upper, or the other way round with `_r`.
    """
    image = ax.imshow(values.numpy(), cmap=cmap, vmin=limits[0], vmax=limits[1])
    middle, printed = sum(limits) / 2, max(len(rows), len(columns)) <= MOST_PRINTED
    for u in range(len(rows) if printed else 0):
        for v in range(len(columns)):
            value = float(values[u, v])
            color = "black" if (value > middle) != cmap.endswith("_r") else "white"
            spread = bounds is not None and float(bounds[1][u, v] - bounds[0][u, v]) > 1e-6
            if value != value:
                continue
            ax.text(v, u, f"{value:.2f}", ha="center", va="bottom" if spread else "center", color=color, fontsize=9)
            if bounds is not None and spread:
                interval = f"{bounds[0][u, v]:.2f}–{bounds[1][u, v]:.2f}"
                ax.text(v, u + 0.08, interval, ha="center", va="top", color=color, fontsize=5.5)
    ax.set_xticks(range(len(columns)), columns, rotation=40, ha="right", fontsize=8)
    ax.set_yticks(range(len(rows)), rows, fontsize=8)
    return image


def heatmap(measure: str, matrix: Matrix, rows: Sequence[str], columns: Sequence[str]) -> Figure:
    """One measure between rows and columns, light where they are alike."""
    figure, axes = new_axes(2.2 + 0.85 * min(len(columns), 14), 1.8 + 0.7 * min(len(rows), 14))
    axes[0].spines[:].set_visible(False)
    known = bool(matrix.low.isfinite().any())
    image = draw_matrix(
        axes[0],
        matrix.value,
        rows,
        columns,
        LIMITS.get(measure, (0.0, 1.0)),
        (matrix.low, matrix.high) if known else None,
        "viridis_r" if measure in DISTANCES else "viridis",
    )
    figure.colorbar(image, ax=axes[0], label=MEASURES[measure], shrink=0.85)  # type: ignore[index]
    return figure


def curve(measures: Sequence[str], matrices: Sequence[Matrix], names: Sequence[str]) -> Figure:
    """Every measure of each representation with the last and with the one before it, over the order given."""
    figure, axes = new_axes(4.2, 3.6, len(measures))
    last, places = len(names) - 1, range(len(names))
    for ax, measure, matrix in zip(axes, measures, matrices, strict=True):
        for color, label, pairs in (
            (BLUE, f"with {names[last]}", [(place, last) for place in places]),
            (ORANGE, "with the one before", [(place, place - 1) for place in places if place]),
        ):
            at = [pair[0] for pair in pairs]
            value, low, high = ([float(part[pair]) for pair in pairs] for part in (matrix.value, matrix.low, matrix.high))
            ax.plot(at, value, color=color, marker="o", label=label)
            ax.fill_between(at, low, high, color=color, alpha=0.2, lw=0)
        ax.set(title=MEASURES[measure])  # type: ignore[index]
        ax.set_xticks(list(places), names, rotation=45, ha="right", fontsize=8)
        ax.legend(frameon=False, fontsize=8)
    return figure
