"""Logistic regression by the protocol of DINOv2 and DINOv3 as a study: two stores, tables, figures, and the answers it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch

from sslk.features.store import FeatureStore
from sslk.probes.logreg import FewShot, LogregProbe, logreg_probe
from sslk.probes.outputs import accuracy_interval
from sslk.probes.settings import LogregSettings
from sslk.probes.source import described, unlike_classes
from sslk.progress import Progress
from sslk.results.figure import Picture, picture
from sslk.results.provenance import provenance
from sslk.results.run import Measure, Run, RunTable, Value
from sslk.results.style import BLUE, ORANGE, RED, new_axes
from sslk.statistics.small_data import small_data, tied_settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OUTPUTS = "outputs.safetensors"
TASK = "logistic regression"
_NAMES = {"top1": "top-1", "mean-per-class": "mean-per-class accuracy"}


def logreg_study(
    train: FeatureStore,
    test: FeatureStore,
    settings: LogregSettings = LogregSettings(),  # noqa: B008 (frozen)
    *,
    device: str | None = None,
    progress: Progress | None = None,
) -> Run:
    """C of a logistic regression chosen on held-out training rows; the classifier of all training rows is tested.

    Args:
        train, test: labelled stores of one model.
        settings: values of C, few-shot draws, precision, memory.
        device: where to compute.
        progress: called with the regressions trained and to train.

    Returns:
        Accuracies with their intervals, the grid, few-shot results where they are asked for, and the answers as
        `outputs.safetensors`.

    Raises:
        StoreError: a store is incomplete, without labels, or of another model than the other.
        ValueError: as for `logreg_probe`.
    """
    probe = logreg_probe(train, test, settings, device=device or "cpu", progress=progress)
    measures = _measures(probe, test)
    origin = {
        "command": "probe logreg",
        **asdict(settings),
        "c": settings.strengths,
        "train": described(train),
        "test": described(test),
        "device": device or "cpu",
        "threads": torch.get_num_threads(),
    }
    tables, figures = [_headline(measures)], []
    if probe.shots:
        tables.append(_few_table(probe.shots))
        figures.append(_few_figure(probe))
    if probe.grid:
        tables.append(_grid_table(probe))
        figures.insert(0, _grid_figure(probe, settings))
    return Run(
        "probe",
        "Logistic regression",
        [*_findings(probe, settings), *unlike_classes(train, test)],
        provenance(origin),
        _summary(probe),
        tables,
        figures,
        measures,
        {OUTPUTS: probe.outputs.save},
    )


def _measures(probe: LogregProbe, test: FeatureStore) -> list[Measure]:
    correct, count = int(probe.outputs.correct.sum()), len(probe.outputs.correct)
    found = [("top-1 [%]", probe.top1, *accuracy_interval(correct, count))]
    if probe.top5 is not None:
        found.append(("top-5 [%]", probe.top5, *accuracy_interval(round(probe.top5 * count), count)))
    found.append(("mean-per-class accuracy [%]", *probe.mean_per_class[:3]))
    named = [(TASK, *row) for row in found]
    for few in probe.shots:
        task = f"{TASK}, {few.shots} {'shot' if few.shots == 1 else 'shots'}"
        named.append((task, "top-1 [%]", *few.top1_mean[:3]))
        named.append((task, "mean-per-class accuracy [%]", *few.mean_per_class_mean[:3]))
    spec = test.spec
    model = f"{spec.model} ({spec.feature})" if spec.feature else spec.model
    return [
        Measure(spec.dataset, model, task, metric, 100 * value, 100 * low, 100 * high, count)
        for task, metric, value, low, high in named
    ]


def _headline(measures: list[Measure]) -> RunTable:
    rows = [[m.task, m.metric, m.value, m.low, m.high] for m in measures]
    return RunTable("Accuracies on the test set, with 95 % intervals", ["task", "metric", "value", "low", "high"], rows)


def _few_table(shots: list[FewShot]) -> RunTable:
    rows = [
        [few.shots, t + 1, few.rows[t], few.c[t], 100 * float(few.top1[t]), 100 * float(few.mean_per_class[t])]
        for few in shots
        for t in range(len(few.top1))
    ]
    columns = ["shots", "try", "training images", "C", "top-1 [%]", "mean-per-class accuracy [%]"]
    return RunTable("Every draw of few training images", columns, rows, fold=True)


def _grid_table(probe: LogregProbe) -> RunTable:
    rows = [
        [p.c, 100 * p.top1, 100 * p.mean_per_class, p.loss, p.evaluations, "yes" if p.converged else "no"] for p in probe.grid
    ]
    columns = ["C", "held-out top-1 [%]", "held-out mean-per-class [%]", "loss in training [nats]", "evaluations", "converged"]
    return RunTable(f"Values of C, judged on {probe.held_out} held-out training rows", columns, rows, fold=True)


def _grid_figure(probe: LogregProbe, settings: LogregSettings) -> Picture:
    c, top1 = [p.c for p in probe.grid], [100 * p.top1 for p in probe.grid]
    share = [100 * p.mean_per_class for p in probe.grid]

    def draw() -> Figure:
        figure, (ax,) = new_axes()
        ax.plot(c, top1, color=BLUE, marker=".", label="top-1")
        ax.plot(c, share, color=ORANGE, marker=".", label="mean-per-class accuracy")
        ax.axvline(probe.c, color=RED, linestyle="--", label="chosen")
        ax.set(xscale="log", xlabel="C", ylabel="accuracy on held-out rows [%]")
        ax.legend(frameon=False)
        return figure

    alt = f"Accuracy on {probe.held_out} held-out training rows over C from {c[0]:g} to {c[-1]:g}; {probe.c:g} was chosen."
    columns = {"C": c, "top-1 [%]": top1, "mean-per-class accuracy [%]": share}
    return picture("logreg_c", f"Accuracy over C, chosen by {_NAMES[settings.metric]}", alt, draw, columns)


def _few_figure(probe: LogregProbe) -> Picture:
    shots = sorted(probe.shots, key=lambda few: few.shots)
    x = [few.shots for few in shots]
    value = [100 * few.top1_mean.value for few in shots]
    low = [100 * few.top1_mean.low for few in shots]
    high = [100 * few.top1_mean.high for few in shots]

    def draw() -> Figure:
        figure, (ax,) = new_axes()
        ax.errorbar(
            x,
            value,
            yerr=[[v - a for v, a in zip(value, low, strict=True)], [b - v for v, b in zip(value, high, strict=True)]],
            color=BLUE,
            marker="o",
            capsize=3,
            label="few images",
        )
        for few in shots:
            ax.plot([few.shots] * len(few.top1), 100 * few.top1, ".", color=ORANGE, zorder=0)
        ax.axhline(100 * probe.top1, color=RED, linestyle="--", label="all training images")
        ax.set(xscale="log", xticks=x, xlabel="training images per class", ylabel="top-1 on the test set [%]")
        ax.set_xticks(x, [str(number) for number in x])
        ax.minorticks_off()
        ax.legend(frameon=False)
        return figure

    alt = "Top-1 over training images per class: mean over draws with its interval, every draw, and all training images."
    columns: dict[str, Sequence[float]] = {"shots": x, "top-1 [%]": value, "low [%]": low, "high [%]": high}
    return picture("logreg_shots", "Accuracy with few training images", alt, draw, columns)


def _summary(probe: LogregProbe) -> dict[str, Value]:
    correct, count = int(probe.outputs.correct.sum()), len(probe.outputs.correct)
    low, high = accuracy_interval(correct, count)
    return {
        "top1": probe.top1,
        "top1_low": low,
        "top1_high": high,
        "top5": probe.top5,
        "mean_per_class": probe.mean_per_class.value,
        "mean_per_class_low": probe.mean_per_class.low,
        "mean_per_class_high": probe.mean_per_class.high,
        "c": probe.c,
        "held_out": probe.held_out,
        "converged": probe.converged,
        "samples": count,
        **{f"top1_{few.shots}_shots": few.top1_mean.value for few in probe.shots},
        **probe.train_rows.summary("train"),
        **probe.test_rows.summary("test"),
        **({"unknown_class": probe.outputs.unknown} if probe.outputs.unknown else {}),
    }


def _findings(probe: LogregProbe, settings: LogregSettings) -> list[str]:
    count, share = len(probe.outputs.correct), probe.mean_per_class
    low, high = accuracy_interval(int(probe.outputs.correct.sum()), count)
    found = [
        f"Top-1 is {100 * probe.top1:.2f} % on {count} samples (95 % interval {100 * low:.1f} to {100 * high:.1f} %), "
        f"mean-per-class accuracy {100 * share.value:.2f} % ({100 * share.low:.1f} to {100 * share.high:.1f} %)."
    ]
    if probe.grid:
        name = _NAMES[settings.metric]
        found.append(
            f"Of {len(probe.grid)} values of C, {probe.c:.4g} was chosen by {name} on {probe.held_out} held-out training rows."
        )
        tried = [p.top1 if settings.metric == "top1" else p.mean_per_class for p in probe.grid]
        found += tied_settings(tried, probe.held_out)
        if probe.c in (probe.grid[0].c, probe.grid[-1].c):
            found.append("The chosen C is at the end of the grid: a value beyond it may do better.")
        missed = sum(not p.converged for p in probe.grid)
        if missed:
            found.append(f"{missed} of {len(probe.grid)} regressions ended before their weights were within the tolerance.")
    for few in probe.shots:
        found.append(_about(few))
        if few.short:
            found.append(f"{few.short} classes have fewer than {few.shots} images to draw from: all of theirs are used.")
        if not few.converged:
            found.append(f"Not every regression chosen for {few.shots} shots is within the tolerance.")
    if not probe.converged:
        found.append("The final regression ended before its weights were within the tolerance of the best.")
    classes = len(probe.classes)
    found += small_data(train=probe.train_rows.used, features=probe.weight.shape[1], test=count, classes=classes)
    return found + probe.train_rows.said("training") + probe.test_rows.said("test") + probe.outputs.missing_classes()


def _about(few: FewShot) -> str:
    mean, tries = few.top1_mean, len(few.top1)
    spread = f", deviation between draws {100 * float(few.top1.std()):.2f} points" if tries > 1 else ""
    return (
        f"With {few.shots} training {'image' if few.shots == 1 else 'images'} per class top-1 is {100 * mean.value:.2f} % over "
        f"{tries} {'draw' if tries == 1 else 'draws'} (95 % interval over draws and test images {100 * mean.low:.1f} to "
        f"{100 * mean.high:.1f} %{spread})."
    )
