"""k-fold linear evaluation: every sample is predicted by a probe that has not seen it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from sslk.probes.batched import PENALTIES, fit_linear_probes
from sslk.probes.outputs import ProbeOutputs, balanced_accuracy


@dataclass(frozen=True, eq=False)
class KFoldProbe:
    """k-fold linear evaluation of one set of features.

    Attributes:
        accuracy, balanced_accuracy: float64 `[folds]`, on each fold's held-out samples.
        l2: `[folds]`, the penalty each fold chose on a split of its training samples.
        fold: int64 `[N]`, the fold in which a sample was held out.
        outputs: for every sample, the answer of the probe that has not seen it.
        converged: whether all probes converged.
    """

    accuracy: Tensor
    balanced_accuracy: Tensor
    l2: list[float]
    fold: Tensor
    outputs: ProbeOutputs
    converged: bool


def kfold_probe(
    features: Tensor,
    labels: Tensor,
    *,
    folds: int = 5,
    l2: Sequence[float] = PENALTIES,
    seed: int = 0,
    tolerance: float = 1e-4,
    max_iterations: int = 1000,
    device: str | torch.device | None = None,
    index: Tensor | None = None,
    source: dict[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> KFoldProbe:
    """Logistic regression in stratified k-fold cross-validation, all folds (and penalties) trained at once.

    Features are standardised per fold on its training samples. Where several penalties are given, each fold chooses
    its own on a fifth of its training samples, by balanced accuracy, and is then trained on all of them.

    Args:
        features: `[N, D]`, floating point.
        labels: integers `[N]`; classes need not be contiguous, but each needs at least `folds` samples.
        folds: number of folds.
        l2: penalties to choose from, the later of equals; see `fit_linear_probes`.
        seed: of the folds and splits.
        tolerance, max_iterations, device: as for `fit_linear_probes`.
        index, source: recorded in the outputs.
        progress: called with the probes trained and to train.

    Raises:
        ValueError: fewer than two folds, or a class with fewer samples than folds (named).

    Examples:
        >>> x = torch.randn(300, 8, generator=torch.Generator().manual_seed(0)); y = (x[:, 0] > 0).long() * 7
        >>> result = kfold_probe(x, y)
        >>> result.balanced_accuracy.shape, bool(result.balanced_accuracy.mean() > 0.9)
        (torch.Size([5]), True)
    """
    fold = stratified_folds(labels, folds, seed)
    train = torch.stack([fold != f for f in range(folds)])
    total = folds * (1 if len(l2) == 1 else 1 + len(l2))

    def report(before: int) -> Callable[[int, int], None]:
        return lambda done, _: None if progress is None else progress(before + done, total)

    chosen = [float(l2[0])] * folds
    if len(l2) > 1:
        inner = train.clone()
        for f in range(folds):
            rows = train[f].nonzero().squeeze(1)
            inner[f, rows[stratified_folds(labels[rows], 5, seed + 1 + f, strict=False) == 0]] = False
        tried = fit_linear_probes(
            features, labels, l2=torch.tensor(l2, dtype=torch.float64).repeat(folds),
            sample_masks=inner.repeat_interleave(len(l2), 0), tolerance=tolerance, max_iterations=max_iterations,
            device=device, progress=report(0),
        ).predict(features)  # fmt: skip
        for f in range(folds):
            rows = train[f] & ~inner[f]
            scores = [balanced_accuracy(tried[f * len(l2) + i].cpu()[rows], labels[rows]) for i in range(len(l2))]
            chosen[f] = float(l2[len(l2) - 1 - int(np.argmax(scores[::-1]))])
    probes = fit_linear_probes(
        features, labels, l2=torch.tensor(chosen, dtype=torch.float64), sample_masks=train, tolerance=tolerance,
        max_iterations=max_iterations, device=device, progress=report(total - folds),
    )  # fmt: skip
    logits = torch.empty(len(features), len(probes.classes))
    for f in range(folds):
        x = (features[fold == f].to(probes.weight) - probes.mean) / probes.scale
        logits[fold == f] = (x @ probes.weight[f].T + probes.bias[f]).float().cpu()
    outputs = ProbeOutputs.from_logits(logits, probes.classes, labels, index, source)
    held = [fold == f for f in range(folds)]
    return KFoldProbe(
        torch.tensor([float(outputs.correct[rows].double().mean()) for rows in held], dtype=torch.float64),
        torch.tensor([balanced_accuracy(outputs.predictions[rows], outputs.labels[rows]) for rows in held],
                     dtype=torch.float64),
        chosen, fold, outputs, bool(probes.converged.all()),
    )  # fmt: skip


def stratified_folds(labels: Tensor, folds: int, seed: int, *, strict: bool = True) -> Tensor:
    """The fold int64 `[N]` in which each sample is held out; classes are spread evenly.

    Args:
        labels: integers `[N]`.
        folds: how many.
        seed: of the shuffling.
        strict: refuse a class with fewer samples than folds.

    Raises:
        ValueError: fewer than two folds, or (strict) a class with too few samples.
    """
    if folds < 2:
        raise ValueError(f"folds must be at least 2, got {folds}.")
    classes, counts = torch.unique(labels, return_counts=True)
    if strict and int(counts.min()) < folds:
        raise ValueError(
            f"labels must hold every class at least {folds} times for {folds} folds, "
            f"class {int(classes[counts.argmin()])} occurs {int(counts.min())} times."
        )
    fold = torch.empty(len(labels), dtype=torch.int64)
    values = labels.cpu().numpy()
    if int(counts.max()) < folds:  # too few of any class to spread: scikit-learn would refuse
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        fold[order] = torch.arange(len(labels)) % folds
        return fold
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for number, (_, held) in enumerate(splitter.split(values, values)):
        fold[torch.from_numpy(held)] = number
    return fold
