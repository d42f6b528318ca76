"""Reverse probing of several encoders from the command line: one sub-command per experiment, each leaving a run."""

from __future__ import annotations

from sslk.commands.console import progress_bar
from sslk.commands.reverse_inputs import (
    cluster_stores,
    config_of,
    load_accuracies,
    load_features,
    load_table,
    save,
)
from sslk.reverse import experiments
from sslk.reverse.probe_settings import ProbeSettings
from sslk.reverse.quantizer import KMeansSettings


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
    """Reverse-probe one or several encoders and rank them by NMI, or by AMI where NMI is much chance.

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
    table = load_table(concepts, stores, groups)
    known = load_accuracies(accuracy) if accuracy else None
    encoders = cluster_stores(stores, kmeans, out, probe.device, quiet)
    with progress_bar("probing", quiet) as update:
        result = experiments.ranking(encoders, table, probe, accuracy=known, progress=update)
    save(result, out, "run", config_of(stores, concepts, kmeans, probe, groups=groups))


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
    table = load_table(concepts, stores)
    encoders = cluster_stores(stores, kmeans, out, probe.device, quiet)
    with progress_bar("probing", quiet) as update:
        result = experiments.breakdown(encoders, table, probe, order=order, labels=labels, progress=update)
    save(result, out, "breakdown", config_of(stores, concepts, kmeans, probe, order=order))


def gain(
    stores: list[str],
    concepts: str,
    out: str,
    labels: str = "labels",
    kmeans: KMeansSettings = KMeansSettings(),  # noqa: B008
    probe: ProbeSettings = ProbeSettings(),  # noqa: B008
    quiet: bool = False,
) -> None:
    """Change in NMI (AMI where NMI is much chance) when each group is added to the labels.

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
    table = load_table(concepts, stores)
    encoders = cluster_stores(stores, kmeans, out, probe.device, quiet)
    with progress_bar("probing", quiet) as update:
        result = experiments.gain(encoders, table, probe, labels=labels, progress=update)
    save(result, out, "gain", config_of(stores, concepts, kmeans, probe))


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
    table = load_table(concepts, stores)
    with progress_bar("clustering and probing", quiet) as update:
        result = experiments.vary_clusters(load_features(stores), table, clusters, kmeans, probe, progress=update)
    save(result, out, "vary-k", config_of(stores, concepts, kmeans, probe, clusters=clusters))


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
    table = load_table(concepts, stores)
    result = experiments.transfer(load_features(stores), table, tuple(clusters), kmeans, probe)
    save(result, out, "transfer", config_of(stores, concepts, kmeans, probe, clusters=clusters))
