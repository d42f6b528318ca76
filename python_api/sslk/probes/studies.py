"""Probes as studies: each takes feature stores and settings, and returns a `Run` with the answers it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch

from sslk.features.store import FeatureStore
from sslk.probes.kfold import kfold_probe
from sslk.probes.knn import beyond_the_bank, knn_probe
from sslk.probes.linear import LinearProbe, linear_probe
from sslk.probes.outputs import ProbeOutputs, accuracy_interval
from sslk.probes.settings import KFoldSettings, KnnSettings, LinearSettings
from sslk.probes.source import described, unlike_classes
from sslk.probes.usable import RowCounts
from sslk.progress import Progress
from sslk.results.provenance import provenance
from sslk.results.run import Run, RunTable, Value
from sslk.statistics.small_data import small_data, tied_settings

if TYPE_CHECKING:
    from torch import nn

    from sslk.data import Dataset


OUTPUTS = "outputs.safetensors"


def linear_study(
    train: FeatureStore,
    test: FeatureStore,
    settings: LinearSettings = LinearSettings(),  # noqa: B008 (frozen)
    *,
    device: str | None = None,
    progress: Progress | None = None,
) -> Run:
    """A grid of linear classifiers on the features of two stores; the one chosen on validation data is tested.

    Args:
        train, test: labelled stores of one model.
        settings: of the grid.
        device: where to compute.
        progress: called with the steps done and to do.

    Returns:
        Accuracy with its interval, the grid, and the answers as `outputs.safetensors`.

    Raises:
        StoreError: a store is incomplete, without labels, or of another model than the other.
        ValueError: as for `linear_probe`.
    """
    probe = linear_probe(train, test, settings, device=device or "cpu", progress=progress)
    inputs = {"train": described(train), "test": described(test), "device": device or "cpu"}
    found = [*_small(probe), *unlike_classes(train, test)]
    return _linear_run("Linear probe", probe, probe.outputs, found, settings, inputs)


def augmented_linear_study(
    backbone: nn.Module,
    train: Dataset,
    test: Dataset,
    settings: LinearSettings = LinearSettings(),  # noqa: B008
    *,
    workers: int = 4,
    device: str | None = None,
    progress: Progress | None = None,
) -> Run:
    """`linear_study` with the encoder run on freshly cropped and flipped images in every epoch.

    Args:
        backbone: the frozen encoder, a `Backbone` or a bare module.
        train, test: labelled images.
        settings: of the grid.
        workers: loading processes.
        device: where to compute.
        progress: called with the steps done and to do.
    """
    from sslk.models import as_backbone
    from sslk.probes.online import encoder_rows

    backbone = as_backbone(backbone)
    rows = [encoder_rows(backbone, images, device or "cpu", workers) for images in (train, test)]
    probe = linear_probe(rows[0], rows[1], settings, device=device or "cpu", progress=progress)
    data = train.name.rpartition("/")[0] or train.name
    source = {"probe": "linear, augmented", "model": backbone.name, "weights_hash": backbone.weights_hash, "dataset": data}
    outputs = replace(probe.outputs, source=source)
    inputs = {"model": backbone.name, "data": data, "device": device or "cpu"}
    return _linear_run("Linear probe with augmentation", probe, outputs, _small(probe), settings, inputs)


def knn_study(
    train: FeatureStore,
    test: FeatureStore,
    settings: KnnSettings = KnnSettings(),  # noqa: B008
    *,
    device: str | None = None,
    progress: Progress | None = None,
) -> Run:
    """Test samples classified by their nearest training samples; all k and temperatures come from one search.

    Args:
        train, test: labelled stores of one model.
        settings: the grid.
        device: where to compute.
        progress: called with the samples classified and to classify.
    """
    probe = knn_probe(train, test, settings, device=device or "cpu", progress=progress)
    grid = RunTable(
        "k-NN accuracy; the validation column chose",
        ["k", "temperature", "validation top-1 [%]", "test top-1 [%]"],
        [[k, temperature, 100 * a, 100 * b] for k, temperature, a, b in probe.grid],
        fold=True,
    )
    share = settings.validation_share
    found = [
        f"k = {probe.k} and temperature {probe.temperature:g} were chosen on {share:.0%} of the training set.",
        *tied_settings([row[2] for row in probe.grid], max(1, round(share * probe.train_rows.used))),
        *small_data(test=probe.test_rows.used, classes=len(probe.classes)),
        *unlike_classes(train, test),
    ]
    if probe.beyond:
        found.append(beyond_the_bank(probe.beyond, probe.train_rows.used - max(1, round(share * probe.train_rows.used))))
    rows = {"training": probe.train_rows, "test": probe.test_rows}
    asked = {"neighbours": settings.neighbors, "temperatures": settings.temperatures, "seed": settings.seed}
    origin = {"command": "probe knn", **asked, "train": described(train), "test": described(test)}
    extra = {"k": probe.k, "temperature": probe.temperature}
    return _run("k-nearest-neighbour probe", probe.outputs, found, [grid], origin, extra, rows)


def kfold_study(
    store: FeatureStore,
    settings: KFoldSettings = KFoldSettings(),  # noqa: B008
    *,
    device: str | None = None,
    progress: Progress | None = None,
) -> Run:
    """Every sample predicted by a linear probe that has not seen it: balanced accuracy over folds.

    Args:
        store: labelled.
        settings: folds and penalties.
        device: where to compute.
        progress: called with the probes trained and to train.
    """
    folds = settings.folds
    probe = kfold_probe(store, settings, device=device, progress=progress)
    table = RunTable(
        "Held-out samples of every fold",
        ["fold", "l2", "top-1 [%]", "balanced accuracy [%]"],
        [[f + 1, probe.l2[f], 100 * float(probe.accuracy[f]), 100 * float(probe.balanced_accuracy[f])] for f in range(folds)],
    )
    mean, std = float(probe.balanced_accuracy.mean()), float(probe.balanced_accuracy.std())
    found = [f"Balanced accuracy over {folds} folds is {100 * mean:.1f} +- {100 * std:.1f} % (mean and deviation)."]
    count = probe.rows.used
    found += small_data(
        train=count * (folds - 1) // folds, features=store.num_features, test=count // folds, classes=len(probe.outputs.classes)
    )
    if not probe.converged:
        found.append(f"Not every probe converged within {settings.max_iterations} evaluations.")
    origin = {"command": "probe kfold", "folds": folds, "l2": settings.l2, "seed": settings.seed, "store": described(store)}
    extra = {"balanced_accuracy_mean": mean, "balanced_accuracy_std": std}
    return _run(f"{folds}-fold linear probe", probe.outputs, found, [table], origin, extra, {"": probe.rows})


def head_study(store: FeatureStore, backbone: nn.Module, *, classes: str | None = None, restrict: bool = False) -> Run:
    """The samples of a store classified by the supervised encoder's own head, without its images.

    Args:
        store: labelled features of this encoder.
        backbone: with a trained classifier.
        classes: `imagenet`, where the store's class names are ImageNet's; labels are outputs of the head by default.
        restrict: choose among the data set's own classes only (with classes).

    Raises:
        ValueError: the encoder has no classifier, or is another one than that of the store.
    """
    from sslk.models import as_backbone
    from sslk.probes.head import head_outputs, imagenet_columns

    store.require(labels=True)
    backbone = as_backbone(backbone)
    if backbone.classifier is None:
        raise ValueError(f"model must have a trained classifier, {backbone.name!r} has none: use `sslk probe linear`.")
    if backbone.weights_hash != store.spec.weights_hash:
        raise ValueError(f"{store.path} is of another model than {backbone.name!r}: their weights differ.")
    if classes not in (None, "imagenet"):
        raise ValueError(f"classes must be imagenet or left out, got {classes!r}.")
    columns = imagenet_columns(store.spec.classes) if classes else None
    outputs = head_outputs(store, backbone.classifier, columns, restrict)
    found = [f"The head chooses among {outputs.logits.shape[1]} classes, {len(outputs.labels.unique())} of them occur."]
    found += small_data(test=len(outputs.labels), classes=outputs.logits.shape[1])
    origin = {"command": "probe head", "restrict": restrict, "store": described(store)}
    unlabelled = int((store.labels() < 0).sum())
    rows = RowCounts(len(store), unlabelled, len(store) - unlabelled - len(outputs.labels))
    return _run("Supervised head", outputs, found, [], origin, {}, {"": rows})


def _small(probe: LinearProbe) -> list[str]:
    return small_data(
        train=probe.train_rows.used, features=probe.weight.shape[1], test=len(probe.correct), classes=len(probe.classes)
    )


def _linear_run(
    title: str, probe: LinearProbe, outputs: ProbeOutputs, more: list[str], settings: LinearSettings, inputs: dict[str, Any]
) -> Run:
    grid = RunTable(
        "Settings, by accuracy on the validation split",
        ["learning rate", "weight decay", "validation top-1 [%]"],
        [[lr, wd, 100 * value if value >= 0 else None] for lr, wd, value in sorted(probe.grid, key=lambda g: -g[2])],
        fold=True,
    )
    share = settings.validation_share
    found = [
        f"Of {len(probe.grid)} settings, learning rate {probe.learning_rate:g} and weight decay {probe.weight_decay:g} "
        f"were chosen on {share:.0%} of the training set.",
        *tied_settings([value for _, _, value in probe.grid], max(1, round(probe.train_rows.used * share))),
        *more,
    ]
    extra = {"learning_rate": probe.learning_rate, "weight_decay": probe.weight_decay, "validation_top1": probe.validation_top1}
    rows = {"training": probe.train_rows, "test": probe.test_rows}
    return _run(title, outputs, found, [grid], {"command": "probe linear", **asdict(settings), **inputs}, extra, rows)


def _run(
    title: str,
    outputs: ProbeOutputs,
    found: list[str],
    tables: list[RunTable],
    origin: dict[str, Any],
    extra: Mapping[str, Value],
    rows: Mapping[str, RowCounts],
) -> Run:
    """The run of any probe: its headline first, what was left out or unknown at the end, its answers as a file."""
    correct, count = int(outputs.correct.sum()), len(outputs.correct)
    low, high = accuracy_interval(correct, count)
    headline = (
        f"Top-1 is {100 * outputs.accuracy:.2f} % on {count} samples (95 % interval {100 * low:.1f} to "
        f"{100 * high:.1f} %), balanced accuracy {100 * outputs.balanced_accuracy:.2f} %."
    )
    summary: dict[str, Value] = {
        "top1": outputs.accuracy,
        "top1_low": low,
        "top1_high": high,
        "balanced_accuracy": outputs.balanced_accuracy,
        "samples": count,
        "mean_confidence": float(outputs.confidence.double().mean()),
        **extra,
    }
    for name, counts in rows.items():
        summary |= counts.summary({"training": "train"}.get(name, name))
        found = found + counts.said(name)
    if outputs.unknown:
        known = None if outputs.unknown == count else outputs.known_accuracy
        summary |= {"unknown_class": outputs.unknown, "top1_known_classes": known}
        found = found + outputs.missing_classes()
    origin = provenance({**origin, "threads": torch.get_num_threads()})
    measures = outputs.measures(f"{title[0].lower()}{title[1:]}")
    return Run("probe", title, [headline, *found], origin, summary, tables, measures=measures, files={OUTPUTS: outputs.save})
