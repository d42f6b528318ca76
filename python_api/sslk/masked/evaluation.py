"""Linear evaluation of a variant: stratified k-fold cross-validation, balanced accuracy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sslk.probes.kfold import kfold_probe
from sslk.probes.settings import KFoldSettings


@dataclass(frozen=True)
class FoldAccuracy:
    """Balanced accuracies of a linear classifier, in [0, 1].

    Attributes:
        folds: of every fold; as many as the smallest class has samples, five at most by default.
        classes: number of classes; chance is its inverse.
        converged: whether every fold's optimiser came to its tolerance.
    """

    folds: tuple[float, ...]
    classes: int
    converged: bool

    @property
    def mean(self) -> float:
        return float(np.mean(self.folds))

    @property
    def std(self) -> float:
        """Population standard deviation over the folds."""
        return float(np.std(self.folds))


def folds_of(labels: Tensor, folds: int = 5) -> int:
    """How many folds the labels allow: `folds`, or fewer where a class has fewer samples.

    Raises:
        ValueError: folds is below 2, there is one class only, or a class has a single sample.

    >>> folds_of(torch.tensor([0, 0, 0, 4, 4, 4, 4, 4]))
    3
    """
    if folds < 2:
        raise ValueError(f"folds must be at least 2, got {folds}.")
    classes, counts = torch.unique(labels, return_counts=True)
    if len(classes) < 2:
        raise ValueError(f"labels must hold at least two classes, got {len(classes)}.")
    smallest = int(counts.min())
    if smallest < 2:
        raise ValueError(
            f"class {int(classes[counts.argmin()])} has one sample: every class needs at least 2 for cross-validation; "
            "leave such classes out or take more images."
        )
    return min(folds, smallest)


def fold_accuracy(
    features: Tensor,
    labels: Tensor,
    folds: int = 5,
    *,
    l2: float | None = None,
    seed: int = 0,
    max_iterations: int = 1000,
    device: str | torch.device | None = None,
) -> FoldAccuracy:
    """Balanced accuracy of a linear classifier in stratified k-fold cross-validation; all folds train at once.

    Args:
        features: `[N, D]`.
        labels: integers `[N]`; negative ones are unlabelled and left out.
        folds: fewer are taken where a class has fewer samples, see `folds_of`.
        l2: weight of the penalty, see `sslk.probes.batched.fit_linear_probes`; 1 / training samples by default, which
            is scikit-learn's C = 1.
        seed: of the folds.
        max_iterations: of the optimiser.
        device: where to train.

    Raises:
        ValueError: a class has a single sample, or features are not finite.

    Examples:
        >>> x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)); y = (x[:, 0] > 0).long()
        >>> result = fold_accuracy(x, y); len(result.folds), result.mean > 0.9
        (5, True)
    """
    known = labels >= 0  # the others are unlabelled
    features, labels = features[known], labels[known]
    folds = folds_of(labels, folds)
    penalty = 1 / (len(labels) * (1 - 1 / folds)) if l2 is None else l2
    settings = KFoldSettings(folds, (penalty,), seed, max_iterations=max_iterations)
    found = kfold_probe((features, labels), settings, device=device)
    return FoldAccuracy(tuple(found.balanced_accuracy.tolist()), len(found.outputs.classes), found.converged)
