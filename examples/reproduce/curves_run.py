"""The curves of pre-training as a run: what is still rising, in a table, a figure and sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from sslk.probes.outputs import accuracy_interval
from sslk.results.figure import Picture, picture
from sslk.results.provenance import provenance
from sslk.results.run import Measure, Run, RunTable
from sslk.results.style import SERIES, new_axes
from sslk.statistics.bootstrap import Interval
from sslk.statistics.intervals import paired_difference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {
    "simclr": "SimCLR",
    "moco": "MoCo",
    "byol": "BYOL",
    "simsiam": "SimSiam",
    "swav": "SwAV",
    "dino": "DINO",
    "vicreg": "VICReg",
    "barlow-twins": "Barlow Twins",
}
COLORS = (*SERIES[:5], "#56B4E9", "#000000", SERIES[5])
MARKERS = "osD^vPX*"


@dataclass(frozen=True, eq=False)
class Curve:
    """A training over its epochs.

    Attributes:
        method: its name.
        schedule: epochs of the whole training.
        correct: bool `[N]` by epoch: the test images that the probe named.
    """

    method: str
    schedule: int
    correct: dict[int, Tensor]

    @property
    def name(self) -> str:
        """For a reader."""
        return NAMES.get(self.method, self.method)

    @property
    def last(self) -> int:
        """The last epoch measured."""
        return max(self.correct)

    def top1(self, epoch: int) -> tuple[float, float, float]:
        """Percent of the test images, and its 95 % interval."""
        hits = self.correct[epoch]
        low, high = accuracy_interval(int(hits.sum()), len(hits))
        return 100 * float(hits.double().mean()), 100 * low, 100 * high

    def last_tenth(self) -> Interval | None:
        """Percentage points gained in the last tenth of the schedule, over the same images; None before the training's end."""
        begin = round(0.9 * self.schedule)
        if self.last < self.schedule or begin not in self.correct or begin == self.last:
            return None
        return paired_difference(*(100 * self.correct[epoch].double().numpy() for epoch in (self.last, begin)))


def curves_run(curves: Sequence[Curve], train_images: int) -> Run:
    """Accuracy over epochs, which trainings were still rising at their end, the picture and the numbers behind it."""
    count = len(next(iter(curves[0].correct.values())))
    how = f"logistic regression on the first {train_images:,} training images, tested on {count:,}"
    rows = []
    for curve in curves:
        gain = curve.last_tenth()
        rows.append([curve.name, curve.schedule, curve.last, *curve.top1(curve.last), *(gain or (None, None, None))])
    columns = ["method", "epochs", "measured at", "top-1 [%]", "low", "high", "gain of the last tenth [points]", "low", "high"]
    return Run(
        "probe",
        "Pre-training over its epochs",
        [f"Top-1 of a {how} images; intervals are over the test images, for one training each.", *map(_finding, curves)],
        provenance({"command": "examples/reproduce/curves.py", "train_images": train_images, "test_images": count}),
        {f"{curve.method} top-1 [%]": curve.top1(curve.last)[0] for curve in curves},
        [RunTable("At the last epoch measured", columns, rows)],
        [_figure(curves, how)],
        [
            Measure("test", f"{curve.name}, epoch {epoch}", how, "top-1 [%]", *curve.top1(epoch), samples=count)
            for curve in curves
            for epoch in curve.correct
        ],
    )


def _finding(curve: Curve) -> str:
    top1, low, high = curve.top1(curve.last)
    reached = f"{curve.name}: {top1:.1f} % [{low:.1f}, {high:.1f}] after {curve.last} of {curve.schedule} epochs"
    gain = curve.last_tenth()
    if gain is None:
        return f"{reached}; not at its end yet."
    change = f"{gain.value:+.2f} points [{gain.low:+.2f}, {gain.high:+.2f}] in the last tenth"
    if gain.low > 0:
        return f"{reached}; still rising: {change}."
    return f"{reached}; {'falling' if gain.high < 0 else 'no rise that these images could tell'}: {change}."


def _figure(curves: Sequence[Curve], how: str) -> Picture:
    def draw() -> Figure:
        figure, (ax,) = new_axes(8.2, 4.8)
        ranked = sorted(enumerate(curves), key=lambda item: -item[1].top1(item[1].last)[0])
        for number, curve in ranked:
            epochs = sorted(curve.correct)
            values, lows, highs = zip(*(curve.top1(epoch) for epoch in epochs), strict=True)
            color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
            label = f"{curve.name} {values[-1]:.1f} % ({epochs[-1]})"
            ax.fill_between(epochs, lows, highs, color=color, alpha=0.15, linewidth=0)
            ax.plot(epochs, values, color=color, marker=marker, markersize=4.5, linewidth=1.4, label=label)
        last = max(curve.last for curve in curves)
        ticks = [epoch for epoch in (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 500) if epoch <= max(last, 2)]
        ax.set_xscale("log")
        ax.set_xticks(ticks, [str(tick) for tick in ticks])
        ax.minorticks_off()
        ax.grid(axis="y", color="#DDDDDD", linewidth=0.6)
        ax.set_xlabel("epochs of pre-training (logarithmic)")
        ax.set_ylabel("probe top-1 [%]")
        ax.set_title(f"{how[0].upper()}{how[1:]} images", fontsize=10, loc="left")
        figure.legend(loc="outside right upper", frameon=False, fontsize=9, title="last epoch measured", title_fontsize=9)
        return figure

    points = [(curve, epoch) for curve in curves for epoch in sorted(curve.correct)]
    columns = {"method": [curve.method for curve, _ in points], "epoch": [epoch for _, epoch in points]}
    values = [curve.top1(epoch) for curve, epoch in points]
    columns |= {name: [round(value[place], 4) for value in values] for place, name in enumerate(("top1", "low", "high"))}
    alt = "Probe accuracy of every method over the epochs of its pre-training, with intervals; the legend says the last value."
    return picture("curves", "Probe accuracy over pre-training", alt, draw, columns)
