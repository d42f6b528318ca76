"""Other numbers of clusters, other assignments and other targets: figures 6 and 7, table 6, appendix D.1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from sslk.concepts.table import ConceptTable
from sslk.progress import Progress
from sslk.results.run import Run, RunTable
from sslk.reverse import figures
from sslk.reverse.experiments.agreement import comparable
from sslk.reverse.experiments.result import (
    agreement_summary,
    drawn,
    experiment,
    metric_columns,
    metric_row,
    run_table,
    spread,
    warnings_of,
)
from sslk.reverse.protocol import ReverseProbe, reverse_probe
from sslk.reverse.quantizer import Clusterings, quantize
from sslk.reverse.settings import KMeansSettings, ProbeSettings


def vary_clusters(
    features: Mapping[str, tuple[Tensor, Tensor]],
    concepts: ConceptTable,
    clusters: Sequence[int],
    kmeans: KMeansSettings | None = None,
    settings: ProbeSettings | None = None,
    *,
    progress: Progress | None = None,
) -> Run:
    """The protocol at several K.

    Args:
        features: per encoder `[N, D]` and the number of each row in its data set `[N]`.
        concepts: of these images.
        clusters: values of K.
        kmeans, settings: of the quantiser (but for K) and the predictor.
        progress: called with settings done and in all.

    Raises:
        ValueError: no K, or one above the number of rows.
    """
    if not clusters:
        raise ValueError("clusters must name at least one K, got none.")
    kmeans = kmeans or KMeansSettings()
    rows, findings = [], []
    probes: dict[str, dict[int, ReverseProbe]] = {}
    done = 0
    for name, (values, samples) in features.items():
        probes[name] = {}
        for k in clusters:
            found = quantize(values, replace(kmeans, clusters=k), samples=samples)
            probes[name][k] = reverse_probe(found, concepts, settings)
            rows.append([name, k, *metric_row(probes[name][k])])
            done += 1
            if progress is not None:
                progress(done, len(features) * len(clusters), "clustering and probing")
    by = comparable(probe for of_name in probes.values() for probe in of_name.values())
    labels = {"nmi": ("NMI [%]", 100.0), by.metric: (f"{by.name} [%]", 100.0), "information": ("I [nats]", 1.0)}
    curves: dict[str, dict[str, tuple[list[float], list[float]]]] = {metric: {} for metric in labels}
    for name, of_name in probes.items():
        for metric, (_, factor) in labels.items():
            pairs = [(factor * probe.mean(metric), factor * probe.std(metric)) for probe in of_name.values()]
            curves[metric][name] = ([mean for mean, _ in pairs], [std for _, std in pairs])
        ends = [of_name[k] for k in (clusters[0], clusters[-1])]
        findings.append(
            f"{name}: from K = {clusters[0]} to {clusters[-1]} {by.name} goes from {spread(ends[0].values(by.metric), 100)} "
            f"to {spread(ends[1].values(by.metric), 100)} %, I from {spread(ends[0].values('information'))} to "
            f"{spread(ends[1].values('information'))} nats."
        )
    findings += by.why
    pictures = []
    for metric, (label, _) in labels.items():
        data = [[k, *(side[i] for pair in curves[metric].values() for side in pair)] for i, k in enumerate(clusters)]
        header = ["K", *(f"{name} {what}" for name in features for what in (label, "std"))]
        draw = partial(figures.lines, list(clusters), curves[metric], "clusters K", label)
        alt = f"{label} of each encoder over K."
        pictures.append(drawn(f"vary_k_{metric}", f"{label} over K", alt, draw, header, data))
    table = RunTable("Numbers of clusters", ["model", "K", *metric_columns()], rows)
    return experiment("Reverse probing at several numbers of clusters", findings, {}, [table], pictures)


def self_labels(assignments: Mapping[str, Clusterings], concepts: ConceptTable, settings: ProbeSettings | None = None) -> Run:
    """The protocol on assignments that an encoder comes with, in place of k-means.

    Args:
        assignments: by name, from `Clusterings.given`; clusterings by k-means may stand beside them.
        concepts: of the images.
        settings: of the predictor.
    """
    probes = {name: reverse_probe(found, concepts, settings) for name, found in assignments.items()}
    findings = [
        f"{name}: NMI {spread(probe.values('nmi'), 100)} %, AMI {spread(probe.values('ami'), 100)} %, I/H "
        f"{spread(probe.values('normalized_information'), 100)} %."
        for name, probe in probes.items()
    ]
    findings += comparable(probes.values()).why
    summary = agreement_summary(probes)
    table = run_table("Given assignments", "assignment", probes)
    return experiment("Reverse probing of given assignments", findings + warnings_of(probes), summary, [table])


def labels_from_concepts(
    labels: Tensor,
    samples: Tensor,
    concepts: ConceptTable,
    settings: ProbeSettings | None = None,
    *,
    repeats: int = 5,
    exclude: str | None = "labels",
) -> Run:
    """The data set's labels as targets: how well concepts tell the class, whatever the encoder.

    Args:
        labels: integers `[N]`.
        samples: number of each row in its data set.
        concepts: of these images.
        settings: of the predictor.
        repeats: splits, over which results are averaged.
        exclude: a group to leave out where the table has it: the labels themselves.
    """
    kept = [group for group in concepts.group_sizes if group != exclude]
    tables = {"all": concepts.select(kept)}
    if len(kept) > 1:
        tables |= {group: concepts.select([group]) for group in kept}
    targets = Clusterings.given(torch.stack([labels] * repeats), samples, "labels of the data set")
    probes = {name: reverse_probe(targets, table, settings) for name, table in tables.items()}
    findings = [
        f"Concepts of {name}: class top-1 {spread(p.values('top1'), 100)} %, NMI {spread(p.values('nmi'), 100)} %, "
        f"AMI {spread(p.values('ami'), 100)} %; ± over {repeats} splits."
        for name, p in probes.items()
    ]
    summary: dict[str, float | int | str | None] = {"class top-1 [%]": 100 * probes["all"].mean("top1")}
    table = run_table("Class from concepts", "groups", probes)
    return experiment("Class labels from concepts", findings + warnings_of(probes), summary, [table])
