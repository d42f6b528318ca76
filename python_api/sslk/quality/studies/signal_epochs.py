"""What Q-Score tells over the epochs of an encoder's training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sslk.quality.failure import QSCORE
from sslk.quality.studies.signal_figures import Rows, epoch_curves
from sslk.quality.studies.signal_tables import columns_of, records
from sslk.results.figure import picture
from sslk.results.provenance import provenance
from sslk.results.run import Run, RunTable

EPOCHS = "Signal over epochs"
ENDS = ("", " low", " high")
#: Column of the table -> the numbers of a run's summary that it shows.
LEFT = {"given feature norm": "partial_norm", "given confidence": "partial_confidence", "given both": "partial", "gain": "gain"}


def signal_over_epochs(runs: Mapping[int, Run], title: str = "") -> Run:
    """The signal of one encoder over the epochs of its training.

    Args:
        runs: those of `signal_study`, by epoch.
        title: what was trained.

    Raises:
        ValueError: there is none.
    """
    if not runs:
        raise ValueError("runs must hold the study of an epoch, got none.")
    epochs = sorted(runs)
    names = [row["score"] for row in records(runs[epochs[-1]].tables[0])]
    keys = [*names, *LEFT]
    columns = ["epoch", "top-1 [%]", "eps", "mean |L_i|", "empty sets [%]", *(f"{key}{end}" for key in keys for end in ENDS)]
    table = RunTable(f"{EPOCHS}; 95 % bootstrap intervals", columns, [_row(epoch, runs[epoch], names) for epoch in epochs])
    rows = records(table)
    drawn = picture(
        "epochs",
        EPOCHS,
        "AUROC of every score, what remains of Q-Score, and the probe's accuracy over epochs.",
        lambda: epoch_curves(rows, names, title=title),
        columns_of(table),
    )
    about = {**runs[epochs[-1]].provenance, "command": "signal over epochs", "epochs": epochs}
    return Run(
        "qscore", f"{EPOCHS}{f': {title}' if title else ''}", epoch_findings(rows), provenance(about), {}, [table], [drawn]
    )


def epoch_findings(rows: Rows) -> list[str]:
    """How Q-Score fares over the epochs of the rows of that table."""
    first, last = rows[0], rows[-1]
    best = max(rows, key=lambda row: row[QSCORE])
    known = [row for row in rows if row["given both low"] is not None]
    above, below = sum(row["given both low"] > 0 for row in known), sum(row["given both high"] < 0 for row in known)
    return [
        f"AUROC of Q-Score is {_said(first, QSCORE)} at epoch {first['epoch']}, {_said(last, QSCORE)} at epoch {last['epoch']}, "
        f"and highest at epoch {best['epoch']}: {_said(best, QSCORE)} (a maximum over {len(rows)} epochs, no estimate).",
        f"Given norm and confidence, the interval of its rank correlation with correctness lies above 0 at {above} and below 0 "
        f"at {below} of {len(rows)} epochs.",
    ]


def _row(epoch: int, run: Run, names: list[str]) -> list[Any]:
    areas = {row["score"]: row for row in records(run.tables[0])}
    found = run.summary
    share = [100 * float(found[key] or 0) for key in ("accuracy", "empty_share")]
    return [
        epoch,
        share[0],
        found["eps"],
        found["mean_active"],
        share[1],
        *(areas[name][f"AUROC{end}"] if name in areas else None for name in names for end in ENDS),
        *(found[f"{key}{end.replace(' ', '_')}"] for key in LEFT.values() for end in ENDS),
    ]


def _said(row: Mapping[str, Any], name: str) -> str:
    return f"{row[name]:.3f} [{row[f'{name} low']:.3f}, {row[f'{name} high']:.3f}]"
