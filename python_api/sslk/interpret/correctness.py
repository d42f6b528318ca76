"""Which images a classifier gets right: by out-of-fold linear probes, by a probe on other features, or from a file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import KFold, StratifiedKFold
from torch import Tensor

from sslk.probes.linear import linear_probe


def out_of_fold_correct(features: Tensor, labels: Tensor, *, folds: int = 5, epochs: int = 30, seed: int = 0) -> Tensor:
    """Whether linear probes that were not trained on an image classify it correctly, bool `[N]`.

    Args:
        features: `[N, D]`.
        labels: int64 `[N]`.
        folds: each is predicted by a probe trained on the others; classes are spread evenly where they are large enough.
        epochs: of each probe.
        seed: of folds and probes.

    Raises:
        ValueError: fewer images than folds, or unlabelled images.
    """
    if bool((labels < 0).any()) or len(labels) < folds:
        raise ValueError(f"labels must be known for at least {folds} images, got {int((labels >= 0).sum())}.")
    _, counts = labels.unique(return_counts=True)
    kind = StratifiedKFold if int(counts.min()) >= folds else KFold
    correct = torch.zeros(len(labels), dtype=torch.bool)
    for train, test in kind(folds, shuffle=True, random_state=seed).split(features.numpy(), labels.numpy()):
        fit, held_out = torch.from_numpy(train), torch.from_numpy(test)
        probe = linear_probe(
            features[fit], labels[fit], features[held_out], labels[held_out], epochs=epochs,
            learning_rates=(0.01, 0.03), weight_decays=(1e-3,), seed=seed,
        )  # fmt: skip
        correct[held_out] = probe.correct
    return correct


def read_correct(path: str | Path, images: Sequence[int]) -> np.ndarray:
    """The column `correct` (0 or 1) of a CSV file for the images whose numbers in the data set are given, bool `[K]`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the columns `index` and `correct` are missing, or an image has no row.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} that says which images are classified correctly")
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or not {"index", "correct"} <= set(rows[0]):
        raise ValueError(f"{path} needs the columns index and correct, it has {', '.join(rows[0] if rows else ())}")
    correct = {int(row["index"]): row["correct"].strip().lower() in ("1", "true") for row in rows}
    absent = [index for index in images if index not in correct]
    if absent:
        raise ValueError(
            f"{path} must have a row for each of {len(images)} images, it lacks {len(absent)}: {absent[0]}, ..."
        )
    return np.array([correct[index] for index in images])
