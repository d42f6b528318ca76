"""Figures of the masked-input study; each function draws on new axes and returns the figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from sslk.similarity.figures import draw_matrix

# Okabe and Ito's colours: distinguishable for colour-blind readers and in print.
COLORS = ("#0072B2", "#009E73", "#D55E00", "#E69F00", "#CC79A7", "#56B4E9", "#7F7F7F", "#000000")


def variant_sheet(variants: Tensor, names: Sequence[str], mean: Sequence[float], std: Sequence[float]) -> Figure:
    """Every variant of a few images as the model sees them, one image a column (figure 1).

    Args:
        variants: `[V, n, 3, H, W]`, normalised.
        names: of the V variants.
        mean, std: of the normalisation.
    """
    scale, offset = (np.asarray(value)[:, None, None] for value in (std, mean))
    count = variants.shape[1]
    figure, axes = plt.subplots(
        len(names), count, figsize=(1.25 * count + 1, 1.3 * len(names)), layout="constrained", squeeze=False
    )
    for row, name, images in zip(axes, names, variants.cpu().float().numpy(), strict=True):
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for ax, image in zip(row, images, strict=True):
            ax.imshow((image * scale + offset).clip(0, 1).transpose(1, 2, 0), interpolation="nearest")
            ax.set_xticks([])
            ax.set_yticks([])
    return figure


def contact_sheet(images: Sequence[np.ndarray], masks: Sequence[np.ndarray], titles: Sequence[str]) -> Figure:
    """Images with their masks: the background darkened, the border of the object drawn."""
    columns = min(8, len(images))
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.5 * columns, 1.65 * rows), layout="constrained", squeeze=False)
    for ax in axes.ravel():
        ax.axis("off")
    for ax, image, mask, title in zip(axes.ravel(), images, masks, titles, strict=False):
        ax.imshow(np.where(mask[..., None], image, image // 4), interpolation="nearest")
        if mask.any() and not mask.all():
            ax.contour(mask, levels=[0.5], colors="#E69F00", linewidths=1)
        ax.set_title(title, fontsize=7)
    return figure


def heatmaps(
    matrices: Mapping[str, Tensor],
    names: Sequence[str],
    label: str,
    limits: tuple[float, float],
    bounds: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    axes_labels: tuple[str, str] = ("", ""),
) -> Figure:
    """V x V matrices of several models side by side, on one colour scale, values printed.

    Args:
        matrices: `[V, V]` by model.
        names: of the V variants.
        label: of the colour bar.
        limits: of the colours; values beyond them are printed all the same.
        bounds: intervals by model, printed small below the values.
        axes_labels: of x and y.
    """
    figure, axes = plt.subplots(
        1, len(matrices), figsize=(3.9 * len(matrices) + 0.9, 4.1), layout="constrained", squeeze=False, sharey=True
    )
    image = None
    for ax, (title, matrix) in zip(axes[0], matrices.items(), strict=True):
        image = draw_matrix(ax, matrix, names, names, limits, None if bounds is None else bounds[title])
        ax.set_title(title, fontsize=10)
        ax.set_xlabel(axes_labels[0])
    axes[0][0].set_ylabel(axes_labels[1])
    assert image is not None
    figure.colorbar(image, ax=axes, label=label, shrink=0.85)
    return figure


def across_models(matrix: Tensor, models: Sequence[str], names: Sequence[str], label: str) -> Figure:
    """The (M V) x (M V) matrix between all models and variants, models in blocks."""
    size = len(models) * len(names)
    figure, ax = plt.subplots(figsize=(0.5 * size + 2.6, 0.5 * size + 2), layout="constrained")
    values = matrix.numpy()
    image = ax.imshow(values, cmap="viridis", vmin=0, vmax=1)
    for u in range(size):
        for v in range(size):
            ax.text(
                v,
                u,
                f"{values[u, v]:.2f}",
                ha="center",
                va="center",
                fontsize=6.5,
                color="black" if values[u, v] > 0.5 else "white",
            )
    for edge in range(len(names), size, len(names)):
        ax.axhline(edge - 0.5, color="white", lw=2)
        ax.axvline(edge - 0.5, color="white", lw=2)
    ticks = [f"{name}" for _ in models for name in names]
    ax.set_xticks(range(size), ticks, rotation=60, ha="right", fontsize=7)
    ax.set_yticks(range(size), ticks, fontsize=7)
    for number, model in enumerate(models):
        place = number * len(names) + (len(names) - 1) / 2
        ax.text(place, -0.9, model, ha="center", va="bottom", fontsize=9)
    figure.colorbar(image, ax=ax, label=label, shrink=0.8)
    return figure


def umap_scatter(maps: Mapping[str, np.ndarray], names: Sequence[str]) -> Figure:
    """UMAP of the representations of all variants, coloured by variant, one panel a model.

    Args:
        maps: `[V * n, 2]` by model, variants in a row.
        names: of the V variants.
    """
    figure, axes = plt.subplots(1, len(maps), figsize=(4.2 * len(maps) + 1.4, 4), layout="constrained", squeeze=False)
    for ax, (title, points) in zip(axes[0], maps.items(), strict=True):
        for color, part in zip(COLORS * 2, np.split(points, len(names)), strict=False):
            ax.scatter(part[:, 0], part[:, 1], s=5, color=color, alpha=0.6, lw=0)
        ax.set_title(title, fontsize=10)
        ax.set_xticks([])
        ax.set_yticks([])
    handles = [plt.Line2D([], [], marker="o", ls="", color=color) for color in (COLORS * 2)[: len(names)]]
    figure.legend(handles, names, loc="outside right center", frameon=False)
    return figure
