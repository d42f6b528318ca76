"""Figures of the label-free panel: a leaderboard, every number against the linear probe, and curves over epochs or layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from sslk.quality.panel_values import CLAIMS
from sslk.results.style import BLUE, GREY, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sslk.statistics.bootstrap import Interval

Values = Mapping[str, Mapping[str, "Interval"]]
_ACROSS = 4


def leaderboard(values: Values) -> Figure:
    """Every number in a panel of its own, one line a model with its interval; the direction claimed better is said."""
    models = list(values)
    figure, axes = _grid(values, 0.9 + 0.22 * len(models))
    places = np.arange(len(models))[::-1]
    for name, ax in axes.items():
        for place, model in zip(places, models, strict=True):
            if name in values[model]:
                interval = values[model][name]
                if not math.isnan(interval.low):
                    ax.plot([interval.low, interval.high], [place, place], color=GREY, lw=2.4, solid_capstyle="butt")
                ax.plot(interval.value, place, "o", color=BLUE, ms=5)
        ax.set_yticks(places, models, fontsize=7)
        ax.set_ylim(-0.7, len(models) - 0.3)
        if CLAIMS[name] == "near 1":
            ax.axvline(1, color="black", lw=0.8, ls=":")
        ax.set_title(f"{name}, better {CLAIMS[name]}", fontsize=9)
        ax.tick_params(axis="x", labelsize=7)
    return figure


def scatter(values: Values, top1: Mapping[str, float], taus: Mapping[str, float]) -> Figure:
    """Top-1 of the linear probe over every number, one colour a model."""
    figure, axes = _grid(values, 2.2)
    colors = {model: SERIES[i % len(SERIES)] for i, model in enumerate(values)}
    for place, (name, ax) in enumerate(axes.items()):
        for model, found in values.items():
            if name in found:
                interval = found[name]
                if not math.isnan(interval.low):
                    ax.plot([interval.low, interval.high], [top1[model]] * 2, color=colors[model], lw=1)
                ax.plot(interval.value, top1[model], "o", color=colors[model], ms=5, label=model)
        tau = taus.get(name, math.nan)
        said = "" if math.isnan(tau) else f", tau {tau:.2f}"
        ax.set_title(f"{name} (better {CLAIMS[name]}){said}", fontsize=8)
        ax.tick_params(labelsize=7)
        if place % _ACROSS == 0:
            ax.set_ylabel("linear top-1 [%]", fontsize=8)
    handles, labels = next(iter(axes.values())).get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def curves(values: Values, top1: Mapping[str, float]) -> Figure:
    """Every number over the models in the order given, such as epochs, with its interval; top-1 of the linear probe, where it is
    known, dotted on an axis of its own."""
    models = list(values)
    figure, axes = _grid(values, 2.2)
    for number, (name, ax) in enumerate(axes.items(), 1):
        places = [place for place, model in enumerate(models) if name in values[model]]
        found = [values[models[place]][name] for place in places]
        ax.fill_between(places, [i.low for i in found], [i.high for i in found], color=BLUE, alpha=0.2, lw=0)
        ax.plot(places, [i.value for i in found], color=BLUE, marker="o", ms=3)
        if top1:
            probed = [place for place, model in enumerate(models) if model in top1]
            other = ax.twinx()
            other.plot(probed, [top1[models[place]] for place in probed], color=GREY, ls=":", lw=1.2)
            other.tick_params(labelsize=6, colors=GREY)
            if number % _ACROSS == 0 or number == len(axes):
                other.set_ylabel("linear top-1 [%], dotted", fontsize=7, color=GREY)
            other.spines["top"].set_visible(False)
        ax.set_xticks(range(len(models)), models, rotation=60, ha="right", fontsize=6)
        ax.tick_params(axis="y", labelsize=7)
        ax.set_title(f"{name}, better {CLAIMS[name]}", fontsize=9)
    return figure


def _grid(values: Values, height: float) -> tuple[Figure, dict[str, Axes]]:
    """Axes by name of the number, four across; numbers that no model has are left out."""
    from matplotlib import pyplot as plt

    names = [name for name in CLAIMS if any(name in found for found in values.values())]
    down = -(-len(names) // _ACROSS)
    size = (3.1 * min(_ACROSS, len(names)), height * down)
    figure, grid = plt.subplots(down, min(_ACROSS, len(names)), figsize=size, layout="constrained", squeeze=False)
    for ax in grid.flat:
        ax.spines[["top", "right"]].set_visible(False)
    for ax in grid.flat[len(names) :]:
        ax.set_visible(False)
    return figure, dict(zip(names, grid.flat, strict=False))
