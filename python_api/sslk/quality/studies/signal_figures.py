"""Figures of Q-Score's signal, from the tables of its runs, so that a page of many runs draws them alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sslk.quality.failure import QSCORE
from sslk.quality.figures import line_styles
from sslk.results.style import BLUE, GREY, ORANGE, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]


def eps_curves(rows: Rows, own: float, norm: float, *, title: str = "") -> Figure:
    """AUROC over eps beside that of the norm, what is left given norm and confidence, and how many sets are empty.

    Args:
        rows: of the table over eps, by column.
        own: eps of the set that was found without labels.
        norm: AUROC of the feature norm.
        title: of the figure.
    """
    figure, (area, left, empty) = new_axes(4.4, 3.4, columns=3)
    band(area, rows, "eps", "AUROC", BLUE, QSCORE)
    band(left, rows, "eps", "partial correlation", BLUE, QSCORE)
    area.axhline(norm, color=ORANGE, lw=1.5, label="feature norm")
    area.axhline(0.5, color="black", lw=0.8, ls=":", label="chance")
    left.axhline(0, color="black", lw=0.8, ls=":")
    empty.plot([row["eps"] for row in rows], [_number(row["empty sets [%]"]) for row in rows], color=BLUE, marker="o", ms=4)
    for ax in (area, left, empty):
        ax.axvline(own, color=GREY, lw=0.8, ls="--", label="eps of the set" if ax is area else None)
        ax.set_xlabel("eps [standard deviations]")
    area.set(ylabel="AUROC", title=title)
    left.set(ylabel="partial rank correlation", title="given norm and confidence")
    empty.set(ylabel="samples with an empty set [%]", ylim=(0, 100))
    area.legend(frameon=False, fontsize=8)
    return figure


def feature_curves(rows: Rows, *, title: str = "") -> Figure:
    """AUROC of Q-Score and of the norm over the number of features, random subsets."""
    figure, (ax,) = new_axes(5.4, 3.6)
    band(ax, rows, "features", "AUROC", BLUE, QSCORE)
    band(ax, rows, "features", "norm's AUROC", ORANGE, "feature norm")
    for end in ("lowest", "highest"):
        ax.plot([row["features"] for row in rows], [_number(row[end]) for row in rows], "_", color=BLUE, ms=9)
    ax.axhline(0.5, color="black", lw=0.8, ls=":")
    ax.set_xscale("log", base=2)
    counts = [row["features"] for row in rows]
    ax.set_xticks(counts, [str(count) for count in counts])
    ax.minorticks_off()
    ax.set(xlabel="features (dashes: single subsets' lowest and highest)", ylabel="AUROC", title=title)
    ax.legend(frameon=False, fontsize=8)
    return figure


def partial_bars(rows: Rows, *, title: str = "") -> Figure:
    """Rank correlation of every score with correctness, given nothing, the norm, the confidence, and both."""
    names = list(dict.fromkeys(row["score"] for row in rows))
    sets = list(dict.fromkeys(row["given"] for row in rows))
    figure, (ax,) = new_axes(6.6, 0.8 + 0.5 * len(names))
    for number, ((color, _), known) in enumerate(zip(line_styles(), sets, strict=False)):
        for place, name in enumerate(names):
            row = next((r for r in rows if (r["score"], r["given"]) == (name, known)), None)
            if row is None or row["correlation"] is None:
                continue
            y = place + 0.18 * (number - (len(sets) - 1) / 2)
            ax.plot([row["correlation low"], row["correlation high"]], [y, y], color=color, lw=2)
            ax.plot(row["correlation"], y, "o", color=color, ms=4)
        ax.plot([], [], "o-", color=color, ms=4, label=f"given {known}")
    ax.axvline(0, color="black", lw=0.8, ls=":")
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set(xlabel="rank correlation with correctness, 95 % interval", title=title)
    ax.legend(frameon=False, fontsize=7, loc="best")
    return figure


def epoch_curves(rows: Rows, names: Sequence[str], *, title: str = "") -> Figure:
    """AUROC of scores, accuracy, and what is left of Q-Score, over epochs."""
    figure, (area, left, right) = new_axes(4.8, 3.8, columns=3)
    for (color, line), name in zip(line_styles(), names, strict=False):
        band(area, rows, "epoch", name, color, name, line=line, width=2.4 if name == QSCORE else 1.2)
    area.axhline(0.5, color="black", lw=0.8, ls=":")
    area.set(ylabel="AUROC", title=title)
    figure.legend(*area.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    band(left, rows, "epoch", "given feature norm", ORANGE, "given feature norm")
    band(left, rows, "epoch", "given both", BLUE, "given norm and confidence")
    left.axhline(0, color="black", lw=0.8, ls=":")
    left.set(ylabel="Q-Score's partial rank correlation", title="what remains of Q-Score")
    left.legend(frameon=False, fontsize=7)
    epochs = [row["epoch"] for row in rows]
    right.plot(epochs, [_number(row["top-1 [%]"]) for row in rows], color=GREY, marker="o", ms=3, label="probe's top-1")
    right.plot(epochs, [_number(row["empty sets [%]"]) for row in rows], color=BLUE, marker="s", ms=3, label="empty sets")
    right.set(ylabel="%", title="probe and empty sets", ylim=(0, None))
    right.legend(frameon=False, fontsize=7)
    for ax in (area, left, right):
        ax.set_xlabel("epoch")
    return figure


def band(ax: Axes, rows: Rows, x: str, name: str, color: str, label: str, *, line: str = "-", width: float = 1.6) -> None:
    """A column over another, with its interval shaded."""
    places = [row[x] for row in rows]
    value, low, high = (np.array([_number(row.get(key)) for row in rows]) for key in (name, f"{name} low", f"{name} high"))
    ax.plot(places, value, color=color, ls=line, lw=width, marker="o", ms=3, label=label)
    ax.fill_between(places, low, high, color=color, alpha=0.15, lw=0)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
