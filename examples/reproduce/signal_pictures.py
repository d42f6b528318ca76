"""The figures of the page on Q-Score's signal, each with its numbers as CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from examples.reproduce.signal_results import BOTH, GIVEN, NORM, Asked, Bounds, Rows, bounds
from sslk.quality.failure import QSCORE
from sslk.quality.studies.signal_epochs import LEFT
from sslk.quality.studies.signal_figures import band, epoch_curves
from sslk.results.figure import save_figure
from sslk.results.style import BLUE, GREEN, GREY, ORANGE, RED, new_axes

COLORS = (GREY, ORANGE, GREEN, BLUE)  # of what is given
Picture = tuple[str, str]
"""File, and what it shows in words."""


def draw(asked: Sequence[Asked], epochs: dict[str, Rows], out: Path) -> dict[str, Picture]:
    """Draw what there is into a folder; by name."""
    found = {
        "auroc": _areas(asked, out),
        "remains": _remains(asked, out),
        "eps": _panels(asked, out, "eps", lambda a: a.over_eps, _eps_panel),
        "features": _panels(asked, out, "features", lambda a: a.over_features, _features_panel),
    }
    for name, rows in epochs.items():
        found[f"epochs-{name}"] = _epochs(name, rows, out)
    return {name: picture for name, picture in found.items() if picture is not None}


def scores_of(asked: Sequence[Asked]) -> list[str]:
    """All scores that some encoder has, in order."""
    return list(dict.fromkeys(name for item in asked for name in item.areas))


def _areas(asked: Sequence[Asked], out: Path) -> Picture:
    names = scores_of(asked)
    cells = [[bounds(item.areas[name], "AUROC") if name in item.areas else None for name in names] for item in asked]
    marks = [
        [bounds(item.areas[name], "Q-Score less it").side() if name in item.areas and name != QSCORE else 0 for name in names]
        for item in asked
    ]
    figure, (ax,) = new_axes(2.2 + 0.72 * len(names), 1.9 + 0.34 * len(asked))
    _matrix(ax, [item.name for item in asked], names, cells, marks, (0.15, 0.85), "RdBu", "{:.2f}")
    alt = (
        "AUROC of every score, a row for each encoder: blue above chance, red below. + marks a score that Q-Score is better "
        "than on the same resamples, - one that it is worse than."
    )
    numbers = {
        "encoder": [item.name for item in asked for _ in names],
        "score": [name for _ in asked for name in names],
        **_ends("AUROC", [cell for row in cells for cell in row]),
        "Q-Score better (1) or worse (-1)": [mark for row in marks for mark in row],
    }
    return _save(figure, out, "auroc", alt, numbers)


def _remains(asked: Sequence[Asked], out: Path) -> Picture:
    """Q-Score's rank correlations given four sets; beside it every other score's given norm and confidence."""
    figure, (own, others) = new_axes(6.4, 1.5 + 0.42 * len(asked), columns=2)
    numbers: dict[str, list[Any]] = {key: [] for key in ("encoder", "score", "given", "correlation", "low", "high")}

    def keep(item: Asked, score: str, given: str, value: Bounds) -> None:
        for key, cell in zip(numbers, (item.name, score, given, *value), strict=True):
            numbers[key].append("" if cell is None else cell)

    for number, (given, color) in enumerate(zip(GIVEN, COLORS, strict=True)):
        for place, item in enumerate(asked):
            found = item.partial(QSCORE, given)
            if found is not None and found.value is not None:
                y = place + 0.17 * (number - 1.5)
                own.plot(found[1:], [y, y], color=color, lw=2, solid_capstyle="butt")
                own.plot(found.value, y, "o", color=color, ms=4)
                keep(item, QSCORE, given, found)
        own.plot([], [], "o-", color=color, ms=4, label=f"given {given}")
    own.axvline(0, color="black", lw=0.8, ls=":")
    own.set_yticks(range(len(asked)), [item.name for item in asked])
    own.set_ylim(len(asked) - 0.4, -0.6)
    own.set(xlabel="rank correlation with correctness, 95 % interval", title=QSCORE)
    figure.legend(*own.get_legend_handles_labels(), loc="outside lower left", ncols=4, frameon=False, fontsize=8)
    names = [name for name in scores_of(asked) if any(item.partial(name, BOTH) for item in asked)]
    cells = [[item.partial(name, BOTH) for name in names] for item in asked]
    _matrix(others, [item.name for item in asked], names, cells, None, (-0.2, 0.2), "RdBu", "{:+.2f}")
    others.set_title("every score given norm and confidence")
    for item, row in zip(asked, cells, strict=True):
        for name, cell in zip(names, row, strict=True):
            if cell is not None and name != QSCORE:
                keep(item, name, BOTH, cell)
    alt = (
        "Left: rank correlation of Q-Score with correctness given nothing, the norm, the confidence, and both. Right: that of "
        "every score given norm and confidence; cells whose interval holds 0 are grey."
    )
    return _save(figure, out, "remains", alt, numbers)


def _matrix(
    ax: Axes,
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Sequence[Sequence[Bounds | None]],
    marks: Sequence[Sequence[int]] | None,
    span: tuple[float, float],
    colors: str,
    form: str,
) -> None:
    values = [[float("nan") if c is None or c.value is None else c.value for c in row] for row in cells]
    ax.imshow(values, vmin=span[0], vmax=span[1], cmap=colors, aspect="auto")
    middle, half = sum(span) / 2, (span[1] - span[0]) / 2
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            if value != value:
                ax.text(x, y, "–", ha="center", va="center", fontsize=8, color=GREY)
                continue
            cell = cells[y][x]
            unsure = marks is None and cell is not None and cell.side() == 0
            mark = "" if marks is None else {1: " +", -1: " −", 0: ""}[marks[y][x]]
            color = GREY if unsure else "white" if abs(value - middle) > 0.65 * half else "black"
            ax.text(x, y, form.format(value) + mark, ha="center", va="center", fontsize=8, color=color)
    ax.set_xticks(range(len(columns)), columns, rotation=35, ha="right", fontsize=8)
    ax.set_yticks(range(len(rows)), rows, fontsize=8)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _panels(
    asked: Sequence[Asked], out: Path, name: str, rows_of: Callable[[Asked], Rows], panel: Callable[[Axes, Asked, Rows], str]
) -> Picture | None:
    """One small panel for each encoder."""
    drawn = [(item, rows) for item in asked if len(rows := rows_of(item)) > 1]
    if not drawn:
        return None
    across = min(4, len(drawn))
    down = -(-len(drawn) // across)
    size = (3.1 * across + 0.4, 2.6 * down + 0.5)
    figure, axes = plt.subplots(down, across, figsize=size, layout="constrained", squeeze=False, sharey=True)
    alt = ""
    for ax in axes.flat:
        ax.axis("off")
    for ax, (item, rows) in zip(axes.flat, drawn, strict=False):
        ax.axis("on")
        ax.spines[["top", "right"]].set_visible(False)
        ax.axhline(0.5, color="black", lw=0.8, ls=":")
        alt = panel(ax, item, rows)
        ax.set_title(item.name, fontsize=9)
        ax.tick_params(labelsize=8)
        if ax.get_subplotspec().is_first_col():
            ax.set_ylabel("AUROC", fontsize=8)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=8)
    columns = drawn[0][1][0]
    numbers = {"encoder": [item.name for item, rows in drawn for _ in rows]}
    numbers |= {key: ["" if row[key] is None else row[key] for _, rows in drawn for row in rows] for key in columns}
    return _save(figure, out, name, alt, numbers)


def _eps_panel(ax: Axes, item: Asked, rows: Rows) -> str:
    band(ax, rows, "eps", "AUROC", BLUE, QSCORE)
    ax.axhline(item.areas[NORM]["AUROC"], color=ORANGE, lw=1.5, label="feature norm")
    ax.axvline(item.number("eps"), color=GREY, lw=0.8, ls="--", label="eps of the set")
    empty = ax.twinx()
    empty.plot([row["eps"] for row in rows], [row["empty sets [%]"] for row in rows], color=RED, lw=0.9, ls=":")
    ax.plot([], [], color=RED, lw=0.9, ls=":", label="samples with an empty set (0 to 100 %)")
    empty.set(ylim=(0, 100), yticks=[])
    empty.spines[["top", "right"]].set_visible(False)
    ax.set_xlabel("eps [standard deviations]", fontsize=8)
    return "AUROC of Q-Score over eps with its 95 % interval, beside that of the feature norm; a panel for each encoder."


def _features_panel(ax: Axes, _item: Asked, rows: Rows) -> str:
    band(ax, rows, "features", "AUROC", BLUE, QSCORE)
    band(ax, rows, "features", "norm's AUROC", ORANGE, "feature norm")
    ax.vlines(
        [row["features"] for row in rows],
        [row["lowest"] for row in rows],
        [row["highest"] for row in rows],
        color=BLUE,
        lw=0.8,
        label="from the lowest to the highest subset",
    )
    counts = [row["features"] for row in rows]
    ax.set_xscale("log", base=2)
    ax.minorticks_off()
    ax.set_xticks(counts, [str(count) for count in counts], fontsize=7)
    ax.set_xlabel("features, random subsets", fontsize=8)
    return "AUROC of Q-Score and of the norm over the number of features, means over random subsets; a panel for each encoder."


def _epochs(name: str, rows: Rows, out: Path) -> Picture:
    scores = [key for key in rows[0] if f"{key} low" in rows[0] and key not in LEFT]
    figure = epoch_curves(rows, scores, title=name)
    alt = f"{name}: AUROC of every score, what remains of Q-Score, and the probe's accuracy over epochs."
    return _save(figure, out, f"epochs-{name}", alt, None)


def _ends(name: str, cells: Sequence[Bounds | None]) -> dict[str, list[Any]]:
    filled = [Bounds(None, None, None) if cell is None else cell for cell in cells]
    return {
        f"{name}{end}": ["" if cell[place] is None else cell[place] for cell in filled]
        for place, end in enumerate(("", " low", " high"))
    }


def _save(figure: Figure, out: Path, name: str, alt: str, numbers: dict[str, list[Any]] | None) -> Picture:
    return save_figure(figure, out, name, "", alt, numbers).file, alt
