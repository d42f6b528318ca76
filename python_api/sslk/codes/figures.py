"""Figures of sparse codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sslk.results.style import SERIES, new_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sslk.codes.study import Kept


def accuracy_curves(kept: Sequence[Kept]) -> Figure:
    """Top-1 of linear probes over the number of features kept, mean and deviation over seeds."""
    figure, (ax,) = new_axes(6.4, 4.0)
    for color, side in zip(SERIES, dict.fromkeys(k.side for k in kept), strict=False):
        points = sorted((k for k in kept if k.side == side), key=lambda k: k.features)
        counts, top1, std = ([getattr(k, name) for k in points] for name in ("features", "top1", "std"))
        ax.errorbar(
            counts, [100 * value for value in top1], [100 * value for value in std], color=color, marker="o", ms=4, label=side
        )
    ax.set(xscale="log", xlabel="features kept", ylabel="top-1 [%]", title="Linear probes on discriminative features")
    ax.legend(frameon=False)
    return figure
