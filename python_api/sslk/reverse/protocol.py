"""The protocol: split, fit and test the predictor on every clustering, for one or several concept tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sslk.concepts.table import ConceptTable
from sslk.probes.settings import changed
from sslk.probes.usable import RowCounts
from sslk.progress import Progress
from sslk.reverse.metrics import METRICS, TOP, ReverseMetrics, reverse_metrics, value_of
from sslk.reverse.probe import ConceptPredictor, fit_predictor
from sslk.reverse.quantizer import Clusterings
from sslk.reverse.settings import ProbeSettings
from sslk.reverse.split import Split, stratified_split


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """The predictor of one clustering and its results.

    Attributes:
        test: metrics on the test rows.
        train_ce, validation_ce: cross-entropy of the selected predictor there, in nats: what it overfits shows here.
        predictor, split: what was fitted and on which rows.
        logits: `[n, K]` on the test rows.
    """

    test: ReverseMetrics
    train_ce: float
    validation_ce: float
    predictor: ConceptPredictor
    split: Split
    logits: Tensor


@dataclass(frozen=True, eq=False)
class ReverseProbe:
    """Reverse probing of one encoder with one set of concepts.

    Attributes:
        probes: one per clustering.
        num_concepts, num_clusters: M and K.
        constant: columns that no image, or every image, shows.
        empty: clusters without a row, in the clustering that has the most.
        rows: how many rows there were, and how many were left out for being unlabelled or not finite.
    """

    probes: list[ProbeResult]
    num_concepts: int
    num_clusters: int
    constant: list[str]
    empty: int = 0
    rows: RowCounts = RowCounts(0)  # noqa: RUF009 (frozen)

    def values(self, metric: str) -> Tensor:
        """A metric of every clustering, float64 `[R]`, NaN where it is absent; also `train_ce` and `validation_ce`."""
        if metric in ("train_ce", "validation_ce"):
            return torch.tensor([getattr(probe, metric) for probe in self.probes], dtype=torch.float64)
        if metric not in (*METRICS, "absent"):
            raise ValueError(f"metric must be one of {', '.join(METRICS)}, train_ce, validation_ce, got {metric!r}.")
        return torch.tensor([value_of(probe.test, metric) for probe in self.probes], dtype=torch.float64)

    def mean(self, metric: str) -> float:
        """Mean over the clusterings."""
        return float(self.values(metric).mean())

    def std(self, metric: str) -> float:
        """Standard deviation over the clusterings (of the sample); NaN for a single one."""
        values = self.values(metric)
        return float(values.std()) if len(values) > 1 else float("nan")

    @property
    def warnings(self) -> list[str]:
        """What a reader should know: rows left out, constant columns, clusters that are empty, small or without test rows."""
        said = self.rows.said()
        if self.empty:
            said.append(f"Up to {self.empty} of {self.num_clusters} clusters are empty.")
        if self.constant:
            named = ", ".join(self.constant[:4]) + (", ..." if len(self.constant) > 4 else "")
            said.append(f"{len(self.constant)} of {self.num_concepts} concepts are constant and say nothing: {named}.")
        small = max(probe.split.too_small for probe in self.probes)
        if small:
            said.append(
                f"Up to {small} of {self.num_clusters} clusters have too few rows for all three parts; their rows fell "
                "to the parts by chance."
            )
        absent = max(probe.test.absent for probe in self.probes)
        if absent:
            said.append(f"Up to {absent} clusters have no test row and are left out of mAP.")
        if self.num_clusters <= TOP:
            said.append(f"Top-5 is left out: of {self.num_clusters} clusters it is right whatever is predicted.")
        return said


def reverse_probe(
    clusterings: Clusterings,
    concepts: ConceptTable,
    settings: ProbeSettings | None = None,
    *,
    progress: Progress | None = None,
    **changes: Any,
) -> ReverseProbe:
    """Predict the clusters of images from their concepts, by the protocol of Laina, Asano and Vedaldi (ICLR 2022).

    Every clustering has a split of its own, stratified by its clusters; the epoch is selected on validation rows and
    tested once. Rows meet by the number of their image, whatever the order.

    Args:
        clusterings: from `quantize`, or `Clusterings.given`.
        concepts: a row for every image of the clusterings; more do no harm.
        settings: the paper's by default.
        progress: called with epochs done and in all.
        changes: fields of the settings by name, such as `epochs=20`.

    Raises:
        ConceptError: an image has no concepts.
        TypeError: clusterings or concepts are something else, or there is no such setting.

    >>> labels = torch.arange(200) % 4
    >>> table = ConceptTable.from_rows([[c] for c in labels.tolist()], list("abcd"), "labels")
    >>> result = reverse_probe(Clusterings.given(labels), table, epochs=5)
    >>> result.mean("nmi"), result.num_concepts
    (1.0, 4)
    """
    settings = changed(settings or ProbeSettings(), changes, "reverse_probe")
    return reverse_probes(clusterings, {"": concepts}, settings, progress=progress)[""]


def reverse_probes(
    clusterings: Clusterings,
    tables: Mapping[str, ConceptTable],
    settings: ProbeSettings | None = None,
    *,
    progress: Progress | None = None,
) -> dict[str, ReverseProbe]:
    """`reverse_probe` for several concept tables, all on the same splits: differences are the concepts' alone."""
    settings = settings or ProbeSettings()
    _check_kinds(clusterings, tables)
    joined = {name: table.join(clusterings.samples) for name, table in tables.items()}
    splits = [stratified_split(row, seed=settings.seed + r) for r, row in enumerate(clusterings.assignments)]
    results: dict[str, ReverseProbe] = {}
    empty, counts = max(clusterings.empty), clusterings.rows
    total = len(tables) * len(splits) * settings.epochs
    for number, (name, table) in enumerate(joined.items()):
        probes = []
        for r, (row, split) in enumerate(zip(clusterings.assignments, splits, strict=True)):
            begun = (number * len(splits) + r) * settings.epochs

            def report(done: int, _: int, stage: str, begun: int = begun) -> None:
                if progress is not None:
                    progress(begun + done, total, stage)

            probes.append(probe_clustering(row, clusterings.num_clusters, table, split, settings, progress=report))
        results[name] = ReverseProbe(probes, table.num_concepts, clusterings.num_clusters, table.constant(), empty, counts)
    return results


def _check_kinds(clusterings: Clusterings, tables: Mapping[str, ConceptTable]) -> None:
    """Refuse features, files and the like where clusterings and concept tables are needed."""
    if not isinstance(clusterings, Clusterings):
        raise TypeError(
            "clusterings must be Clusterings, from quantize(a FeatureStore or features) or Clusterings.given(assignments), got "
            f"{type(clusterings).__name__}."
        )
    for table in tables.values():
        if not isinstance(table, ConceptTable):
            raise TypeError(f"concepts must be a ConceptTable, from read_concepts(file), got {type(table).__name__}.")


def probe_clustering(
    clusters: Tensor,
    num_clusters: int,
    concepts: ConceptTable,
    split: Split,
    settings: ProbeSettings,
    *,
    progress: Progress | None = None,
) -> ProbeResult:
    """One clustering: fit on the training rows, select on validation, measure on test."""
    train, validation, test = (concepts.take(rows) for rows in (split.train, split.validation, split.test))
    target = clusters.long()
    predictor = fit_predictor(
        train, target[split.train], validation, target[split.validation], num_clusters, settings, progress=progress
    )
    losses = [
        float(F.cross_entropy(predictor.logits(table), target[rows]))
        for table, rows in ((train, split.train), (validation, split.validation))
    ]
    logits = predictor.logits(test)
    return ProbeResult(reverse_metrics(logits, target[split.test]), losses[0], losses[1], predictor, split, logits)
