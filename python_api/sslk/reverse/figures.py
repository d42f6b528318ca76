"""Figures of reverse probing; each function draws on new axes and returns the figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from sslk.results.style import BLUE, GREY, ORANGE, SERIES


def regression_scatter(
    names: Sequence[str], x: Sequence[float], y: Sequence[float], errors: Sequence[float], xlabel: str, ylabel: str
) -> Figure:
    """Points with names and their least-squares line (figure 3)."""
    figure, ax = _axes()
    ax.errorbar(x, y, yerr=np.nan_to_num(errors), fmt="o", color=BLUE, capsize=2)
    for name, a, b in zip(names, x, y, strict=True):
        ax.annotate(name, (a, b), xytext=(5, 4), textcoords="offset points", fontsize=8)
    if len(x) > 1 and np.ptp(x) > 0:
        slope, offset = np.polyfit(x, y, 1)
        ends = np.array([min(x), max(x)])
        r = np.corrcoef(x, y)[0, 1]
        ax.plot(ends, slope * ends + offset, color=ORANGE, label=f"least squares, r = {r:.2f}, n = {len(x)}")
        ax.legend(frameon=False, loc="lower right")
    ax.margins(0.15)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return figure


def lines(
    x: Sequence[float] | Sequence[str], series: Mapping[str, tuple[Sequence[float], Sequence[float]]], xlabel: str, ylabel: str
) -> Figure:
    """Curves of means with a band of one standard deviation (figures 4, 6, 7)."""
    figure, ax = _axes()
    places = np.arange(len(x)) if isinstance(x[0], str) else np.asarray(x, dtype=float)
    for color, (name, (mean, std)) in zip(SERIES * 4, series.items(), strict=False):
        middle, width = np.asarray(mean, dtype=float), np.nan_to_num(np.asarray(std, dtype=float))
        ax.plot(places, middle, "o-", color=color, label=name, ms=4)
        ax.fill_between(places, middle - width, middle + width, color=color, alpha=0.2, lw=0)
    ax.set_xticks(places, [str(value) for value in x])
    if isinstance(x[0], str):
        plt.setp(ax.get_xticklabels(), rotation=20, ha="right")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend(frameon=False)
    return figure


def bars(names: Sequence[str], series: Mapping[str, tuple[Sequence[float], Sequence[float]]], ylabel: str) -> Figure:
    """Groups of bars with standard deviations (table 3 as a picture)."""
    figure, ax = _axes()
    width = 0.8 / len(series)
    for i, (color, (name, (mean, std))) in enumerate(zip(SERIES * 4, series.items(), strict=False)):
        places = np.arange(len(names)) + (i - (len(series) - 1) / 2) * width
        ax.bar(places, mean, width, yerr=np.nan_to_num(std), color=color, label=name, capsize=2)
    ax.axhline(0, color="black", lw=0.8)
    ax.set_xticks(np.arange(len(names)), names)
    ax.set(ylabel=ylabel)
    ax.legend(frameon=False)
    return figure


def cluster_pair(
    images: tuple[Sequence[Image.Image], Sequence[Image.Image]], words: dict[str, float], titles: tuple[str, str], heading: str
) -> Figure:
    """Example images of two clusters and, between them, the concepts that tell them apart (figures 5, 8 to 11).

    Args:
        images: of the first and of the second cluster.
        words: concept -> difference of coefficients; positive speaks for the first cluster.
        titles: of the two clusters, in the colours of their words.
        heading: of the figure.
    """
    columns = max(map(len, images), default=1) or 1
    rows = -(-columns // 3)
    figure = plt.figure(figsize=(11, 1.2 + 1.15 * rows), layout="constrained")
    parts: Any = figure.subfigures(1, 3, width_ratios=[1, 1.4, 1])
    left, middle, right = parts
    for part, side, title, color in ((left, images[0], titles[0], BLUE), (right, images[1], titles[1], ORANGE)):
        grid = part.subplots(rows, 3, squeeze=False)
        part.suptitle(title, color=color, fontsize=10)
        for ax in grid.ravel():
            ax.axis("off")
        for ax, image in zip(grid.ravel(), side, strict=False):
            ax.imshow(np.asarray(image))
    ax = middle.subplots()
    ax.axis("off")
    ax.imshow(word_cloud(words), interpolation="bilinear")
    figure.suptitle(heading, fontsize=10)
    return figure


def word_cloud(words: dict[str, float], width: int = 700, height: int = 420) -> np.ndarray:
    """Words sized by the size of their value, blue where positive, orange where negative; uint8 `[H, W, 3]`.

    Raises:
        ImportError: wordcloud is not installed.
    """
    try:
        from wordcloud import WordCloud
    except ImportError as error:
        raise ImportError(f"word clouds need the package wordcloud: pip install wordcloud ({error})") from error
    sizes = {word: abs(value) for word, value in words.items() if value}
    if not sizes:
        return np.full((height, width, 3), 255, dtype=np.uint8)
    cloud = WordCloud(
        width=width,
        height=height,
        background_color="white",
        prefer_horizontal=1.0,
        random_state=0,
        max_words=40,
        color_func=lambda word, **_: BLUE if words[word] > 0 else ORANGE,
    )
    return np.asarray(cloud.generate_from_frequencies(sizes).to_image())


def toy_layouts(layouts: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]], results: dict[str, str]) -> Figure:
    """Points in two dimensions by colour and shape, with what each kind of probe reaches (figure 2)."""
    figure, axes = plt.subplots(1, len(layouts), figsize=(5.2 * len(layouts), 4.6), layout="constrained", squeeze=False)
    for ax, (name, (points, colour, shape)) in zip(axes[0], layouts.items(), strict=True):
        for c, paint in ((0, BLUE), (1, ORANGE)):
            for s, marker in ((0, "o"), (1, "^")):
                chosen = (colour == c) & (shape == s)
                ax.scatter(*points[chosen].T, color=paint, marker=marker, s=14, edgecolors=GREY, linewidths=0.2)
        ax.set_title(f"{name}\n{results[name]}", fontsize=9)
        ax.set_aspect("equal")
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def _axes() -> tuple[Figure, plt.Axes]:
    figure, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    return figure, ax
