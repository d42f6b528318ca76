"""A monitored training as a run: its curve, with the numbers behind it, and what it ended with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from sslk.results.figure import picture
from sslk.results.provenance import provenance
from sslk.results.run import Measure, Run, RunTable
from sslk.results.style import SERIES
from sslk.training.monitor_log import Row, columns_of
from sslk.training.monitor_settings import MonitorSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# By key: what it is called, with its unit.
NAMES = {
    "rankme": "RankMe",
    "effective_rank": "effective rank",
    "uniformity": "uniformity",
    "alignment": "alignment",
    "mean_qscore": "mean Q-Score",
    "mean_active": "mean |L_i|",
    "empty_share": "share of empty sets",
    "feature_std": "feature standard deviation",
    "dead_share": "share of dead features",
    "knn_top1": "k-NN top-1",
    "probe_top1": "online probe top-1",
    "probe_loss": "online probe loss [nats]",
}
PANELS = (
    ("rankme", "effective_rank"),
    ("uniformity", "alignment"),
    ("mean_qscore",),
    ("mean_active",),
    ("empty_share", "dead_share"),
    ("probe_top1", "knn_top1"),
)
_ROWS_OF_TABLE = 20


def monitor_run(settings: MonitorSettings, rows: Sequence[Row], model: str, data: str, *, held_out: bool) -> Run:
    """The rows of a `Monitor` as a run; see `Monitor.run`."""
    if not rows:
        raise ValueError("run needs an evaluation, and nothing was evaluated: train for every_n_steps, or call evaluate.")
    plain = [{name.rpartition("/")[2]: value for name, value in row.items()} for row in rows]
    columns = columns_of(plain)
    steps = [int(row["step"]) for row in plain]
    first, last = plain[0], plain[-1]
    where = "images that were held out" if held_out else "the newest images of the training"
    findings = [
        f"{NAMES[name][0].upper()}{NAMES[name][1:]} went from {first[name]:.4g} at step {steps[0]} to {last[name]:.4g} at step "
        f"{steps[-1]}, over {where}: {int(last['rows'])} at the end."
        for name in ("rankme", "mean_qscore", "probe_top1", "knn_top1")
        if name in first and name in last
    ]
    if lost := sum(int(row["nonfinite"]) for row in plain):
        findings.append(f"{lost} representations of all evaluations were not finite, and are left out.")
    names = [name for name in NAMES if name in columns]
    shown = plain[:: -(-len(plain) // _ROWS_OF_TABLE)]
    shown += [last] if shown[-1] is not last else []
    cells = [[row.get(name) for name in ("step", "epoch", *names)] for row in shown]
    return Run(
        "monitor",
        f"Monitored training of {model}",
        findings,
        provenance({"command": "sslk.training.Monitor", "config": asdict(settings), "model": model, "data": data}),
        {name: last[name] for name in names if name in last},
        [RunTable("Over the training", ["step", "epoch", *(NAMES[name] for name in names)], cells)],
        [
            picture(
                "monitor",
                "The representations while they were trained",
                f"Curves of {', '.join(NAMES[name] for name in names)} over {len(rows)} evaluations of the training.",
                lambda: _draw(columns),
                columns,
            )
        ],
        [
            Measure(data, model, "monitored training", NAMES[name], last[name], samples=int(last["rows"]))
            for name in names
            if name in last
        ],
    )


def _draw(columns: dict[str, list[float | None]]) -> Figure:
    """Panels of curves over the steps."""
    from matplotlib import pyplot as plt

    panels = [[name for name in panel if name in columns] for panel in PANELS]
    panels = [panel for panel in panels if panel]
    lines = -(-len(panels) // 3)
    figure, axes = plt.subplots(lines, 3, figsize=(12, 3 * lines), layout="constrained", squeeze=False)
    for ax, panel in zip(axes.flat, panels, strict=False):
        for name, color in zip(panel, SERIES, strict=False):
            points = [(x, y) for x, y in zip(columns["step"], columns[name], strict=True) if y is not None]
            ax.plot(*zip(*points, strict=True), ".-", color=color, label=NAMES[name])
        ax.legend(frameon=False, fontsize=8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_xlabel("step")
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    return figure
