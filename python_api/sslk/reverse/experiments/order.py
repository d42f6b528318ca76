"""Ranking encoders (table 2) and setting the ranking against a forward measure (figure 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from sslk.concepts.table import ConceptTable
from sslk.progress import Progress
from sslk.results.run import Run, RunTable
from sslk.reverse import figures
from sslk.reverse.experiments.agreement import comparable
from sslk.reverse.experiments.result import (
    agreement_summary,
    drawn,
    experiment,
    measures_of,
    metric_columns,
    metric_row,
    spread,
    warnings_of,
)
from sslk.reverse.protocol import ReverseProbe, reverse_probe
from sslk.reverse.quantizer import Clusterings
from sslk.reverse.settings import ProbeSettings


def ranking(
    encoders: Mapping[str, Clusterings],
    concepts: ConceptTable,
    settings: ProbeSettings | None = None,
    *,
    accuracy: Mapping[str, float] | None = None,
    groups: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Run:
    """All encoders by NMI, or AMI where chance makes up much of it (`comparable`), all with the same concepts.

    Args:
        encoders: clusterings of the same images by each encoder.
        concepts: of these images.
        settings: of the predictor.
        accuracy: linear-probe top-1 of encoders in percent, for the scatter; encoders without one are left out of it.
        groups: architecture and epochs of encoders, by which the table is grouped.
        progress: called with encoders done and in all.
    """
    probes: dict[str, ReverseProbe] = {}
    for done, (name, clusterings) in enumerate(encoders.items()):
        probes[name] = reverse_probe(clusterings, concepts, settings)
        if progress is not None:
            progress(done + 1, len(encoders), "probing")
    return ranking_result(probes, accuracy or {}, groups or {})


def ranking_result(probes: Mapping[str, ReverseProbe], accuracy: Mapping[str, float], groups: Mapping[str, str]) -> Run:
    """The table, the scatter and the order of encoders that were probed already."""
    by = comparable(probes.values())
    order = sorted(probes, key=lambda name: (groups.get(name, ""), -probes[name].mean(by.metric)))
    rows = [
        [
            groups.get(name),
            name,
            accuracy.get(name),
            probes[name].num_concepts,
            probes[name].num_clusters,
            *metric_row(probes[name]),
        ]
        for name in order
    ]
    columns = ["group", "model", "linear probe top-1 [%]", "concepts", "clusters", *metric_columns()]
    best = sorted(probes, key=lambda name: -probes[name].mean(by.metric))
    findings = [
        f"By {by.name}: " + ", ".join(f"{name} {spread(probes[name].values(by.metric), 100)} %" for name in best) + ".",
        *by.why,
        "By I/H: "
        + ", ".join(
            f"{name} {spread(probes[name].values('normalized_information'), 100)} %"
            for name in sorted(probes, key=lambda name: -probes[name].mean("normalized_information"))
        )
        + "; ± is one standard deviation over clusterings.",
        *warnings_of(dict(probes)),
    ]
    pictures = []
    placed = [name for name in order if name in accuracy]
    if placed:
        x, y = [accuracy[name] for name in placed], [100 * probes[name].mean(by.metric) for name in placed]
        errors = [100 * probes[name].std(by.metric) for name in placed]
        alt = f"{by.name} of each encoder over its linear-probe accuracy with a regression line."
        data = [list(row) for row in zip(placed, x, y, errors, strict=True)]
        header = ["model", "linear probe top-1 [%]", f"{by.name} [%]", f"std of {by.name} [%]"]
        axes = "linear probe top-1 [%]", f"reverse probe {by.name} [%]"
        pictures = [
            drawn(
                "ranking",
                "Reverse against forward probing",
                alt,
                lambda: figures.regression_scatter(placed, x, y, errors, *axes),
                header,
                data,
            )
        ]
        if len(placed) > 2 and np.ptp(x) > 0:
            r = float(np.corrcoef(x, y)[0, 1])
            findings.append(f"{by.name} and linear-probe accuracy correlate with r = {r:.2f} over {len(placed)} encoders.")
    summary = agreement_summary({name: probes[name] for name in best})
    table = RunTable("Encoders", columns, rows, "reverse_table2")
    run = experiment("Ranking of encoders by reverse probing", findings, summary, [table], pictures)
    return replace(run, measures=[measure for name in best for measure in measures_of(name, probes[name])])
