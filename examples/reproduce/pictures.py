"""The figures of the results page, drawn from the study's runs, each with its numbers as CSV."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from examples.reproduce.claims_masked import similarities
from examples.reproduce.results import Study, records, table

SELECTIONS = ("discriminative", "random", "lower tail", "upper tail", "pca")


def draw(study: Study, out: Path) -> list[tuple[Path, str]]:
    """Draw what the study has; returns each picture with its text alternative."""
    out.mkdir(parents=True, exist_ok=True)
    drawn = [_compression(study, out), _similarity(study, out), _failure(study, out)]
    return [picture for picture in drawn if picture is not None]


def _compression(study: Study, out: Path) -> tuple[Path, str] | None:
    found = [item for item in study.encoders if "compression" in item.runs]
    if not found:
        return None
    figure, axes = plt.subplots(1, len(found), figsize=(3.1 * len(found), 2.8), layout="constrained", squeeze=False)
    numbers: list[list[Any]] = []
    for ax, item in zip(axes[0], found, strict=True):
        rows = records(table(item.runs["compression"], "Top-1"))
        for name in SELECTIONS:
            x, y, std = ([row[key] for row in rows] for key in ("left out [%]", f"{name} top-1 [%]", f"{name} std"))
            ax.errorbar(x, y, std, label=name, marker="o", markersize=3, capsize=2, linewidth=1)
            numbers += [[item.encoder.name, name, *values] for values in zip(x, y, std, strict=True)]
        ax.set_title(item.encoder.name, fontsize=9)
        ax.set_xlabel("features left out [%]", fontsize=8)
    axes[0][0].set_ylabel("top-1 [%]", fontsize=8)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(SELECTIONS), frameon=False, fontsize=7)
    alt = "Top-1 of linear probes over the share of features left out, for five selections, one panel per encoder."
    return _save(
        figure, out / "compression.svg", ["encoder", "selection", "left out [%]", "top-1 [%]", "std"], numbers
    ), alt


def _similarity(study: Study, out: Path) -> tuple[Path, str] | None:
    found = [item for item in study.encoders if "masked" in item.runs]
    if not found:
        return None
    pairs = list(similarities(found[0]))
    pairs.sort(key=lambda pair: -similarities(found[0])[pair].value)
    figure, ax = plt.subplots(figsize=(6.4, 2.8 + 0.1 * len(found)), layout="constrained")
    numbers: list[list[Any]] = []
    width = 0.8 / len(found)
    for number, item in enumerate(found):
        values = [similarities(item)[pair] for pair in pairs]
        y = np.arange(len(pairs)) + (number - (len(found) - 1) / 2) * width
        error = np.array([[v.value - v.low, v.high - v.value] for v in values]).T.clip(min=0)
        ax.barh(y, [v.value for v in values], width, xerr=error, label=item.encoder.name, error_kw={"linewidth": 0.8})
        numbers += [[item.encoder.name, *pair, *value] for pair, value in zip(pairs, values, strict=True)]
    ax.set_yticks(range(len(pairs)), [f"{a}–{b}" for a, b in pairs], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel("debiased linear CKA", fontsize=8)
    ax.legend(frameon=False, fontsize=7)
    alt = "Debiased CKA of each pair of masked variants with 95 % intervals, one bar per encoder."
    return _save(figure, out / "cka.svg", ["encoder", "variant", "with", "CKA", "low", "high"], numbers), alt


def _failure(study: Study, out: Path) -> tuple[Path, str] | None:
    found = [item for item in study.encoders if "failure" in item.runs]
    if not found:
        return None
    figure, ax = plt.subplots(figsize=(6.4, 2.6), layout="constrained")
    numbers: list[list[Any]] = []
    for number, item in enumerate(found):
        rows = [row for row in records(table(item.runs["failure"], "Predicting")) if row["AUROC low"] is not None]
        x = np.arange(len(rows)) + (number - (len(found) - 1) / 2) * 0.2
        values = [[row[key] for row in rows] for key in ("AUROC", "AUROC low", "AUROC high")]
        error = [np.subtract(values[0], values[1]), np.subtract(values[2], values[0])]
        ax.errorbar(x, values[0], error, fmt="o", markersize=4, capsize=2, label=item.encoder.name)
        ax.set_xticks(range(len(rows)), [row["score"] for row in rows], fontsize=8)
        numbers += [
            [item.encoder.name, row["score"], row["AUROC"], row["AUROC low"], row["AUROC high"]] for row in rows
        ]
    ax.axhline(0.5, color="0.6", linewidth=0.8, linestyle="--")
    ax.set_ylabel("AUROC", fontsize=8)
    ax.legend(frameon=False, fontsize=7)
    alt = "AUROC of Q-Score and the baselines as failure predictors with 95 % intervals, one colour per encoder."
    return _save(figure, out / "failure.svg", ["encoder", "score", "AUROC", "low", "high"], numbers), alt


def _save(figure: Figure, path: Path, columns: list[str], rows: list[list[Any]]) -> Path:
    for ax in figure.axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
    with plt.rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([f"{v:.5f}" if isinstance(v, float) else v for v in row] for row in rows)
    return path
