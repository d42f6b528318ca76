"""Quantized reverse probing of the study's encoders: concepts of its training images once, then a run per encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sslk.concepts import ClassAttributes, ClassLabels, Colors, ConceptTable, build_concepts
from sslk.concepts.classifier import backbone_classifier
from sslk.concepts.expert import Expert
from sslk.data import load_dataset
from sslk.features.store import FeatureStore
from sslk.progress import Progress, renamed
from sslk.results.provenance import provenance
from sslk.results.run import Run, RunTable
from sslk.reverse import KMeansSettings, ProbeSettings, ReverseProbe, quantize, reverse_probes

ATTRIBUTES = Path(__file__).with_name("attributes.csv")
LABELS = "labels"
EVERY = {"NMI": "nmi", "AMI": "ami", "top-1": "top1", "I / H": "normalized_information"}  # told of every clustering
OBJECTS_SIZE = 128  # pixels; the images have 32, and ImageNet's classifier takes a third of the time it needs at 224


def concepts(data: str, out: str, imagenet: bool = True, progress: Progress | None = None) -> None:
    """Build the concept table: labels, attributes of the classes, colours, and ImageNet classes.

    Args:
        data: name of the data set, as for `load_dataset`.
        out: file of the table; interrupted, the same call goes on.
        imagenet: with the class that EfficientNet-Lite0, trained on ImageNet, sees in each enlarged image.
        progress: called with what is done and to do.
    """
    dataset = load_dataset(data)
    experts: list[Expert] = [ClassLabels(dataset.classes), ClassAttributes(ATTRIBUTES, dataset.classes), Colors()]
    if imagenet:
        experts.append(backbone_classifier("efficientnet-lite0", group="objects", image_size=OBJECTS_SIZE))
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    build_concepts(dataset, experts, out, part_rows=1000, progress=progress)


def reverse(
    store: str,
    table: str,
    out: str,
    clusters: Sequence[int],
    clusterings: int = 5,
    iterations: int = 30,
    epochs: int = 100,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Predict the k-means clusters of an encoder from concepts, for several K and sets of concepts.

    Args:
        store: feature store of the images of the table.
        table: file that `concepts` wrote.
        out: folder of the run.
        clusters: values of K; the first is the one that the sets of concepts are compared at.
        clusterings: independent clusterings, from one start each.
        iterations: of k-means; the paper's are 100, from 5 starts.
        epochs: of the predictor.
        seed: of k-means, splits and orders.
        progress: called with what is done and to do.
    """
    rows: list[list[object]] = []
    per_clustering: list[list[object]] = []
    findings: list[str] = []
    opened, concept_table = FeatureStore(store), ConceptTable.load(table)
    for place, count in enumerate(clusters):
        settings = KMeansSettings(count, iterations, restarts=1, clusterings=clusterings, seed=seed)
        found = quantize(opened, settings, progress=renamed(progress, f"k-means, K = {count}"))
        sets = concept_sets(concept_table) if place == 0 else {"all": concept_table}
        told = renamed(progress, f"predicting, K = {count}")
        probes = reverse_probes(found, sets, ProbeSettings(epochs=epochs, seed=seed), progress=told)
        for name, probe in probes.items():
            rows.append([count, name, probe.num_concepts, *_means(probe)])
            measured = zip(*(probe.values(metric).tolist() for metric in EVERY.values()), strict=True)
            per_clustering += [[count, name, r, *values] for r, values in enumerate(measured)]
        findings += [f"K = {count}: {said}" for said in probes["all"].warnings]
    best = rows[len(concept_sets(concept_table)) - 1]
    findings.insert(0, f"All {best[2]} concepts predict the {best[0]} clusters with NMI {best[3]:.3f} ± {best[4]:.3f}.")
    columns = ["K", "concepts", "M", "NMI", "NMI std", "AMI", "top-1", "mAP", "I / H"]
    origin = provenance(
        {
            "command": "examples/reproduce/reverse.py",
            "seed": seed,
            "clusters": list(clusters),
            "clusterings": clusterings,
            "iterations": iterations,
            "epochs": epochs,
            "data": opened.spec.dataset.rpartition("/")[2],
            "weights": opened.spec.weights_hash,
        }
    )
    Run(
        "reverse",
        "Quantized reverse probing",
        findings,
        origin,
        {"NMI": best[3]},  # type: ignore[dict-item]
        [
            RunTable("Clusters from concepts, mean over clusterings", columns, rows),
            RunTable("NMI of every clustering", ["K", "concepts", "clustering", *EVERY], per_clustering),
        ],
    ).save(out)


def concept_sets(table: ConceptTable) -> dict[str, ConceptTable]:
    """The labels alone, the labels with one other group each, and everything."""
    others = [group for group in table.group_sizes if group != LABELS]
    sets = {LABELS: table.select([LABELS])}
    sets |= {f"{LABELS} + {group}": table.select([LABELS, group]) for group in others}
    return {**sets, "all": table}


def _means(probe: ReverseProbe) -> list[float]:
    return [
        probe.mean("nmi"),
        probe.std("nmi"),
        *(probe.mean(metric) for metric in ("ami", "top1", "map", "normalized_information")),
    ]
