"""What an experiment returns: a `Run`; and the columns that its tables share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sslk.results.figure import Picture, picture
from sslk.results.provenance import provenance
from sslk.results.run import Measure, Run, RunTable, Value
from sslk.reverse.protocol import ReverseProbe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


def experiment(
    title: str, findings: list[str], summary: Mapping[str, Value], tables: list[RunTable], figures: Sequence[Picture] = ()
) -> Run:
    """The outcome of one experiment as a `Run`; who knows where its inputs came from adds that to its provenance."""
    return Run("reverse", title, findings, provenance({}), summary, tables, list(figures))


def drawn(
    name: str, title: str, alt: str, draw: Callable[[], Figure], header: Sequence[str], rows: Sequence[Sequence[Any]]
) -> Picture:
    """A figure, and the numbers it shows as rows."""
    columns = {text: [row[place] for row in rows] for place, text in enumerate(header)}
    return picture(name, title, alt, draw, columns, "png")


def spread(values: Any, factor: float = 1.0) -> str:
    """`mean ± std` over clusterings, for a sentence."""
    mean = float(values.mean()) * factor
    return f"{mean:.2f} ± {float(values.std()) * factor:.2f}" if len(values) > 1 else f"{mean:.2f}"


def metric_columns() -> list[str]:
    """Headings of `metric_row`."""
    return [heading for name, _, _ in COLUMNS for heading in (name, f"std of {name}")]


def metric_row(probe: ReverseProbe) -> list[float | None]:
    """Mean and standard deviation over the clusterings of every metric; None where there is none."""
    pairs = [(factor, value) for _, metric, factor in COLUMNS for value in (probe.mean(metric), probe.std(metric))]
    return [None if math.isnan(value) else factor * value for factor, value in pairs]


def measures_of(model: str, probe: ReverseProbe) -> list[Measure]:
    """The means over clusterings; the data is named by who knows it."""
    task = f"reverse probing, {probe.num_clusters} clusters"
    values = [(name, factor * probe.mean(metric)) for name, metric, factor in COLUMNS[:9]]
    return [Measure("", model, task, name, value) for name, value in values if not math.isnan(value)]


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
