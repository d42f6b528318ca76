"""Reverse probing from the command line: one sub-command per experiment, each leaving a run in its folder."""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslk.commands.console import progress_bar
from sslk.data import load_dataset
from sslk.features.store import FeatureStore
from sslk.provenance import provenance
from sslk.reverse import experiments
from sslk.reverse.concepts import ConceptTable
from sslk.reverse.experiments import ExperimentResult
from sslk.reverse.probe import ProbeSettings
from sslk.reverse.protocol import quantize_store
from sslk.reverse.quantizer import Clusterings, KMeansSettings


def run(
    stores: list[str],
    concepts: str,
    out: str,
    groups: list[str] | None = None,
    accuracy: str | None = None,
    kmeans: KMeansSettings = KMeansSettings(),  # noqa: B008 (frozen; the command line shows its defaults)
    probe: ProbeSettings = ProbeSettings(),  # noqa: B008
    quiet: bool = False,
) -> None:
    """Reverse-probe one or several encoders and rank them by NMI.

    Examples:
        $ sslk reverse-probe run simclr=runs/simclr random=runs/random --concepts runs/c.safetensors --out runs/ranking

    Args:
        stores: feature stores of the same images, NAME=FOLDER.
        concepts: concept table of these images.
        out: folder of the run; finished clusterings are kept there and used again.
        groups: groups of concepts to use; all by default.
        accuracy: CSV of model and linear-probe top-1 in percent, for the scatter.
        kmeans: settings of the quantiser.
        probe: settings of the predictor.
        quiet: no progress bar.
    """
    table = _table(concepts, groups)
    known = _accuracies(accuracy) if accuracy else None
    encoders = _clusterings(stores, kmeans, out, probe.device, quiet)
    with progress_bar("probing", quiet) as update:
        result = experiments.ranking(encoders, table, probe, accuracy=known, progress=update)
    _save(result, out, "run", _config(stores, concepts, kmeans, probe, groups=groups))


def breakdown(
    stores: list[str],
    concepts: str,
    out: str,
    order: list[str] | None = None,
    labels: str | None = "labels",
    kmeans: KMeansSettings = KMeansSettings(),  # noqa: B008
    probe: ProbeSettings = ProbeSettings(),  # noqa: B008
    quiet: bool = False,
) -> None:
    """Information as groups of concepts are added, with and without the labels.

    Examples:
        $ sslk reverse-probe breakdown simclr=runs/simclr --concepts runs/c.safetensors --out runs/breakdown

    Args:
        stores: feature stores of the same images, NAME=FOLDER.
        concepts: concept table of these images.
        out: folder of the run.
        order: groups in the order of adding; the table's by default.
        labels: the group of the labels; null for a table without.
        kmeans: settings of the quantiser.
        probe: settings of the predictor.
        quiet: no progress bar.
    """
    table = ConceptTable.load(concepts)
    encoders = _clusterings(stores, kmeans, out, probe.device, quiet)
    with progress_bar("probing", quiet) as update:
        result = experiments.breakdown(encoders, table, probe, order=order, labels=labels, progress=update)
    _save(result, out, "breakdown", _config(stores, concepts, kmeans, probe, order=order))


def gain(
    stores: list[str],
    concepts: str,
    out: str,
    labels: str = "labels",
    kmeans: KMeansSettings = KMeansSettings(),  # noqa: B008
    probe: ProbeSettings = ProbeSettings(),  # noqa: B008
    quiet: bool = False,
) -> None:
    """Change in NMI when each group is added to the labels.

    Examples:
        $ sslk reverse-probe gain simclr=runs/simclr --concepts runs/c.safetensors --out runs/gain

    Args:
        stores: feature stores of the same images, NAME=FOLDER.
        concepts: concept table of these images.
        out: folder of the run.
        labels: the group that the others are added to.
        kmeans: settings of the quantiser.
        probe: settings of the predictor.
        quiet: no progress bar.
    """
    table = ConceptTable.load(concepts)
    encoders = _clusterings(stores, kmeans, out, probe.device, quiet)
    with progress_bar("probing", quiet) as update:
        result = experiments.gain(encoders, table, probe, labels=labels, progress=update)
    _save(result, out, "gain", _config(stores, concepts, kmeans, probe))


def vary_k(
    stores: list[str],
    concepts: str,
    out: str,
    clusters: list[int] = [500, 1000, 1500, 2000, 2500, 3000],  # noqa: B006 (never changed)
    kmeans: KMeansSettings = KMeansSettings(),  # noqa: B008
    probe: ProbeSettings = ProbeSettings(),  # noqa: B008
    quiet: bool = False,
) -> None:
    """The protocol at several numbers of clusters.

    Examples:
        $ sslk reverse-probe vary-k simclr=runs/simclr --concepts runs/c.safetensors --clusters 50 100 --out runs/k

    Args:
        stores: feature stores of the same images, NAME=FOLDER.
        concepts: concept table of these images.
        out: folder of the run.
        clusters: values of K.
        kmeans: settings of the quantiser; its clusters are not used.
        probe: settings of the predictor.
        quiet: no progress bar.
    """
    table = ConceptTable.load(concepts)
    with progress_bar("clustering and probing", quiet) as update:
        result = experiments.vary_clusters(_features(stores), table, clusters, kmeans, probe, progress=update)
    _save(result, out, "vary-k", _config(stores, concepts, kmeans, probe, clusters=clusters))


def transfer(
    stores: list[str],
    concepts: str,
    out: str,
    clusters: list[int] = [500, 1000],  # noqa: B006
    kmeans: KMeansSettings = KMeansSettings(),  # noqa: B008
    probe: ProbeSettings = ProbeSettings(),  # noqa: B008
) -> None:
    """k-means and probe fitted on a data set the encoders were not trained on.

    Examples:
        $ sslk reverse-probe transfer simclr=runs/simclr-places --concepts runs/places.safetensors --out runs/transfer

    Args:
        stores: feature stores of the other data set, NAME=FOLDER.
        concepts: concept table of its images.
        out: folder of the run.
        clusters: values of K.
        kmeans: settings of the quantiser; its clusters are not used.
        probe: settings of the predictor.
    """
    table = ConceptTable.load(concepts)
    result = experiments.transfer(_features(stores), table, tuple(clusters), kmeans, probe)
    _save(result, out, "transfer", _config(stores, concepts, kmeans, probe, clusters=clusters))


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
    tables = ConceptTable.load(concepts), ConceptTable.load(shifted_concepts)
    found = _clusterings([f"first={store}"], kmeans, out, probe.device, quiet)["first"]
    batch = second.load()
    result = experiments.shifted_test(
        found, tables[0], batch.features.float(), batch.indices, tables[1], probe, title=title
    )
    config = _config([store, shifted_store], concepts, kmeans, probe, shifted_concepts=shifted_concepts)
    _save(result, out, "shifted", config)


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
    found = _assignment(assignments, title)
    result = experiments.self_labels({title: found}, ConceptTable.load(concepts), probe)
    _save(result, out, "self-labels", {"assignments": assignments, "concepts": concepts, "probe": asdict(probe)})


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
        opened.labels(), samples, ConceptTable.load(concepts), probe, repeats=repeats, exclude=exclude
    )
    _save(result, out, "labels", {"store": store, "concepts": concepts, "probe": asdict(probe)})


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
    table = ConceptTable.load(concepts)
    dataset = load_dataset(data, split, root=root)
    found = _clusterings([f"store={store}"], kmeans, out, probe.device, quiet)["store"]
    result = experiments.cluster_pairs(found, table, group, lambda number: dataset[number][0], probe, count=count)
    _save(result, out, "pairs", _config([store], concepts, kmeans, probe, group=group))


def toy(out: str, seed: int = 0) -> None:
    """Forward against reverse probing on colour and shape in the plane.

    Examples:
        $ sslk reverse-probe toy --out runs/toy

    Args:
        out: folder of the run.
        seed: of the points.
    """
    _save(experiments.toy(seed), out, "toy", {"seed": seed})


def _config(
    stores: list[str], concepts: str, kmeans: KMeansSettings, probe: ProbeSettings, **more: Any
) -> dict[str, Any]:
    """The settings a run remembers."""
    return {"stores": stores, "concepts": concepts, "kmeans": asdict(kmeans), "probe": asdict(probe), **more}


def _save(result: ExperimentResult, out: str, command: str, config: dict[str, Any]) -> None:
    seed = config.get("seed", config.get("probe", {}).get("seed", 0))
    result.save(out, provenance({"command": f"reverse-probe {command}", "seed": seed, "config": config}))
    print("\n".join(result.findings))
    print(f"{out}: results.json, {len(result.tables)} tables, {len(result.pictures)} figures")


def _table(path: str, groups: list[str] | None) -> ConceptTable:
    table = ConceptTable.load(path)
    return table.select(groups) if groups else table


def _named(stores: list[str]) -> dict[str, FeatureStore]:
    named: dict[str, FeatureStore] = {}
    for text in stores:
        name, equals, folder = text.partition("=")
        store = FeatureStore(folder if equals else text).require()
        name = name if equals else store.spec.model
        if name in named:
            raise ValueError(f"stores must have different names, got {name!r} twice: write NAME=FOLDER.")
        named[name] = store
    return named


def _features(stores: list[str]) -> dict[str, tuple[Tensor, Tensor]]:
    loaded = {name: store.load() for name, store in _named(stores).items()}
    return {name: (batch.features.float(), batch.indices) for name, batch in loaded.items()}


def _clusterings(
    stores: list[str], settings: KMeansSettings, out: str, device: str, quiet: bool
) -> dict[str, Clusterings]:
    """The clusterings of every store, those that the folder has from an earlier run with the same settings reused."""
    found: dict[str, Clusterings] = {}
    for name, store in _named(stores).items():
        file = Path(out) / "clusterings" / f"{name.replace('/', '-').replace(':', '-')}.safetensors"
        if file.exists():
            earlier = Clusterings.load(file)
            if earlier.about.get("settings") == asdict(settings) and earlier.about.get("store") == store.spec.identity:
                found[name] = earlier
                continue
        with progress_bar(f"clustering {name}", quiet) as update:
            found[name] = quantize_store(store, settings, device=device, progress=update)
        found[name].about["store"] = store.spec.identity
        found[name].save(file)
    return found


def _assignment(path: str, title: str) -> Clusterings:
    if Path(path).suffix == ".safetensors":
        return Clusterings.load(path)
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    try:
        values = torch.tensor(
            [[int(cell) for cell in row] for row in rows[1 if not rows[0][0].strip().isdigit() else 0 :]]
        )
        return Clusterings.given(values[:, 1], values[:, 0], title)
    except (ValueError, IndexError):
        raise ValueError(f"{path} must hold two columns, sample number and cluster, both integers.") from None


def _accuracies(path: str) -> dict[str, float]:
    with open(path, newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    try:
        return {row[0]: float(row[1]) for row in rows if row[1].replace(".", "", 1).strip().isdigit()}
    except IndexError:
        raise ValueError(f"{path} must hold two columns, model and top-1 in percent.") from None
