"""k-fold linear evaluation: every sample is predicted by a probe that has not seen it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslk.probes.batched import fit_linear_probes
from sslk.probes.labelled import Array, Labelled, counts_of, in_memory, labelled, origin_of, sets_given
from sslk.probes.outputs import ProbeOutputs, balanced_accuracy
from sslk.probes.settings import FitSettings, KFoldSettings, changed
from sslk.probes.usable import RowCounts
from sslk.progress import Progress


@dataclass(frozen=True, eq=False)
class KFoldProbe:
    """k-fold linear evaluation of one set of features.

    Attributes:
        accuracy, balanced_accuracy: float64 `[folds]`, on each fold's held-out samples.
        l2: `[folds]`, the penalty each fold chose on a split of its training samples.
        fold: int64 `[N]`, the fold in which a sample of the outputs was held out.
        outputs: for every sample that is labelled and finite, the answer of the probe that has not seen it.
        converged: whether all probes converged.
        rows: how many rows there were, and how many were left out for being unlabelled or not finite.
    """

    accuracy: Tensor
    balanced_accuracy: Tensor
    l2: list[float]
    fold: Tensor
    outputs: ProbeOutputs
    converged: bool
    rows: RowCounts

    @property
    def unlabelled(self) -> int:
        """Rows that were left out because they have no label."""
        return self.rows.unlabelled

    @property
    def nonfinite(self) -> int:
        """Labelled rows that were left out because they hold NaN or infinity."""
        return self.rows.nonfinite


def kfold_probe(
    data: Labelled | Array,
    *more: Array | KFoldSettings,
    settings: KFoldSettings = KFoldSettings(),  # noqa: B008 (frozen)
    device: str | torch.device | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> KFoldProbe:
    """Logistic regression in stratified k-fold cross-validation, all folds (and penalties) trained at once.

    Features are standardised per fold on its training samples. Where several penalties are given, each fold chooses
    its own on a fifth of its training samples, by balanced accuracy, and is then trained on all of them.

    Args:
        data: `(features [N, D], labels [N])` or a feature store; classes need not be contiguous, but each needs at least
            `folds` samples. Rows that are unlabelled (a label below 0, NaN, None) or not finite are left out, counted and
            warned of. Features and labels are taken one after another too.
        settings: folds, and penalties to choose from, the later of equals; see `fit_linear_probes`. By position as well.
        device: where to compute; where the features are by default.
        progress: called with the probes trained and to train.
        changes: fields of the settings by name, such as `folds=10`.

    Raises:
        StoreError: the store is incomplete, damaged or without labels.
        TypeError: the data is no features with labels, or there is no such setting.
        ValueError: no row is labelled and finite, fewer than two folds, or a class with fewer samples than folds (named).

    Examples:
        >>> x = torch.randn(300, 8, generator=torch.Generator().manual_seed(0)); y = (x[:, 0] > 0).long() * 7
        >>> result = kfold_probe((x, y))
        >>> result.balanced_accuracy.shape, bool(result.balanced_accuracy.mean() > 0.9)
        (torch.Size([5]), True)
    """
    sets, settings = sets_given((data, *more), 1, settings, "kfold_probe")
    settings = changed(settings, changes, "kfold_probe")
    rows, features = in_memory(labelled(sets[0]))
    labels = rows.labels
    if not features.is_floating_point():
        features = features.float()
    folds, l2, seed = settings.folds, settings.l2, settings.seed
    fit = FitSettings(tolerance=settings.tolerance, max_iterations=settings.max_iterations)
    fold = stratified_folds(labels, folds, seed)
    train = torch.stack([fold != f for f in range(folds)])
    total = folds * (1 if len(l2) == 1 else 1 + len(l2))

    def report(before: int) -> Progress:
        return lambda done, _, stage: None if progress is None else progress(before + done, total, stage)

    chosen = [float(l2[0])] * folds
    if len(l2) > 1:
        inner = train.clone()
        for f in range(folds):
            fitted = train[f].nonzero().squeeze(1)
            inner[f, fitted[stratified_folds(labels[fitted], 5, seed + 1 + f, strict=False) == 0]] = False
        tried = fit_linear_probes(
            features,
            labels,
            l2=torch.tensor(l2, dtype=torch.float64).repeat(folds),
            sample_masks=inner.repeat_interleave(len(l2), 0),
            settings=fit,
            device=device,
            progress=report(0),
        ).predict(features)
        for f in range(folds):
            judged = train[f] & ~inner[f]
            scores = [balanced_accuracy(tried[f * len(l2) + i].cpu()[judged], labels[judged]) for i in range(len(l2))]
            chosen[f] = float(l2[len(l2) - 1 - int(np.argmax(scores[::-1]))])
    probes = fit_linear_probes(
        features,
        labels,
        l2=torch.tensor(chosen, dtype=torch.float64),
        sample_masks=train,
        settings=fit,
        device=device,
        progress=report(total - folds),
    )
    logits = torch.empty(len(features), len(probes.classes))
    for f in range(folds):
        x = (features[fold == f].to(probes.weight) - probes.mean) / probes.scale
        logits[fold == f] = (x @ probes.weight[f].T + probes.bias[f]).float().cpu()
    outputs = ProbeOutputs.from_logits(logits, probes.classes, labels, *origin_of(rows, "kfold"))
    held = [fold == f for f in range(folds)]
    return KFoldProbe(
        torch.tensor([float(outputs.correct[part].double().mean()) for part in held], dtype=torch.float64),
        torch.tensor([balanced_accuracy(outputs.predictions[part], outputs.labels[part]) for part in held], dtype=torch.float64),
        chosen,
        fold,
        outputs,
        bool(probes.converged.all()),
        counts_of(rows),
    )


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
    from sklearn.model_selection import StratifiedKFold

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
