"""What groups of concepts contribute: cumulative breakdown (figure 4) and gain over the labels (table 3)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from sslk.concepts.table import ConceptError, ConceptTable
from sslk.progress import Progress
from sslk.results.run import Run, RunTable
from sslk.reverse import figures
from sslk.reverse.experiments.agreement import Agreement, comparable
from sslk.reverse.experiments.result import drawn, experiment, metric_columns, metric_row, spread, warnings_of
from sslk.reverse.protocol import ReverseProbe, reverse_probes
from sslk.reverse.quantizer import Clusterings
from sslk.reverse.settings import ProbeSettings


def cumulative(concepts: ConceptTable, order: Sequence[str], labels: str | None) -> dict[str, ConceptTable]:
    """Tables of more and more groups, with the labels before all others and without them.

    >>> table = ConceptTable.from_rows([[0, 1, 2]], ["cat", "red", "sky"], ["labels", "colour", "scene"])
    >>> list(cumulative(table, ["colour", "scene"], "labels"))
    ['labels', 'labels + colour', 'labels + colour + scene', 'colour', 'colour + scene']
    """
    tables = {}
    for first in ([[labels]] if labels else []) + [[]]:
        for stop in range(0 if first else 1, len(order) + 1):
            groups = [*first, *order[:stop]]
            tables[" + ".join(groups)] = concepts.select(groups)
    return tables


def breakdown(
    encoders: Mapping[str, Clusterings],
    concepts: ConceptTable,
    settings: ProbeSettings | None = None,
    *,
    order: Sequence[str] | None = None,
    labels: str | None = "labels",
    progress: Progress | None = None,
) -> Run:
    """Validated information as groups of concepts are added one after the other, with and without the labels.

    Args:
        encoders: clusterings of the same images by each encoder.
        concepts: of these images.
        settings: of the predictor.
        order: groups in the order of adding; the table's by default.
        labels: the group of the labels, or None.
        progress: called with encoders done and in all.

    Raises:
        ConceptError: an unknown group.
    """
    order = _order(concepts, order, labels)
    tables = cumulative(concepts, order, labels)
    rows, findings, series = [], [], {}
    summary: dict[str, float | int | str | None] = {}
    all_probes: dict[str, ReverseProbe] = {}
    for done, (name, clusterings) in enumerate(encoders.items()):
        probes = reverse_probes(clusterings, tables, settings)
        rows += [[name, groups, probes[groups].num_concepts, *metric_row(probes[groups])] for groups in tables]
        for start in {labels or order[0], order[0]}:
            steps = [groups for groups in tables if groups.split(" + ")[0] == start]
            ratios = [100 * probes[step].mean("normalized_information") for step in steps]
            if start == (labels or order[0]):
                series[name] = (ratios, [100 * probes[step].std("normalized_information") for step in steps])
                axis = steps
                summary[f"I/H {name}, all concepts [%]"] = ratios[-1]
            findings += _drops(name, steps, probes)
        all_probes |= {f"{name}, {groups}": probe for groups, probe in probes.items()}
        if progress is not None:
            progress(done + 1, len(encoders), "probing")
    ticks = [axis[0], *(f"+ {step.split(' + ')[-1]}" for step in axis[1:])]
    alt = "Normalised information of each encoder as groups of concepts are added."
    header = ["groups", *(f"{name} {what} [%]" for name in series for what in ("I/H", "std"))]
    data = [[step, *(value[i] for pair in series.values() for value in pair)] for i, step in enumerate(axis)]
    if not any("lowers" in finding for finding in findings):
        findings.insert(0, "No added group lowers the validated information by more than two standard errors.")
    table = RunTable("Cumulative groups", ["model", "groups", "concepts", *metric_columns()], rows)
    return experiment(
        "Information by groups of concepts",
        findings + _once(warnings_of(all_probes)),
        summary,
        [table],
        [
            drawn(
                "breakdown",
                "Information as concepts are added",
                alt,
                lambda: figures.lines(ticks, series, "groups of concepts, cumulative", "I / H [%]"),
                header,
                data,
            )
        ],
    )


def _drops(name: str, steps: Sequence[str], probes: Mapping[str, ReverseProbe]) -> list[str]:
    """The step from the first to all groups, and every step that loses more than noise, paired by clustering."""
    if len(steps) < 2:
        return []
    first, last = (probes[step].values("information") for step in (steps[0], steps[-1]))
    said = [f"{name}: from {steps[0]} to {steps[-1]} I goes from {spread(first)} to {spread(last)} nats."]
    for before, after in itertools.pairwise(steps):
        change = probes[after].values("information") - probes[before].values("information")
        error = float(change.std()) / len(change) ** 0.5 if len(change) > 1 else 0.0
        if float(change.mean()) < -2 * error:
            said.append(
                f"{name}: adding {after.split(' + ')[-1]} to {before} lowers I by {-float(change.mean()):.3f} nats "
                f"(standard error {error:.3f} over {len(change)} clusterings): it overfits."
            )
    return said


def gain(
    encoders: Mapping[str, Clusterings],
    concepts: ConceptTable,
    settings: ProbeSettings | None = None,
    *,
    labels: str = "labels",
    progress: Progress | None = None,
) -> Run:
    """Change in NMI when one group is added to the labels, group by group; in AMI where NMI is much chance (`comparable`).

    Args:
        encoders, concepts, settings, progress: as for `breakdown`.
        labels: the group that all others are added to.

    Raises:
        ConceptError: no such group, or no other.
    """
    others = _order(concepts, None, labels)
    tables = {"": concepts.select([labels])} | {group: concepts.select([labels, group]) for group in others}
    probes: dict[str, dict[str, ReverseProbe]] = {}
    for done, (name, clusterings) in enumerate(encoders.items()):
        probes[name] = reverse_probes(clusterings, tables, settings)
        if progress is not None:
            progress(done + 1, len(encoders), "probing")
    by = comparable(probe for of_name in probes.values() for probe in of_name.values())
    in_nmi = _gains(probes, others, Agreement("nmi", "NMI", []), "reverse_table3")
    table, series, findings = in_nmi if by.metric == "nmi" else _gains(probes, others, by, None)
    summary: dict[str, float | int | str | None] = {
        f"{name}: gain of {group} [points]": mean
        for name, (means, _) in series.items()
        for group, mean in zip(others, means, strict=True)
    }
    alt = f"Change in {by.name} when each group is added to the labels, per encoder."
    shown = drawn(
        "gain",
        "Gain of each group over the labels",
        alt,
        lambda: figures.bars(others, series, f"change in {by.name} [points]"),
        table.columns,
        table.rows,
    )
    written = [table] if by.metric == "nmi" else [table, in_nmi[0]]
    title = "Gain of groups of concepts over the labels"
    return experiment(title, findings + by.why, summary, written, [shown])


def _gains(
    probes: Mapping[str, Mapping[str, ReverseProbe]], others: Sequence[str], by: Agreement, paper: str | None
) -> tuple[RunTable, dict[str, tuple[list[float], list[float]]], list[str]]:
    """The table, mean and deviation of every group's gain per encoder, and a sentence each."""
    rows: list[list[Any]] = []
    series, findings = {}, []
    for name, of_name in probes.items():
        base = 100 * of_name[""].values(by.metric)
        changes = {group: 100 * of_name[group].values(by.metric) - base for group in others}
        means = [float(change.mean()) for change in changes.values()]
        deviations = [float(change.std()) if len(change) > 1 else float("nan") for change in changes.values()]
        rows.append([name, float(base.mean()), *(v for pair in zip(means, deviations, strict=True) for v in pair)])
        series[name] = (means, deviations)
        findings.append(
            f"{name}: labels alone {spread(base)} % {by.name}; "
            + ", ".join(f"{group} {spread(change)}" for group, change in changes.items())
            + " points; ± over clusterings, differences taken on the same split."
        )
    of_groups = (column for group in others for column in (f"+ {group} [points]", f"std of + {group}"))
    columns = ["model", f"labels only, {by.name} [%]", *of_groups]
    return RunTable(f"Gain in {by.name} over the labels", columns, rows, paper), series, findings


def _order(concepts: ConceptTable, order: Sequence[str] | None, labels: str | None) -> list[str]:
    known = list(concepts.group_sizes)
    chosen = [group for group in known if group != labels] if order is None else list(order)
    unknown = [group for group in [*chosen, *([labels] if labels else [])] if group not in known]
    if unknown or not chosen:
        raise ConceptError(f"groups must be some of {', '.join(known)}, got {', '.join(unknown) or 'only the labels'}.")
    return chosen


def _once(sentences: list[str]) -> list[str]:
    """At most a handful of warnings: combinations of groups repeat each other's."""
    return sentences[:4]
