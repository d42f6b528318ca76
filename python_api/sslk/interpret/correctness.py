"""Which images a classifier gets right: by out-of-fold linear probes, by a probe on other features, or from a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import KFold, StratifiedKFold
from torch import Tensor

from sslk.files.tables import read_records
from sslk.probes.linear import linear_probe
from sslk.probes.settings import LinearSettings


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
    settings = LinearSettings(epochs=epochs, learning_rates=(0.01, 0.03), weight_decays=(1e-3,), seed=seed)
    correct = torch.zeros(len(labels), dtype=torch.bool)
    for train, test in kind(folds, shuffle=True, random_state=seed).split(features.numpy(), labels.numpy()):
        fit, held_out = torch.from_numpy(train), torch.from_numpy(test)
        probe = linear_probe((features[fit], labels[fit]), (features[held_out], labels[held_out]), settings)
        correct[held_out[probe.outputs.index]] = probe.correct  # rows that are not finite have no answer
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
    said = {"1": True, "true": True, "0": False, "false": False}
    correct: dict[int, bool] = {}
    for row in read_records(path, "the table of correct images", ("index", "correct")):
        index, answer = row["index"].strip(), row["correct"].strip().lower()
        if not index.isdecimal() or len(index) > 18 or answer not in said:
            raise ValueError(f"{path} must hold whole numbers and 0 or 1, got {index[:80]!r} and {answer[:80]!r}")
        correct[int(index)] = said[answer]
    absent = [index for index in images if index not in correct]
    if absent:
        raise ValueError(f"{path} must have a row for each of {len(images)} images, it lacks {len(absent)}: {absent[0]}, ...")
    return np.array([correct[index] for index in images])
