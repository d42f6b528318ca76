"""Figures of the probe studies: compression, lambda search, thresholds, supervised encoders, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sslk.results.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SERIES, new_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sslk.quality.ablation import LambdaSearch, SweepPoint
    from sslk.quality.before_after import BeforeAfter
    from sslk.quality.subsets import Compression
    from sslk.statistics.bootstrap import Interval

_COLORS = {"discriminative": BLUE, "random": ORANGE, "lower tail": PURPLE, "upper tail": RED, "pca": GREEN}
_MARKERS = {"discriminative": "o", "random": "s", "lower tail": "v", "upper tail": "^", "pca": "D"}


def compression_curves(study: Compression) -> Figure:
    """Top-1 over the share of features left out, mean and deviation over seeds (figures 2, A.5, A.7)."""
    figure, (ax,) = new_axes(6.8, 4.2)
    top1 = 100 * study.top1
    for name, values in zip(study.selections, top1, strict=True):
        mean, std = values.mean(1).numpy(), values.std(1, correction=0).numpy()
        ax.plot(study.reductions, mean, color=_COLORS[name], marker=_MARKERS[name], ms=4, label=name)
        ax.fill_between(study.reductions, mean - std, mean + std, color=_COLORS[name], alpha=0.2, lw=0)
    ax.axhline(float(top1[:, 0].mean()), color=GREY, lw=0.8, ls=":")
    ax.set(xlabel="features left out [%]", ylabel="top-1 [%]", xticks=study.reductions)
    ax.set_title(f"Linear probes on subsets of {study.kept[0]} features, {study.top1.shape[2]} seeds")
    ax.legend(frameon=False, loc="lower left")
    return figure


def lambda_curves(search: LambdaSearch) -> Figure:
    """Validation accuracy over lambda1 at lambda2 = 0, then over lambda2 at the best lambda1 (figure A.8)."""
    figure, axes = new_axes(columns=2, width=4.8)
    for stage, ax in zip((1, 2), axes, strict=True):
        curve = search.curve(stage)
        places = np.arange(len(curve))  # one step a value: a zero has no place on a logarithmic axis
        mean = np.array([100 * np.mean(values) for _, values in curve])
        for place, (_, values) in zip(places, curve, strict=True):
            ax.plot([place] * len(values), [100 * v for v in values], ".", color=GREY, ms=5)
        ax.plot(places, mean, color=BLUE, marker="o", ms=4)
        best = int(mean.argmax())
        ax.plot(places[best], mean[best], "o", ms=11, mfc="none", mec=RED)
        ax.set_xticks(places, [f"{value:g}" for value, _ in curve])
        ax.set(xlabel=f"lambda{stage}", ylabel="validation top-1 [%]")
    axes[0].set_title("Stage 1: lambda2 = 0")
    axes[1].set_title(f"Stage 2: lambda1 = {search.lambda1:g}")
    return figure


def threshold_curves(points: Sequence[SweepPoint]) -> Figure:
    """AUROC of Q-Score and share of samples with an empty set over eps, one line per percentile band."""
    figure, (roc, empty) = new_axes(columns=2, width=4.8)
    for color, band in zip(SERIES * 4, dict.fromkeys((p.lower, p.upper) for p in points), strict=False):
        of_band = [p for p in points if (p.lower, p.upper) == band]
        eps = [p.eps for p in of_band]
        label = f"P{band[0]:g} to P{band[1]:g}"
        roc.plot(eps, [np.nan if p.auroc is None else p.auroc for p in of_band], color=color, marker="o", ms=4, label=label)
        empty.plot(eps, [100 * p.empty_share for p in of_band], color=color, marker="o", ms=4)
    roc.axhline(0.5, color="black", lw=0.8, ls=":")
    roc.set(xlabel="eps [standard deviations]", ylabel="AUROC", title="Failure prediction")
    empty.set(xlabel="eps [standard deviations]", ylabel="samples with an empty set [%]", title="Empty sets")
    roc.legend(frameon=False, fontsize=8)
    return figure


def auroc_bars(values: dict[str, Interval], title: str) -> Figure:
    """AUROC by name with 95 % intervals, chance dotted (figure A.9 for supervised encoders; sides for signed ones)."""
    figure, (ax,) = new_axes(6.4, 0.9 + 0.42 * len(values))
    places = np.arange(len(values))[::-1]
    for place, (name, interval) in zip(places, values.items(), strict=True):
        color = BLUE if "Q-Score" in name or "sided" in name else GREY
        ax.plot([interval.low, interval.high], [place, place], color=color, lw=2.4, solid_capstyle="butt")
        ax.plot(interval.value, place, "o", color=color, ms=6)
    ax.axvline(0.5, color="black", lw=0.8, ls=":")
    ax.set_yticks(places, list(values))
    ax.set(xlabel="AUROC, 95 % interval", title=title, ylim=(-0.7, len(values) - 0.3))
    return figure


def before_after_panels(change: BeforeAfter) -> Figure:
    """Distributions of |L_i|, Q-Score and confidence before and after further training (figure A.10)."""
    figure, axes = new_axes(columns=3, width=4.2)
    panels = (
        ("active", "|L_i|", "highly activating features"),
        ("qscore", "Q-Score", "Q-Score"),
        ("confidence", "confidence", "probe's confidence"),
    )
    for ax, (name, title, label) in zip(axes, panels, strict=True):
        first, second = (getattr(side, name).double().numpy() for side in (change.before, change.after))
        low, high = min(first.min(), second.min()), max(np.quantile(first, 0.995), np.quantile(second, 0.995))
        bins = np.arange(low, high + 2) - 0.5 if name == "active" and high - low < 60 else np.linspace(low, high, 41)
        for values, color, when in ((first, GREY, "before"), (second, BLUE, "after")):
            ax.hist(values, bins, color=color, alpha=0.55, label=f"{when}, mean {values.mean():.3g}")
            ax.axvline(values.mean(), color=color, lw=1.5)
        interval = getattr(change, name)
        ax.set(xlabel=label, ylabel="samples")
        ax.set_title(f"{title}: {interval.value:+.3g} [{interval.low:+.3g}, {interval.high:+.3g}]", fontsize=10)
        ax.legend(frameon=False, fontsize=8)
    return figure


def interval_columns(name: str, values: dict[str, Interval]) -> dict[str, list[str | float]]:
    """The numbers behind `auroc_bars`."""
    return {
        name: list(values),
        "AUROC": [i.value for i in values.values()],
        "low": [i.low for i in values.values()],
        "high": [i.high for i in values.values()],
    }
