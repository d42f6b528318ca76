"""What an experiment returns: findings, tables and figures, ready to be saved as a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from sslk.files.tables import write_rows
from sslk.results.run import Run, RunFigure, RunTable
from sslk.reverse.protocol import ReverseProbe

# Name in a table, attribute of the metrics, factor.
COLUMNS = (
    ("NMI [%]", "nmi", 100.0),
    ("AMI [%]", "ami", 100.0),
    ("top-1 [%]", "top1", 100.0),
    ("top-5 [%]", "top5", 100.0),
    ("mAP [%]", "map", 100.0),
    ("H [nats]", "entropy", 1.0),
    ("CE [nats]", "cross_entropy", 1.0),
    ("I [nats]", "information", 1.0),
    ("I/H [%]", "normalized_information", 100.0),
    ("train CE [nats]", "train_ce", 1.0),
    ("validation CE [nats]", "validation_ce", 1.0),
)


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure and the numbers it shows, as columns."""

    title: str
    alt: str
    figure: Figure
    columns: list[str] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class ExperimentResult:
    """The outcome of one experiment.

    Attributes:
        title: one line.
        findings: sentences with numbers and their spread.
        summary: headline numbers by name.
        tables: numbers with their units.
        pictures: by file name.
    """

    title: str
    findings: list[str]
    summary: dict[str, float | int | str | None]
    tables: list[RunTable]
    pictures: dict[str, Picture] = field(default_factory=dict)

    def save(self, folder: str | os.PathLike[str], provenance: dict[str, Any]) -> Run:
        """Write figures (PNG), their data (CSV) and `results.json`, which `sslk report` reads."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        figures = []
        for name, picture in self.pictures.items():
            picture.figure.savefig(path / f"{name}.png", dpi=110)
            plt.close(picture.figure)
            data = None
            if picture.columns:
                data = f"{name}.csv"
                with (path / data).open("w", newline="", encoding="utf-8") as file:
                    write_rows(file, [picture.columns, *picture.rows])
            figures.append(RunFigure(picture.title, f"{name}.png", picture.alt, data))
        run = Run("reverse", self.title, self.findings, provenance, self.summary, self.tables, figures)
        run.save(path)
        return run


def spread(values: Any, factor: float = 1.0) -> str:
    """`mean ± std` over clusterings, for a sentence."""
    mean = float(values.mean()) * factor
    return f"{mean:.2f} ± {float(values.std()) * factor:.2f}" if len(values) > 1 else f"{mean:.2f}"


def metric_columns() -> list[str]:
    """Headings of `metric_row`."""
    return [heading for name, _, _ in COLUMNS for heading in (name, f"std of {name}")]


def metric_row(probe: ReverseProbe) -> list[float]:
    """Mean and standard deviation over the clusterings of every metric."""
    return [
        factor * value for _, metric, factor in COLUMNS for value in (probe.mean(metric), probe.std(metric))
    ]  # fmt: skip


def agreement_summary(probes: Mapping[str, ReverseProbe]) -> dict[str, float | int | str | None]:
    """NMI and AMI of every named result, for the headline numbers."""
    return {
        f"{name} {of} [%]": 100 * probe.mean(metric)
        for name, metric in (("NMI", "nmi"), ("AMI", "ami"))
        for of, probe in probes.items()
    }


def run_table(title: str, label: str, probes: dict[str, ReverseProbe], paper: str | None = None) -> RunTable:
    """All metrics, a row per named result."""
    rows = [[name, probe.num_concepts, probe.num_clusters, *metric_row(probe)] for name, probe in probes.items()]
    return RunTable(title, [label, "concepts", "clusters", *metric_columns()], rows, paper)


def warnings_of(probes: dict[str, ReverseProbe]) -> list[str]:
    """What readers should know, each sentence once."""
    said = [f"{name}: {warning}" if name else warning for name, probe in probes.items() for warning in probe.warnings]
    return list(dict.fromkeys(said))
