"""Reverse probing of one encoder, one assignment or none from the command line, each sub-command leaving a run."""

from __future__ import annotations

from dataclasses import asdict

import torch

from sslk.commands.reverse_inputs import cluster_stores, config_of, load_assignment, load_table, save
from sslk.data import load_dataset
from sslk.features.store import FeatureStore
from sslk.reverse import experiments
from sslk.reverse.concepts import ConceptTable
from sslk.reverse.probe_settings import ProbeSettings
from sslk.reverse.quantizer import KMeansSettings


def shifted(
    store: str,
    concepts: str,
    shifted_store: str,
    shifted_concepts: str,
    out: str,
    title: str = "shifted",
    kmeans: KMeansSettings = KMeansSettings(),  # noqa: B008
    probe: ProbeSettings = ProbeSettings(),  # noqa: B008
    quiet: bool = False,
) -> None:
    """A probe fitted on one data set, tested on the concepts of another, against the first one's clusters.

    Examples:
        $ sslk reverse-probe shifted --store runs/a --concepts a.st --shifted-store runs/b --shifted-concepts b.st --out runs/s

    Args:
        store: feature store of the first data set.
        concepts: its concept table.
        shifted_store: feature store of the other data set under the same encoder.
        shifted_concepts: its concept table, of the same columns.
        out: folder of the run.
        title: of the other data set.
        kmeans: settings of the quantiser.
        probe: settings of the predictor.
        quiet: no progress bar.
    """
    first, second = FeatureStore(store).require(), FeatureStore(shifted_store).require()
    if first.spec.weights_hash != second.spec.weights_hash:
        raise ValueError(f"both stores must be of one encoder, got {first.spec.model} and {second.spec.model}.")
    tables = load_table(concepts, [store]), load_table(shifted_concepts, [shifted_store])
    found = cluster_stores([f"first={store}"], kmeans, out, probe.device, quiet)["first"]
    batch = second.load()
    result = experiments.shifted_test(
        found, tables[0], batch.features.float(), batch.indices, tables[1], probe, title=title
    )
    config = config_of([store, shifted_store], concepts, kmeans, probe, shifted_concepts=shifted_concepts)
    save(result, out, "shifted", config)


def self_labels(
    assignments: str,
    concepts: str,
    out: str,
    title: str = "given",
    probe: ProbeSettings = ProbeSettings(),  # noqa: B008
) -> None:
    """The protocol on an assignment that the encoder comes with, in place of k-means.

    Examples:
        $ sslk reverse-probe self-labels --assignments runs/sela.csv --concepts runs/c.safetensors --out runs/self

    Args:
        assignments: CSV of sample number and cluster, or clusterings that another command left.
        concepts: concept table of these images.
        out: folder of the run.
        title: of the assignment.
        probe: settings of the predictor.
    """
    found = load_assignment(assignments, title)
    result = experiments.self_labels({title: found}, ConceptTable.load(concepts), probe)
    save(result, out, "self-labels", {"assignments": assignments, "concepts": concepts, "probe": asdict(probe)})


def labels(
    store: str,
    concepts: str,
    out: str,
    exclude: str | None = "labels",
    repeats: int = 5,
    probe: ProbeSettings = ProbeSettings(),  # noqa: B008
) -> None:
    """How well concepts tell the data set's labels, whatever the encoder.

    Examples:
        $ sslk reverse-probe labels --store runs/simclr --concepts runs/c.safetensors --out runs/labels

    Args:
        store: a feature store of the data set, for its labels.
        concepts: concept table of these images.
        out: folder of the run.
        exclude: group to leave out: the labels themselves.
        repeats: splits, over which results are averaged.
        probe: settings of the predictor.
    """
    opened = FeatureStore(store).require(labels=True)
    samples = torch.cat([shard.indices for shard in opened.shards()])
    result = experiments.labels_from_concepts(
        opened.labels(), samples, load_table(concepts, [store]), probe, repeats=repeats, exclude=exclude
    )
    save(result, out, "labels", {"store": store, "concepts": concepts, "probe": asdict(probe)})


def pairs(
    store: str,
    concepts: str,
    group: str,
    data: str,
    out: str,
    split: str = "train",
    root: str | None = None,
    count: int = 4,
    kmeans: KMeansSettings = KMeansSettings(clusterings=1),  # noqa: B008
    probe: ProbeSettings = ProbeSettings(),  # noqa: B008
    quiet: bool = False,
) -> None:
    """Pairs of clusters that a group of concepts tells apart, with word clouds and example images.

    Examples:
        $ sslk reverse-probe pairs --store runs/simclr --concepts c.st --group colour --data sample --out runs/pairs

    Args:
        store: feature store.
        concepts: concept table of its images.
        group: the group that is added to all others.
        data: the data set, for the example images.
        out: folder of the run.
        split: of the data set.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        count: pairs.
        kmeans: settings of the quantiser; the first clustering is used.
        probe: settings of the predictor.
        quiet: no progress bar.
    """
    table = load_table(concepts, [store])
    dataset = load_dataset(data, split, root=root)
    found = cluster_stores([f"store={store}"], kmeans, out, probe.device, quiet)["store"]
    result = experiments.cluster_pairs(found, table, group, lambda number: dataset[number][0], probe, count=count)
    save(result, out, "pairs", config_of([store], concepts, kmeans, probe, group=group))


def toy(out: str, seed: int = 0) -> None:
    """Forward against reverse probing on colour and shape in the plane.

    Examples:
        $ sslk reverse-probe toy --out runs/toy

    Args:
        out: folder of the run.
        seed: of the points.
    """
    save(experiments.toy(seed), out, "toy", {"seed": seed})
