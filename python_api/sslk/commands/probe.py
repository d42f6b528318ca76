"""Probes from the command line: linear, knn, kfold and head, over feature stores or a model and data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sslk.commands.console import print_fields, progress_bar
from sslk.commands.sources import Extraction, described, open_stores
from sslk.data import load_dataset
from sslk.features.store import FeatureStore
from sslk.models import load_backbone
from sslk.probes.batched import PENALTIES
from sslk.probes.head import head_outputs, imagenet_columns
from sslk.probes.kfold import kfold_probe
from sslk.probes.knn import NEIGHBOURS, TEMPERATURES, knn_probe
from sslk.probes.linear import LEARNING_RATES, WEIGHT_DECAYS, linear_probe_stores, probe_rows
from sslk.probes.online import encoder_rows
from sslk.probes.outputs import ProbeOutputs, accuracy_interval
from sslk.probes.source import source_of, unlike_classes
from sslk.quality.transfer import splits_of
from sslk.results.provenance import provenance
from sslk.results.run import Run, RunTable
from sslk.statistics.small_data import small_data, tied_settings


def linear(
    out: str,
    train: str | None = None,
    test: str | None = None,
    extraction: Extraction = Extraction(),  # noqa: B008 (frozen)
    augment: bool = False,
    epochs: int = 100,
    batch_size: int = 256,
    learning_rates: list[float] = list(LEARNING_RATES),  # noqa: B006 (never written to)
    weight_decays: list[float] = list(WEIGHT_DECAYS),  # noqa: B006
    validation_share: float = 0.1,
    seed: int = 0,
    device: str | None = None,
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Train a grid of linear classifiers on frozen features in one pass; the one chosen on validation data is tested.

    Examples:
        $ sslk probe linear --train runs/sample-train --test runs/sample-test --out runs/linear
        $ sslk probe linear --extraction.model timm:resnet50 --extraction.data cifar10 --out runs/linear
        $ sslk probe linear --extraction.model embedded --extraction.data sample --augment --epochs 10 --out runs/augmented

    Args:
        out: folder of the run: results.json and outputs.safetensors, the answer for every test sample.
        train: folder of the training set's feature store.
        test: folder of the test set's.
        extraction: a model and its data, in place of the stores.
        augment: run the encoder on freshly cropped and flipped images in every epoch (needs extraction).
        epochs: passes over the training set.
        batch_size: rows per step.
        learning_rates: of the grid.
        weight_decays: of the grid.
        validation_share: share of the training set that chooses the setting.
        seed: of the split and the order.
        device: where to compute.
        json: print one JSON object.
        quiet: no progress bar.
    """
    folder = Path(out)
    settings: dict[str, Any] = {
        "epochs": epochs, "batch_size": batch_size, "learning_rates": learning_rates, "weight_decays": weight_decays,
        "validation_share": validation_share, "seed": seed, "device": device or "cpu",
    }  # fmt: skip
    if augment:
        if extraction.model is None or extraction.data is None or train or test:
            raise ValueError("augment needs images: give --extraction.model and --extraction.data in place of stores.")
        backbone = load_backbone(
            extraction.model, extraction.weights, checkpoint_format=extraction.checkpoint_format,
            image_size=extraction.image_size, device=device or "cpu",
        )  # fmt: skip
        rows = [
            encoder_rows(backbone, load_dataset(data, split, root=extraction.root), device or "cpu", extraction.workers)
            for data, split in splits_of(extraction.data)
        ]
        with progress_bar("training", quiet) as update:
            probe = probe_rows(*rows, **settings, progress=update)
        source = {"probe": "linear, augmented", "model": backbone.name, "weights_hash": backbone.weights_hash,
                  "dataset": extraction.data}  # fmt: skip
        outputs = probe.outputs(rows[1].labels, None, source)
        trained_on, unlike = len(rows[0].labels), []
        inputs: dict[str, Any] = {"model": backbone.name, "data": extraction.data}
    else:
        stores = open_stores(train, test, extraction, folder, device, quiet)
        with progress_bar("training", quiet) as update:
            probe, outputs = linear_probe_stores(*stores, **settings, progress=update)
        trained_on = len(stores[0])
        unlike = unlike_classes(*stores)
        inputs = {"train": described(stores[0]), "test": described(stores[1])}
    grid = RunTable(
        "Settings, by accuracy on the validation split",
        ["learning rate", "weight decay", "validation top-1 [%]"],
        [[lr, wd, 100 * value if value >= 0 else None] for lr, wd, value in sorted(probe.grid, key=lambda g: -g[2])],
    )
    chosen = (
        f"Of {len(probe.grid)} settings, learning rate {probe.learning_rate:g} and weight decay {probe.weight_decay:g} "
        f"were chosen on {validation_share:.0%} of the training set."
    )
    samples = round(trained_on * validation_share)
    found = [chosen, *tied_settings([value for _, _, value in probe.grid], max(1, samples))]
    found += small_data(
        train=trained_on, features=probe.weight.shape[1], test=len(probe.correct), classes=len(probe.classes)
    )
    found += unlike
    extra = {"learning_rate": probe.learning_rate, "weight_decay": probe.weight_decay,
             "validation_top1": probe.validation_top1}  # fmt: skip
    title = "Linear probe with augmentation" if augment else "Linear probe"
    _finish(folder, title, outputs, found, [grid], {"command": "probe linear", **settings, **inputs}, extra, json)


def knn(
    out: str,
    train: str | None = None,
    test: str | None = None,
    extraction: Extraction = Extraction(),  # noqa: B008
    neighbours: list[int] = list(NEIGHBOURS),  # noqa: B006
    temperatures: list[float] = list(TEMPERATURES),  # noqa: B006
    validation_share: float = 0.1,
    seed: int = 0,
    device: str | None = None,
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Classify test samples by their nearest training samples; all k and temperatures come from one search.

    Examples:
        $ sslk probe knn --train runs/sample-train --test runs/sample-test --neighbours 5 20 100 --out runs/knn

    Args:
        out: folder of the run.
        train: folder of the training set's feature store.
        test: folder of the test set's.
        extraction: a model and its data, in place of the stores.
        neighbours: grid of k.
        temperatures: grid of temperatures.
        validation_share: share of the training set that chooses k and temperature.
        seed: of the split.
        device: where to compute.
        json: print one JSON object.
        quiet: no progress bar.
    """
    folder = Path(out)
    first, second = open_stores(train, test, extraction, folder, device, quiet)
    bank, queries = first.load(), second.load()
    assert bank.labels is not None and queries.labels is not None
    with progress_bar("searching", quiet) as update:
        probe = knn_probe(
            bank.features, bank.labels, queries.features, queries.labels, neighbours=neighbours,
            temperatures=temperatures, validation_share=validation_share, seed=seed, device=device or "cpu",
            index=queries.indices, source=source_of(second, "knn"), progress=update,
        )  # fmt: skip
    grid = RunTable(
        "k-NN accuracy; the validation column chose",
        ["k", "temperature", "validation top-1 [%]", "test top-1 [%]"],
        [[k, temperature, 100 * a, 100 * b] for k, temperature, a, b in probe.grid],
    )
    chosen = f"k = {probe.k} and temperature {probe.temperature:g} were chosen on {validation_share:.0%} of the training set."
    settings = {"neighbours": neighbours, "temperatures": temperatures, "seed": seed}
    run = {"command": "probe knn", **settings, "train": described(first), "test": described(second)}
    extra = {"k": probe.k, "temperature": probe.temperature}
    found = [chosen, *tied_settings([row[2] for row in probe.grid], max(1, round(validation_share * len(bank.labels))))]
    found += small_data(test=len(queries.labels), classes=len(bank.labels.unique())) + unlike_classes(first, second)
    _finish(folder, "k-nearest-neighbour probe", probe.outputs, found, [grid], run, extra, json)


def kfold(
    store: str,
    out: str,
    folds: int = 5,
    l2: list[float] = list(PENALTIES),  # noqa: B006
    seed: int = 0,
    tolerance: float = 1e-4,
    max_iterations: int = 1000,
    device: str | None = None,
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Predict every sample by a linear probe that has not seen it: balanced accuracy over folds, all trained at once.

    Examples:
        $ sslk probe kfold runs/sample-test --l2 1e-5 1e-4 1e-3 --out runs/kfold

    Args:
        store: folder of the feature store.
        out: folder of the run.
        folds: how many.
        l2: penalties to choose from within each fold; scikit-learn's C is 1 / (l2 samples).
        seed: of the folds.
        tolerance: how far a probe's loss may lie above the least possible, in nats.
        max_iterations: evaluations at most.
        device: where to compute.
        json: print one JSON object.
        quiet: no progress bar.
    """
    folder = Path(out)
    opened = FeatureStore(store).require(labels=True)
    rows = opened.load()
    assert rows.labels is not None
    with progress_bar("training", quiet) as update:
        probe = kfold_probe(
            rows.features, rows.labels, folds=folds, l2=l2, seed=seed, tolerance=tolerance,
            max_iterations=max_iterations, device=device, index=rows.indices, source=source_of(opened, "kfold"),
            progress=update,
        )  # fmt: skip
    table = RunTable(
        "Held-out samples of every fold",
        ["fold", "l2", "top-1 [%]", "balanced accuracy [%]"],
        [[f + 1, probe.l2[f], 100 * float(probe.accuracy[f]), 100 * float(probe.balanced_accuracy[f])]
         for f in range(folds)],
    )  # fmt: skip
    mean, std = float(probe.balanced_accuracy.mean()), float(probe.balanced_accuracy.std())
    found = [f"Balanced accuracy over {folds} folds is {100 * mean:.1f} +- {100 * std:.1f} % (mean and deviation)."]
    found += small_data(
        train=len(rows.labels) * (folds - 1) // folds, features=rows.features.shape[1], test=len(rows.labels) // folds,
        classes=len(rows.labels.unique()),
    )  # fmt: skip
    if not probe.converged:
        found.append(f"Not every probe converged within {max_iterations} evaluations.")
    run = {"command": "probe kfold", "folds": folds, "l2": l2, "seed": seed, "store": described(opened)}
    extra = {"balanced_accuracy_mean": mean, "balanced_accuracy_std": std}
    _finish(folder, f"{folds}-fold linear probe", probe.outputs, found, [table], run, extra, json)


def head(
    store: str,
    model: str,
    out: str,
    weights: str | None = None,
    classes: str | None = None,
    restrict: bool = False,
    json: bool = False,
) -> None:
    """Classify the samples of a store by the supervised encoder's own head, without its images.

    Examples:
        $ sslk probe head runs/tiny-val --model efficientnet-lite0 --classes imagenet --restrict --out runs/head

    Args:
        store: folder of the feature store.
        model: name of the encoder, with a trained classifier.
        out: folder of the run.
        weights: checkpoint of the model, or "pretrained".
        classes: imagenet, where the store's class names are ImageNet's; labels are outputs of the head by default.
        restrict: choose among the data set's own classes only (with classes).
        json: print one JSON object.
    """
    opened = FeatureStore(store).require(labels=True)
    backbone = load_backbone(model, weights)
    if backbone.classifier is None:
        raise ValueError(f"model must have a trained classifier, {model!r} has none: use `sslk probe linear`.")
    if backbone.weights_hash != opened.spec.weights_hash:
        raise ValueError(f"{store} is of another model than {model!r}: their weights differ.")
    if classes not in (None, "imagenet"):
        raise ValueError(f"classes must be imagenet or left out, got {classes!r}.")
    columns = imagenet_columns(opened.spec.classes) if classes else None
    outputs = head_outputs(opened, backbone.classifier, columns, restrict)
    found = [f"The head chooses among {outputs.logits.shape[1]} classes, {len(outputs.labels.unique())} of them occur."]
    found += small_data(test=len(outputs.labels), classes=outputs.logits.shape[1])
    run = {"command": "probe head", "restrict": restrict, "store": described(opened)}
    _finish(Path(out), "Supervised head", outputs, found, [], run, {}, json)


def _finish(
    folder: Path,
    title: str,
    outputs: ProbeOutputs,
    found: list[str],
    tables: list[RunTable],
    run: dict[str, Any],
    extra: dict[str, float | int],
    json: bool,
) -> None:
    """Write outputs and results, and print the headline numbers."""
    correct, count = int(outputs.correct.sum()), len(outputs.correct)
    low, high = accuracy_interval(correct, count)
    headline = (
        f"Top-1 is {100 * outputs.accuracy:.2f} % on {count} samples (95 % interval {100 * low:.1f} to "
        f"{100 * high:.1f} %), balanced accuracy {100 * outputs.balanced_accuracy:.2f} %."
    )
    confidence = float(outputs.confidence.double().mean())
    summary: dict[str, float | int | str | None] = {
        "top1": outputs.accuracy, "top1_low": low, "top1_high": high,
        "balanced_accuracy": outputs.balanced_accuracy, "samples": count, "mean_confidence": confidence, **extra,
    }  # fmt: skip
    outputs.save(folder / "outputs.safetensors")
    recorded = {**run, "threads": torch.get_num_threads()}
    Run("probe", title, [headline, *found], provenance(recorded), summary, tables).save(folder)
    print_fields({**summary, "folder": str(folder)}, json)
