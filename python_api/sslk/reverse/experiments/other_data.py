"""Other data: everything fitted on another data set (table 4), and a probe tested on shifted images (table 7)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sslk.concepts.table import ConceptError, ConceptTable
from sslk.probes.usable import RowCounts, finite_rows
from sslk.results.run import Run, RunTable
from sslk.reverse.experiments.agreement import comparable
from sslk.reverse.experiments.result import agreement_summary, experiment, run_table, spread, warnings_of
from sslk.reverse.metrics import METRICS, reverse_metrics, value_of
from sslk.reverse.protocol import reverse_probe
from sslk.reverse.quantizer import Clusterings, quantize
from sslk.reverse.settings import KMeansSettings, ProbeSettings


def transfer(
    features: Mapping[str, tuple[Tensor, Tensor]],
    concepts: ConceptTable,
    clusters: tuple[int, ...] = (500, 1000),
    kmeans: KMeansSettings | None = None,
    settings: ProbeSettings | None = None,
) -> Run:
    """k-means and probe fitted on a data set that the encoders did not train on.

    Args:
        features: per encoder `[N, D]` and the number of each row `[N]`, of the other data set.
        concepts: of its images.
        clusters: values of K; the paper's on Places-365 are 500 and 1,000.
        kmeans, settings: of the quantiser (but for K) and the predictor.
    """
    from dataclasses import replace

    probes = {
        f"{name}, K = {k}": reverse_probe(
            quantize(values, replace(kmeans or KMeansSettings(), clusters=k), samples=samples), concepts, settings
        )
        for name, (values, samples) in features.items()
        for k in clusters
    }
    findings = [
        f"{name}: NMI {spread(p.values('nmi'), 100)} %, AMI {spread(p.values('ami'), 100)} %." for name, p in probes.items()
    ]
    findings += comparable(probes.values()).why
    summary = agreement_summary(probes)
    table = run_table("Fitted on the other data set", "model and K", probes, "reverse_table4")
    return experiment("Reverse probing on another data set", findings + warnings_of(probes), summary, [table])


def shifted_test(
    clusterings: Clusterings,
    concepts: ConceptTable,
    features: Tensor,
    samples: Tensor,
    shifted: ConceptTable,
    settings: ProbeSettings | None = None,
    *,
    title: str = "shifted",
) -> Run:
    """A probe fitted on one data set, tested on the concepts and features of another.

    The other features get the clusters of the first data set's k-means; the probe sees their concepts only.

    Args:
        clusterings: of the first data set, with centroids.
        concepts: of the first data set.
        features: `[n, D]` of the other data set under the same encoder.
        samples: number of each of these rows.
        shifted: concepts of the other data set; the same columns.
        settings: of the predictor.
        title: of the other data set.

    Raises:
        ConceptError: the two tables have different columns.
    """
    pairs = [list(zip(table.groups, table.names, strict=True)) for table in (concepts, shifted)]
    if pairs[0] != pairs[1]:
        different = set(pairs[0]) ^ set(pairs[1])
        example = "/".join(min(different)) if different else "their order"
        raise ConceptError(
            f"both concept tables must have the same columns, got {concepts.num_concepts} and "
            f"{shifted.num_concepts}, differing in {len(different)} (such as {example})."
        )
    fitted = reverse_probe(clusterings, concepts, settings)
    finite = finite_rows(features)
    counts = RowCounts(len(finite), nonfinite=int((~finite).sum()))
    features, samples = features[finite], samples[finite]
    table = shifted.join(samples)
    truth = clusterings.assign(features)
    rows: list[list[float | str | None]] = []
    summary: dict[str, float | int | str | None] = {}
    findings = []
    results = {
        "same data": [probe.test for probe in fitted.probes],
        title: [reverse_metrics(probe.predictor.logits(table), row) for probe, row in zip(fitted.probes, truth, strict=True)],
    }
    for name, found in results.items():
        values = torch.tensor([[value_of(item, metric) for metric in METRICS] for item in found]).double()
        factor = torch.tensor([1.0 if m in ("entropy", "cross_entropy", "information") else 100.0 for m in METRICS])
        values *= factor
        deviations = values.std(0) if len(values) > 1 else torch.full((len(METRICS),), torch.nan)
        pairs_of = zip(values.mean(0).tolist(), deviations.tolist(), strict=True)
        rows.append([name, *(None if v != v else v for pair in pairs_of for v in pair)])
        nmi, ami, top1 = (values[:, METRICS.index(metric)] for metric in ("nmi", "ami", "top1"))
        findings.append(f"{name}: NMI {spread(nmi)} %, AMI {spread(ami)} %, top-1 {spread(top1)} %.")
        summary |= {f"NMI {name} [%]": float(nmi.mean()), f"AMI {name} [%]": float(ami.mean())}
    findings += [*comparable([fitted]).why, *fitted.warnings, *counts.said(title)]
    units = [f"{m} [nats]" if m in ("entropy", "cross_entropy", "information") else f"{m} [%]" for m in METRICS]
    columns = ["test set", *(heading for unit in units for heading in (unit, f"std of {unit}"))]
    table_out = RunTable("Probe fitted on the first data set", columns, rows, "reverse_table7")
    return experiment("Reverse probing under a shift", findings, summary, [table_out])
