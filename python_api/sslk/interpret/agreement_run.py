"""The mIoU protocol: agreement of heatmaps with masks, before and after, as tables, findings and figure 7."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sslk.interpret.miou import MAPS, MaskAgreement
from sslk.results.atomic import write_table
from sslk.results.figure import Picture, picture
from sslk.results.run import Run, RunTable
from sslk.results.style import BLUE, GREY, ORANGE
from sslk.statistics.bootstrap import Interval
from sslk.statistics.intervals import paired_difference

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def agreement_run(
    arms: dict[str, MaskAgreement], title: str, origin: dict[str, Any], numbers: Sequence[int] | None = None
) -> Run:
    """The table, the findings and figure 7 of one or more arms (such as before and after), with a row per image as a file.

    Args:
        arms: agreement of the same images with the same masks, by name; the first is the reference.
        title: one line.
        origin: provenance of the run.
        numbers: place of every image in its data set, where not all were measured.
    """
    rows: list[list[Any]] = []
    differences: list[list[Any]] = []
    findings: list[str] = []
    summary: dict[str, float | int | str | None] = {}
    for arm, found in arms.items():
        prefix = f"{arm}: " if len(arms) > 1 else ""
        for kind in found.kinds:
            rows += [_row(arm, kind, which, "all", found.miou(kind, which)) for which in MAPS]
            if found.correct is not None:
                rows += [
                    _row(arm, kind, MAPS[0], name, found.miou(kind, correct=side))
                    for name, side in (("correct", True), ("incorrect", False))
                ]
            summary[f"{prefix}mIoU {kind}"] = found.miou(kind).value
        for name, interval in found.compared().items():
            differences.append([arm, name, *interval])
            if name.startswith(("core", "spurious")):
                findings.append(f"{prefix}{_sentence(name, interval)}")
        findings += [f"{prefix}{line}" for line in _counted(found)]
    first, *others = arms
    for arm in others:
        for kind in arms[first].kinds:
            interval = paired_difference(arms[arm].overlaps[MAPS[0], kind], arms[first].overlaps[MAPS[0], kind])
            differences.append([arm, f"{kind}: {arm} - {first}", *interval])
            findings.append(_sentence(f"{kind}: {arm} - {first}", interval))
    interval_columns = ["mean", "95 % low", "95 % high", "images"]
    tables = [
        RunTable(
            "mIoU of heatmaps with masks (mean over images, bootstrap interval)",
            ["model", "mask", "map", "images of", *interval_columns],
            rows,
            paper="Figure 7",
        ),
        RunTable("Differences of mIoU", ["model", "difference", *interval_columns], differences),
    ]
    files = {"samples.csv": partial(_write_samples, arms, numbers)}
    return Run("interpret", title, findings, origin, summary, tables, [_figure(arms)], files=files)


def _row(arm: str, kind: str, which: str, side: str, interval: Interval) -> list[Any]:
    return [arm, kind, which, side, *interval]


def _sentence(name: str, interval: Interval) -> str:
    if np.isnan(interval.low):
        return f"{name}: too few images to say ({interval.samples})."
    verdict = "holds" if interval.low > 0 else "is reversed" if interval.high < 0 else "is not settled"
    return f"{name} > 0 {verdict}: {interval} over {interval.samples} images."


def _counted(found: MaskAgreement) -> list[str]:
    missing = ", ".join(f"{count} without a {kind} mask" for kind, count in found.without_mask.items() if count)
    lines = [
        f"{found.without_map} of {found.images} images have no active discriminative feature and no map; they are left out"
        + (f", and so are {missing}." if missing else ".")
    ]
    if found.threshold == 0:
        lines.append(
            "At threshold 0 the mIoU is the share of the heat inside the mask; uniform heat gives the mask's share of the image."
        )
    return lines


def _write_samples(arms: dict[str, MaskAgreement], numbers: Sequence[int] | None, path: Path) -> None:
    first = next(iter(arms.values()))
    places = range(first.images) if numbers is None else numbers
    columns = [(arm, which, kind) for arm, found in arms.items() for which, kind in found.overlaps]
    known = {arm: found.correct for arm, found in arms.items() if found.correct is not None}
    header = ["index", *(f"{arm}: correct" for arm in known), *(" | ".join(column) for column in columns)]
    values = [arms[arm].overlaps[which, kind] for arm, which, kind in columns]
    rows = (
        [
            places[index],
            *(int(correct[index]) for correct in known.values()),
            *("" if np.isnan(column[index]) else f"{column[index]:.6f}" for column in values),
        ]
        for index in range(first.images)
    )
    write_table(path, [header, *rows])


def _figure(arms: dict[str, MaskAgreement]) -> Picture:
    """Bars of core and spurious mIoU per model (figure 7), split by correctness where known, controls beside them."""
    bars: list[tuple[str, str, Interval]] = []
    for arm, found in arms.items():
        prefix = f"{arm}\n" if len(arms) > 1 else ""
        sides = [("discriminative", None)] if found.correct is None else [("correct", True), ("incorrect", False)]
        for side, correct in sides:
            bars += [(f"{prefix}{side}", kind, found.miou(kind, correct=correct)) for kind in _shown(found)]
    found = next(iter(arms.values()))
    bars += [(which.replace(" ", "\n"), kind, found.miou(kind, which)) for which in MAPS[1:] for kind in _shown(found)]
    kinds = _shown(found)
    header = ["group", "mask", "miou", "low", "high", "images"]
    rows = [[group.replace("\n", " "), kind, *interval] for group, kind, interval in bars]
    return picture(
        "miou",
        "mIoU of heatmaps with annotated regions",
        "Bars of the mIoU with core and spurious masks, for the model's heatmaps and three controls.",
        lambda: _bars(bars, kinds),
        {name: [row[place] for row in rows] for place, name in enumerate(header)},
    )


def _bars(bars: list[tuple[str, str, Interval]], kinds: list[str]) -> Figure:
    from matplotlib import pyplot as plt

    groups = list(dict.fromkeys(group for group, _, _ in bars))
    figure, ax = plt.subplots(figsize=(1.2 * len(groups) + 2, 3.6), layout="constrained")
    width = 0.8 / len(kinds)
    for number, kind in enumerate(kinds):
        here = [(groups.index(group), interval) for group, k, interval in bars if k == kind]
        x = np.array([place for place, _ in here]) + (number - (len(kinds) - 1) / 2) * width
        mean = np.array([interval.value for _, interval in here])
        error = np.array([[m.value - m.low, m.high - m.value] for _, m in here]).T
        ax.bar(x, mean, width, yerr=np.nan_to_num(error), color=(BLUE, ORANGE, GREY)[number % 3], label=kind, capsize=2)
    ax.set_xticks(range(len(groups)), groups, fontsize=8)
    ax.set_ylabel("mIoU")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, title="mask", fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _shown(found: MaskAgreement) -> list[str]:
    return [kind for kind in found.kinds if kind in ("core", "spurious")] or found.kinds[:3]
