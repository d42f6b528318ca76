"""Small runs for the tests of the report."""

from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from sslk.results.figure import save_figure
from sslk.results.run import Run, RunTable


def make_run(folder: Path, kind: Any = "probe", data: str = "cifar10", top1: float = 70.0, **changes: Any) -> Path:
    """A run with a table, a figure and its data."""
    figure, axes = plt.subplots()
    axes.plot([0, 1, 2], [top1, top1 + 1, top1 + 3])
    table = RunTable(
        "Top-1 per class",
        ["class", "top-1 [%]", "samples"],
        [["cat", top1, 100], ["ship", top1 / 10, 90], ["frog", None, 0], ["dog", 9.5, 1000]],
    )
    content = {
        "kind": kind,
        "title": f"Probe of {folder.name}",
        "findings": [f"Top-1 is {top1:.1f} %, 95 % interval {top1 - 1:.1f} to {top1 + 1:.1f}."],
        "provenance": {"command": "sslk probe", "model": folder.name, "data": data, "seed": 0, "config": {"epochs": 100}},
        "summary": {"top1_percent": top1, "auroc": top1 / 100, "note": "text"},
        "tables": [table],
        "figures": [save_figure(figure, folder, "curve", "Learning curve", "Top-1 rises with the epochs.", {"x": [0, 1]})],
        **changes,
    }
    Run(**content).save(folder)
    return folder
