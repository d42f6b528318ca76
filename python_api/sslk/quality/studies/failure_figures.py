"""The risk-coverage curves of failure prediction, and the numbers behind its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sslk.quality.failure import QSCORE, FailurePrediction
from sslk.quality.failure_measures import FailureCurves
from sslk.quality.figures import line_styles
from sslk.results.style import new_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 200  # of a curve that are kept as numbers


def risk_coverage_curves(result: FailurePrediction) -> Figure:
    """Selective and generalised risk over coverage of every score, beside the best order and a random one."""
    figure, (selective, general) = new_axes(columns=2)
    for (name, curves), (color, line) in zip(result.curves.items(), line_styles(), strict=False):
        coverage, risk, whole = curves.risk_coverage
        style = {"color": color, "ls": line, "lw": 2.4 if name == QSCORE else 1.2}
        selective.plot(coverage, risk, label=f"{name} {curves.aurc:.3f}", **style)
        general.plot([0, *coverage], [0, *whole], label=f"{name} {curves.augrc:.3f}", **style)
    error = 1 - result.accuracy
    coverage = np.linspace(result.accuracy, 1, 100)
    best = result.qscore.aurc - result.qscore.e_aurc
    selective.plot(
        [0, *coverage], [0, *(1 - result.accuracy / coverage)], color="black", lw=0.8, ls="--", label=f"best {best:.3f}"
    )
    selective.axhline(error, color="black", lw=0.8, ls=":", label=f"random {error:.3f}")
    general.plot([0, result.accuracy, 1], [0, 0, error], color="black", lw=0.8, ls="--", label=f"best {error**2 / 2:.3f}")
    general.plot([0, 1], [0, error], color="black", lw=0.8, ls=":", label=f"random {error / 2:.3f}")
    selective.set(xlabel="coverage", ylabel="selective risk", title="Risk-coverage (AURC)", xlim=(0, 1), ylim=(0, None))
    general.set(xlabel="coverage", ylabel="generalised risk", title="Generalised (AUGRC)", xlim=(0, 1), ylim=(0, None))
    for ax in (selective, general):
        ax.legend(frameon=False, fontsize=7)
    return figure


def risk_coverage_columns(result: FailurePrediction) -> dict[str, list[float]]:
    """The curves of every score at up to `POINTS` places."""
    columns = {}
    for name, curves in result.curves.items():
        for axis, series in zip(("coverage", "selective risk", "generalised risk"), curves.risk_coverage, strict=True):
            columns[f"{name} {axis}"] = _thinned(series)
    return columns


def curve_columns(result: FailurePrediction) -> dict[str, list[float]]:
    """ROC and precision-recall curve of every score at up to `POINTS` places."""
    columns = {}
    for name, curves in result.curves.items():
        for kind, values in _kinds(curves):
            for axis, series in zip(("x", "y"), values, strict=True):
                columns[f"{name} {kind} {axis}"] = _thinned(series)
    return columns


def _kinds(curves: FailureCurves) -> tuple[tuple[str, tuple[np.ndarray, np.ndarray]], ...]:
    return ("ROC", curves.roc), ("PR", curves.precision_recall)


def _thinned(series: np.ndarray) -> list[float]:
    places = np.unique(np.linspace(0, len(series) - 1, POINTS).round().astype(int))
    return series[places].round(5).tolist()
