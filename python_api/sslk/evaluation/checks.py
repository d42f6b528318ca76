"""What can be told before any work: data, labels, folder, device, segmenter and concepts, each refused in one sentence."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from sslk.concepts import ConceptTable, read_concepts
from sslk.data import Dataset
from sslk.data.source import DataSource
from sslk.distributed import require_device
from sslk.evaluation.estimate import first_images
from sslk.evaluation.settings import EvaluationSettings
from sslk.features.unreadable import readable_numbers, require_readable
from sslk.masked import segmenter
from sslk.masked.masks import scene_of


@dataclass(frozen=True, eq=False)
class Checked:
    """What is evaluated on, found to be there.

    Attributes:
        train, test: the two splits, without a transform.
        seconds_per_mask: of the segmenter's trial.
        folds: of the masked study's linear evaluation; None for its own, 0 where a class has too few images.
        notes: what a reader of the plan and of the results should know.
    """

    train: Dataset
    test: Dataset
    seconds_per_mask: float = 0.0
    folds: int | None = None
    notes: list[str] = field(default_factory=list)


def check_place(settings: EvaluationSettings, out: Path) -> None:
    """Refuse a folder that cannot be written to and a device that is not there.

    Raises:
        ValueError: either.
    """
    require_device(settings.device)
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ValueError(f"out must be a folder or a place for one, got {out}: {there} is a file.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"out must be a folder that can be written to, got {out}: {there} cannot.")


def load_splits(settings: EvaluationSettings) -> Checked:
    """Both splits.

    Raises:
        ValueError, FileNotFoundError: an unknown data set or split, or files that are not there.
    """
    train, test = (
        DataSource(settings.data, split, settings.root).load() for split in (settings.train_split, settings.test_split)
    )
    notes = []
    if train.name == test.name and train.fingerprint == test.fingerprint:
        notes.append(
            f"{settings.data} has no splits, so that {settings.train_split} and {settings.test_split} are the same "
            f"{len(test)} images: what is fitted is judged on itself."
        )
    return Checked(train, test, notes=notes)


def check_steps(settings: EvaluationSettings, checked: Checked, waiting: Collection[str]) -> Checked:
    """Refuse steps that are bound to fail, and try the segmenter.

    Args:
        settings: of the evaluation.
        checked: what `load_splits` gave.
        waiting: names of the calls that are still to be made.

    Raises:
        ValueError: an image cannot be read, labels or images of a class are missing, the segmenter or the concepts do not
            fit the data, or there are more clusters than images.
        FileNotFoundError, OSError: a file that the segmenter or the concepts need is not there.
        ImportError: a package that the segmenter needs is not there.
    """
    if settings.on_corrupt == "raise" and {"extract", "masked"} & set(waiting):
        for dataset in (checked.train, checked.test):
            require_readable(dataset)
    if {"linear", "knn", "failure"} & set(waiting):
        for split, dataset in ((settings.train_split, checked.train), (settings.test_split, checked.test)):
            _check_labels(dataset, split, settings.data, 2 if dataset is checked.train else 1)
    if "reverse" in waiting and settings.concepts:
        _check_concepts(settings, checked.train)
    if "masked" not in waiting:
        return checked
    seconds = _seconds_per_mask(settings, checked.test)
    small = _small_class(checked.test, settings.on_corrupt)
    if small is None:
        return Checked(checked.train, checked.test, seconds, None, checked.notes)
    note = f"{small} has one image in {settings.test_split}: the masked study goes without a linear evaluation."
    return Checked(checked.train, checked.test, seconds, 0, [*checked.notes, note])


def _check_labels(dataset: Dataset, split: str, data: str, least: int) -> None:
    labels = dataset.labels
    known = 0 if labels is None else len(np.unique(labels[labels >= 0]))
    if known < least:
        found = "no labels" if not known else "images of one class only"
        raise ValueError(
            f"{data} has {found} in {split}, which the probes of qscore need: give a folder per class, or --no-probes for "
            "Q-Scores without probes."
        )


def _check_concepts(settings: EvaluationSettings, train: Dataset) -> None:
    path = str(settings.concepts)
    table = read_concepts(path)
    told = table.about.get("merged", [table.about])
    foreign = [one for one in told if "fingerprint" in one and one["fingerprint"] != train.fingerprint]
    if foreign:
        raise ValueError(
            f"concepts must be of the images of {train.name}, got a table of {foreign[0].get('dataset', 'other images')}, "
            f"{path}: build it from the train split as it is now."
        )
    _check_rows(table, path, train, settings)
    rows = len(train) if settings.on_corrupt == "raise" else len(table)
    if settings.clusters > rows:
        raise ValueError(f"clusters must not exceed the {rows} images of {train.name}, got {settings.clusters}.")


def _check_rows(table: ConceptTable, path: str, train: Dataset, settings: EvaluationSettings) -> None:
    """Every image that will have features has a row, and no row is of an image beyond the last."""
    numbers = torch.arange(len(train))
    missing = numbers[~torch.isin(numbers, table.samples)].tolist()
    if missing and settings.on_corrupt == "skip" and len(missing) < len(train):
        try:
            missing, _ = readable_numbers(train, missing)
        except ValueError:  # none of them can be read: they have no features either
            missing = []
    if missing or int(table.samples.max()) >= len(train):
        covered = f"{len(table)} images up to number {int(table.samples.max())}"
        raise ValueError(
            f"concepts must hold a row for each of the {len(train)} images of {train.name}, got {path} of {covered}."
        )


def _seconds_per_mask(settings: EvaluationSettings, test: Dataset) -> float:
    found = segmenter(settings.segmenter, str(require_device(settings.device)))
    scene = scene_of(test, first_images(test, 1)[0])
    started = time.perf_counter()
    found(scene.reduced(getattr(found, "side", None)))
    return time.perf_counter() - started


def _small_class(test: Dataset, on_corrupt: str) -> str | None:
    """The first class with a single image, those that cannot be read aside; None where there is none, or no labels."""
    labels = test.labels
    if labels is None or not (labels >= 0).any():
        return None
    classes, counts = np.unique(labels[labels >= 0], return_counts=True)
    for label, count in zip(classes.tolist(), counts.tolist(), strict=True):
        left = count
        if on_corrupt == "skip" and 1 < count < 5:
            numbers = np.flatnonzero(labels == label)
            try:
                left = len(readable_numbers(test, numbers)[0])
            except ValueError:  # none is left: a class that does not occur
                continue
        if left == 1:
            return f"the class {test.classes[label] if label < len(test.classes) else label}"
    return None
