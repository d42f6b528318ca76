"""What figures share: colours, and axes without a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours: distinguishable for colour-blind readers and in print.
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#7F7F7F"
SERIES = (BLUE, ORANGE, GREEN, RED, PURPLE, GREY)


def new_axes(width: float = 6.4, height: float = 3.8, columns: int = 1) -> tuple[Figure, np.ndarray]:
    """A figure and its axes `[columns]` side by side; width and height in inches, of each."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, columns, figsize=(width * columns, height), layout="constrained", squeeze=False)
    for ax in axes[0]:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes[0]
