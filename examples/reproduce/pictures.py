"""The figures of the results page, drawn from the study's runs, each with its numbers as CSV."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from examples.reproduce.claims_masked import similarities
from examples.reproduce.results import Study, records, table

SELECTIONS = ("discriminative", "random", "lower tail", "upper tail", "pca")


def draw(study: Study, out: Path) -> dict[str, tuple[Path, str]]:
    """Draw what the study has; returns each picture by name, with its text alternative."""
    out.mkdir(parents=True, exist_ok=True)
    drawn = {"compression": _compression(study, out), "cka": _similarity(study, out), "failure": _failure(study, out)}
    return {name: picture for name, picture in drawn.items() if picture is not None}


def _compression(study: Study, out: Path) -> tuple[Path, str] | None:
    found = [item for item in study.encoders if "compression" in item.runs]
    if not found:
        return None
    across = min(4, len(found))
    down = -(-len(found) // across)
    figure, axes = plt.subplots(down, across, figsize=(2.3 * across + 0.4, 2.1 * down + 0.4), layout="constrained", squeeze=False)
    numbers: list[list[Any]] = []
    for ax in axes.flat[len(found) :]:
        ax.axis("off")
    for number, (ax, item) in enumerate(zip(axes.flat, found, strict=False)):
        rows = records(table(item.runs["compression"], "Top-1"))
        for name in SELECTIONS:
            x, y, std = ([row[key] for row in rows] for key in ("left out [%]", f"{name} top-1 [%]", f"{name} std"))
            ax.errorbar(x, y, std, label=name, marker="o", markersize=3, capsize=2, linewidth=1)
            numbers += [[item.encoder.name, name, *values] for values in zip(x, y, std, strict=True)]
        ax.set_title(item.encoder.name, fontsize=9)
        if number + across >= len(found):
            ax.set_xlabel("features left out [%]", fontsize=8)
    for ax in axes[:, 0]:
        ax.set_ylabel("top-1 [%]", fontsize=8)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols={1: 2, 2: 3}.get(across, 5), frameon=False, fontsize=7)
    alt = "Top-1 of linear probes over the share of features left out, for five selections, one panel per encoder."
    return _save(figure, out / "compression.svg", ["encoder", "selection", "left out [%]", "top-1 [%]", "std"], numbers), alt


def _similarity(study: Study, out: Path) -> tuple[Path, str] | None:
    found = [item for item in study.encoders if "masked" in item.runs]
    if not found:
        return None
    pairs = list(similarities(found[0]))
    pairs.sort(key=lambda pair: -similarities(found[0])[pair].value)
    figure, ax = plt.subplots(figsize=(7.6, 1.6 + 0.28 * len(found)), layout="constrained")
    values = [[similarities(item)[pair] for pair in pairs] for item in found]
    numbers = [
        [item.encoder.name, *pair, *value]
        for item, row in zip(found, values, strict=True)
        for pair, value in zip(pairs, row, strict=True)
    ]
    ax.imshow([[value.value for value in row] for row in values], vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            ax.text(x, y, f"{value.value:.2f}", ha="center", va="center", fontsize=7, color="wk"[value.value > 0.6])
    ax.set_xticks(range(len(pairs)), [f"{a}–{b}" for a, b in pairs], rotation=35, ha="right")
    ax.set_yticks(range(len(found)), [item.encoder.name for item in found])
    alt = "Debiased CKA of each pair of masked variants, one row per encoder; the intervals are in cka.csv."
    return _save(figure, out / "cka.svg", ["encoder", "variant", "with", "CKA", "low", "high"], numbers), alt


def _failure(study: Study, out: Path) -> tuple[Path, str] | None:
    found = [item for item in study.encoders if "failure" in item.runs]
    if not found:
        return None
    figure, ax = plt.subplots(figsize=(7.2, 1.2 + 0.6 * len(found)), layout="constrained")
    numbers: list[list[Any]] = []
    for number, item in enumerate(found):
        rows = [row for row in records(table(item.runs["failure"], "Predicting")) if row["AUROC low"] is not None]
        for place, row in enumerate(rows):
            error = [[row["AUROC"] - row["AUROC low"]], [row["AUROC high"] - row["AUROC"]]]
            ax.errorbar(
                row["AUROC"],
                number + 0.8 * ((place + 0.5) / len(rows) - 0.5),
                xerr=error,
                fmt="o",
                markersize=3,
                linewidth=1,
                color=f"C{place}",
                label="" if number else row["score"],
            )
            numbers.append([item.encoder.name, row["score"], row["AUROC"], row["AUROC low"], row["AUROC high"]])
    ax.axvline(0.5, color="0.6", linewidth=0.8, linestyle="--")
    ax.set_yticks(range(len(found)), [item.encoder.name for item in found])
    ax.invert_yaxis()
    ax.set_xlabel("AUROC", fontsize=8)
    figure.legend(loc="outside upper center", ncols=6, frameon=False, fontsize=7)
    alt = "AUROC of Q-Score and the baselines as failure predictors with 95 % intervals, one row per encoder."
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
