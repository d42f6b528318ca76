"""The mIoU protocol: agreement of heatmaps with masks, before and after, as tables, findings and figure 7."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from sslk.files.tables import write_rows
from sslk.interpret.miou import MAPS, MaskAgreement
from sslk.quality.figures import BLUE, GREY, ORANGE
from sslk.results.provenance import provenance
from sslk.results.run import Run, RunFigure, RunTable
from sslk.statistics.intervals import Interval, paired_difference


def agreement_run(arms: dict[str, MaskAgreement], folder: Path, title: str, origin: dict[str, Any]) -> Run:
    """Write the per-image table, the figure and `results.json` of one or more arms (such as before and after).

    Args:
        arms: agreement of the same images with the same masks, by name; the first is the reference.
        folder: where to.
        title: one line.
        origin: provenance of the run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[list[Any]] = []
    differences: list[list[Any]] = []
    findings: list[str] = []
    summary: dict[str, float | int | str | None] = {}
    for arm, found in arms.items():
        prefix = f"{arm}: " if len(arms) > 1 else ""
        for kind in found.kinds:
            rows += [_row(arm, kind, which, "all", found.miou(kind, which)) for which in MAPS]
            if found.correct is not None:
                rows += [_row(arm, kind, MAPS[0], name, found.miou(kind, correct=side))
                         for name, side in (("correct", True), ("incorrect", False))]  # fmt: skip
            summary[f"{prefix}mIoU {kind}"] = found.miou(kind).mean
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
    _write_samples(arms, folder / "samples.csv")
    interval_columns = ["mean", "95 % low", "95 % high", "images"]
    figures = [_figure(arms, folder)]
    run = Run(
        "interpret", title, findings, origin, summary,
        [
            RunTable("mIoU of heatmaps with masks (mean over images, bootstrap interval)",
                     ["model", "mask", "map", "images of", *interval_columns], rows, paper="Figure 7"),
            RunTable("Differences of mIoU", ["model", "difference", *interval_columns], differences),
        ],
        figures,
    )  # fmt: skip
    run.save(folder)
    return run


def _row(arm: str, kind: str, which: str, side: str, interval: Interval) -> list[Any]:
    return [arm, kind, which, side, *interval]


def _sentence(name: str, interval: Interval) -> str:
    if np.isnan(interval.low):
        return f"{name}: too few images to say ({interval.images})."
    verdict = "holds" if interval.low > 0 else "is reversed" if interval.high < 0 else "is not settled"
    return f"{name} > 0 {verdict}: {interval} over {interval.images} images."


def _counted(found: MaskAgreement) -> list[str]:
    missing = ", ".join(f"{count} without a {kind} mask" for kind, count in found.without_mask.items() if count)
    lines = [
        f"{found.without_map} of {found.images} images have no active discriminative feature and no map; they are left out"
        + (f", and so are {missing}." if missing else ".")
    ]
    if found.threshold == 0:
        lines.append(
            "At threshold 0 the mIoU is the share of the heat inside the mask; uniform heat gives the mask's share of the "
            "image."
        )
    return lines


def _write_samples(arms: dict[str, MaskAgreement], path: Path) -> None:
    first = next(iter(arms.values()))
    columns = [(arm, which, kind) for arm, found in arms.items() for which, kind in found.overlaps]
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", newline="", encoding="utf-8") as stream:
        known = [arm for arm, found in arms.items() if found.correct is not None]
        header = ["index", *(f"{arm}: correct" for arm in known), *(" | ".join(column) for column in columns)]
        write_rows(stream, [header])
        for index in range(first.images):
            correct = [int(arms[arm].correct[index]) for arm in known]  # type: ignore[index]
            values = [arms[arm].overlaps[which, kind][index] for arm, which, kind in columns]
            write_rows(stream, [[index, *correct, *("" if np.isnan(v) else f"{v:.6f}" for v in values)]])
    temporary.replace(path)


def _figure(arms: dict[str, MaskAgreement], folder: Path) -> RunFigure:
    """Bars of core and spurious mIoU per model (figure 7), split by correctness where known, controls beside them."""
    bars: list[tuple[str, str, Interval]] = []
    for arm, found in arms.items():
        prefix = f"{arm}\n" if len(arms) > 1 else ""
        sides = [("discriminative", None)] if found.correct is None else [("correct", True), ("incorrect", False)]
        for side, correct in sides:
            bars += [(f"{prefix}{side}", kind, found.miou(kind, correct=correct)) for kind in _shown(found)]
    found = next(iter(arms.values()))
    bars += [(which.replace(" ", "\n"), kind, found.miou(kind, which)) for which in MAPS[1:] for kind in _shown(found)]
    groups = list(dict.fromkeys(group for group, _, _ in bars))
    kinds = _shown(found)
    figure, ax = plt.subplots(figsize=(1.2 * len(groups) + 2, 3.6), layout="constrained")
    width = 0.8 / len(kinds)
    for number, kind in enumerate(kinds):
        here = [(groups.index(group), interval) for group, k, interval in bars if k == kind]
        x = np.array([place for place, _ in here]) + (number - (len(kinds) - 1) / 2) * width
        mean = np.array([interval.mean for _, interval in here])
        error = np.array([[m.mean - m.low, m.high - m.mean] for _, m in here]).T
        ax.bar(x, mean, width, yerr=np.nan_to_num(error), color=(BLUE, ORANGE, GREY)[number % 3], label=kind, capsize=2)
    ax.set_xticks(range(len(groups)), groups, fontsize=8)
    ax.set_ylabel("mIoU")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, title="mask", fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    with plt.rc_context({"svg.hashsalt": "miou"}):  # the same figure gives the same bytes
        figure.savefig(folder / "miou.svg", metadata={"Date": None})
    plt.close(figure)
    with (folder / "miou.csv").open("w", newline="", encoding="utf-8") as stream:
        write_rows(stream, [["group", "mask", "miou", "low", "high", "images"]])
        write_rows(stream, ([group.replace("\n", " "), kind, *interval] for group, kind, interval in bars))
    return RunFigure(
        "mIoU of heatmaps with annotated regions", "miou.svg",
        "Bars of the mIoU with core and spurious masks, for the model's heatmaps and three controls.", "miou.csv",
    )  # fmt: skip


def _shown(found: MaskAgreement) -> list[str]:
    return [kind for kind in found.kinds if kind in ("core", "spurious")] or found.kinds[:3]


def save_pictures(
    folder: Path,
    title: str,
    figures: dict[str, Any],
    findings: list[str],
    summary: dict[str, Any],
    config: dict[str, Any],
    tables: list[RunTable] | None = None,
) -> None:
    """Write pictures and the `results.json` that names them; closes the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=130)
        plt.close(figure)
    drawn = [RunFigure(title, name, f"{title}: images and heatmaps") for name in figures]
    Run("interpret", title, findings, provenance(config), summary, tables or [], drawn).save(folder)
