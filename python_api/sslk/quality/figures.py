"""Figures of the Q-Score protocol; each function draws on new axes and returns the figure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.quality.failure import FailurePrediction
from sslk.results.style import BLUE, GREEN, GREY, RED, SERIES, new_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def activation_percentages(found: DiscriminativeFeatures) -> Figure:
    """Sorted activation percentages with the discriminative band between the shaded tails (figure 1)."""
    figure, (ax,) = new_axes()
    percent = np.sort(found.activation_percent.numpy())
    ranks = np.arange(len(percent))
    inside = (percent >= found.lower_percent) & (percent <= found.upper_percent) & (percent > 0)
    first, last = np.flatnonzero(inside)[[0, -1]]
    ax.plot(ranks, percent, color=BLUE)
    ax.axvspan(0, first, color=GREY, alpha=0.25, lw=0, label=f"lower tail: image-specific or dead ({first})")
    ax.axvspan(first, last + 1, color=GREEN, alpha=0.15, lw=0, label=f"discriminative ({found.num_discriminative})")
    ax.axvspan(last + 1, len(percent), color=RED, alpha=0.25, lw=0, label=f"upper tail: generic ({len(percent) - last - 1})")
    ax.set(xlabel="features, sorted", ylabel="samples activating the feature [%]", xlim=(0, len(percent)), ylim=(0, None))
    ax.set_title(f"Activation percentages at eps = {found.eps:g}")
    ax.legend(loc="upper left", frameon=False)
    return figure


def failure_curves(result: FailurePrediction) -> Figure:
    """ROC and precision-recall curves of Q-Score and the baselines (figure 4)."""
    figure, (roc, pr) = new_axes(columns=2)
    entries = {"Q-Score": result.qscore, **result.baselines}
    for (color, line), (name, curves) in zip(line_styles(), entries.items(), strict=False):
        width = 2.4 if name == "Q-Score" else 1.2
        roc.plot(*curves.roc, color=color, ls=line, lw=width, label=f"{name} {curves.auroc:.3f}")
        pr.plot(*curves.precision_recall, color=color, ls=line, lw=width, label=f"{name} {curves.auprc:.3f}")
    roc.plot([0, 1], [0, 1], color="black", lw=0.8, ls=":", label="random 0.500")
    pr.axhline(result.accuracy, color="black", lw=0.8, ls=":", label=f"random {result.accuracy:.3f}")
    roc.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC (AUROC)")
    pr.set(xlabel="recall", ylabel="precision", title="Precision-recall (AUPRC)", ylim=(0, 1.02))
    for ax in (roc, pr):
        ax.legend(frameon=False, fontsize=8)
    return figure


def line_styles() -> Iterator[tuple[str, str]]:
    """Colours, then the same dashed, dotted and both: as many as there are lines."""
    return itertools.cycle((color, line) for line in ("-", "--", ":", "-.") for color in SERIES)


def class_heatmaps(
    panels: dict[str, tuple[Tensor, Tensor, Tensor]], found: DiscriminativeFeatures, class_names: tuple[str, ...]
) -> Figure:
    """Mean of every discriminative feature per class, for correct and misclassified samples (figure 3).

    Args:
        panels: (L2-normalised features `[N, D]`, labels `[N]`, correct `[N]`) by title, e.g. before and after; all on
            one colour scale. A class without any sample on a side stays blank.
    """
    from matplotlib import pyplot as plt

    columns = found.mask.nonzero().squeeze(1)
    columns = columns[found.activation_percent[columns].argsort(descending=True)]
    maps: list[tuple[str, np.ndarray]] = []
    for title, (features, labels, correct) in panels.items():
        for side, chosen in (("correct", correct), ("misclassified", ~correct)):
            rows = [features[chosen & (labels == c)][:, columns].mean(0).numpy() for c in range(len(class_names))]
            maps.append((f"{title}: {side} ({int(chosen.sum())})", np.stack(rows)))
    highest = float(np.nanquantile(np.concatenate([values.ravel() for _, values in maps]), 0.995))
    figure, axes = plt.subplots(
        len(panels), 2, figsize=(12.8, 2.9 * len(panels)), layout="constrained", sharex=True, sharey=True, squeeze=False
    )
    for ax, (title, values) in zip(axes.ravel(), maps, strict=True):
        image = ax.imshow(values, aspect="auto", cmap="viridis", vmin=0, vmax=highest, interpolation="nearest")
        ax.set_title(title)
        ax.set_yticks(range(len(class_names)), class_names, fontsize=8)
    for ax in axes[-1]:
        ax.set_xlabel("discriminative features, most often active first")
    figure.colorbar(image, ax=axes, label="class mean of the normalised feature", shrink=0.8)
    return figure


def loss_curves(logs: dict[str, dict[str, list[float]]]) -> Figure:
    """SSL loss and penalty of every arm over the steps of further training."""
    figure, (loss, penalty) = new_axes(columns=2)
    for color, (arm, log) in zip(SERIES, logs.items(), strict=False):
        loss.plot(_smooth(log["loss"]), color=color, label=arm)
        penalty.plot(_smooth(log["penalty"]), color=color, label=arm)
    loss.set(xlabel="step", ylabel="SimCLR loss", title="SSL loss (running mean of 5)")
    penalty.set(xlabel="step", ylabel="penalty", title="Penalty added to the loss")
    penalty.set_yscale("symlog", linthresh=1e-3)
    loss.legend(frameon=False)
    return figure


def _smooth(values: list[float], window: int = 5) -> np.ndarray:
    kernel = np.ones(min(window, len(values))) / min(window, len(values))
    return np.convolve(values, kernel, mode="valid")


def extreme_samples(images: Tensor, scores: Tensor, labels: Tensor, class_names: tuple[str, ...], count: int = 12) -> Figure:
    """The samples with the highest and the lowest Q-Scores, with their classes and scores."""
    from matplotlib import pyplot as plt

    order = scores.argsort(descending=True, stable=True)
    figure, axes = plt.subplots(2, count, figsize=(count * 1.05, 3.1), layout="constrained")
    for row, (chosen, name) in enumerate(((order[:count], "highest Q-Scores"), (order[-count:], "lowest Q-Scores"))):
        for ax, i in zip(axes[row], chosen.tolist(), strict=True):
            ax.imshow(images[i].permute(1, 2, 0).numpy())
            ax.set_title(f"{class_names[int(labels[i])]}\n{scores[i]:.3f}", fontsize=7)
            ax.set_xticks([])
            ax.set_yticks([])
        axes[row][0].set_ylabel(name, fontsize=8)
    return figure
