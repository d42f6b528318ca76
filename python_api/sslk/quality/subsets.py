"""Representation compression: accuracy of linear probes on subsets of the features, all trained as one batch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sslk.distributed import require_device
from sslk.probes.batched import fit_linear_probes
from sslk.probes.labelled import Labelled, counts_of, in_memory, rows_of
from sslk.probes.settings import FitSettings, changed
from sslk.probes.usable import RowCounts
from sslk.progress import Progress
from sslk.quality.settings import SELECTIONS, CompressionSettings, Selection


@dataclass(frozen=True, eq=False)
class Compression:
    """Accuracy of probes on feature subsets.

    Attributes:
        selections: names, in the order of the first axis.
        reductions: percent of the features left out, second axis.
        kept: features kept at every reduction.
        top1: float64 `[selections, reductions, seeds]`, test accuracy.
        l2: float64, same shape, the penalty chosen on the seed's validation split.
        converged: share of the probes that converged.
        train_rows, test_rows: how many rows there were, and how many were left out for being unlabelled or not finite.
    """

    selections: tuple[Selection, ...]
    reductions: tuple[float, ...]
    kept: tuple[int, ...]
    top1: Tensor
    l2: Tensor
    converged: float
    train_rows: RowCounts
    test_rows: RowCounts

    def lossless(self, selection: Selection = "discriminative", points: float = 1.0) -> float:
        """The largest reduction up to which the mean accuracy stays within `points` of all features' accuracy."""
        mean = self.top1[self.selections.index(selection)].mean(1)
        within = (mean[0] - mean <= points / 100).tolist()
        last = within.index(False) if False in within else len(within)
        return self.reductions[last - 1]


def subset_masks(
    activation_percent: Tensor, selection: Selection, kept: int, *, lower: float = 50.0, upper: float = 95.0, seed: int = 0
) -> Tensor:
    """The features of one subset, bool `[D]`; of `pca` the leading principal components.

    Features are sorted by how often they are highly activating. `discriminative` leaves out both ends together, in the
    proportion in which `(lower, upper)` does: at the size of the default set it is that set. `lower tail` keeps the
    features that activate least often, `upper tail` the most often, `random` any (drawn anew per seed, nested in size).

    >>> percent = torch.tensor([0.0, 5.0, 1.0, 9.0, 3.0, 2.0])
    >>> subset_masks(percent, "upper tail", 2).int().tolist()
    [0, 1, 0, 1, 0, 0]
    >>> subset_masks(percent, "discriminative", 2, lower=50, upper=80).int().tolist()
    [0, 1, 0, 0, 1, 0]
    """
    size = len(activation_percent)
    if not 1 <= kept <= size:
        raise ValueError(f"kept must lie between 1 and D = {size}, got {kept}.")
    mask = torch.zeros(size, dtype=torch.bool)
    if selection == "pca":
        mask[:kept] = True
        return mask
    if selection == "random":
        order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
        mask[order[:kept]] = True
        return mask
    order = activation_percent.argsort(stable=True)
    below = {
        "discriminative": round((size - kept) * lower / max(lower + 100 - upper, 1e-9)),
        "lower tail": 0,
        "upper tail": size - kept,
    }[selection]
    mask[order[below : below + kept]] = True
    return mask


def compression(
    train: Labelled,
    test: Labelled,
    activation_percent: Tensor,
    settings: CompressionSettings = CompressionSettings(),  # noqa: B008 (frozen)
    *,
    band: tuple[float, float] = (50.0, 95.0),
    device: str | torch.device | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> Compression:
    """Top-1 of linear classifiers on subsets of the features (Kalibhat et al., figures 2, A.5 and A.7).

    All probes (selections x reductions x seeds x penalties) are sub-space probes of one `fit_linear_probes`, and the
    PCA ones of a second, on the rotated features. Every seed draws its own validation split, on which the penalty is
    chosen where there are several, and its own random features; the rest of the training set trains. Features are
    standardised; principal components are those of the standardised features.

    Args:
        train, test: `(features [N, D], labels [N])` or feature stores. Rows that are unlabelled or not finite are left out,
            counted and warned of.
        activation_percent: `A_j`, float `[D]`, of `sslk.discover` on the training features.
        settings: what to leave out, and the probes. Penalties are chosen by the cross-entropy on the rows held out: fewer
            of them decide well by it than by accuracy.
        band: the percentiles towards which `discriminative` narrows.
        device, progress: as for `fit_linear_probes`.
        changes: fields of the settings by name, such as `seeds=1`.

    Raises:
        ValueError: a reduction outside [0, 100), an unknown selection, A of another D, or as for `fit_linear_probes`.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = torch.randn(300, 20, generator=generator); y = (x[:, :4].sum(1) > 0).long()
        >>> result = compression((x[:200], y[:200]), (x[200:], y[200:]), torch.rand(20, generator=generator),
        ...                      reductions=(0, 50), seeds=2)
        >>> result.top1.shape, result.kept
        (torch.Size([5, 2, 2]), (20, 10))
    """
    settings = changed(settings, changes, "compression")
    sets, (train_features, test_features) = zip(*map(in_memory, rows_of(train, test), ("train", "test")), strict=True)
    train_labels, test_labels = (part.labels for part in sets)
    size = train_features.shape[1]
    if len(activation_percent) != size:
        raise ValueError(
            f"activation_percent must have the D = {size} of train_features, got {len(activation_percent)}: it belongs to "
            "another model."
        )
    selections, reductions, seeds, l2 = settings.selections, settings.reductions, settings.seeds, settings.l2
    if unknown := [name for name in selections if name not in SELECTIONS]:
        raise ValueError(f"selections must be among {', '.join(SELECTIONS)}, got {unknown[0]!r}.")
    if not reductions or min(reductions) < 0 or max(reductions) >= 100 or seeds < 1:
        raise ValueError(f"reductions must lie in [0, 100) and seeds be positive, got {list(reductions)} and {seeds}.")
    kept = tuple(max(1, round(size * (1 - reduction / 100))) for reduction in reductions)
    x, x_test = standardized(train_features, test_features, device)
    labels = train_labels.to(x.device)
    fit = torch.stack([training_rows(len(x), settings.validation_share, seed) for seed in range(seeds)])
    # Axes: selection, reduction, seed, penalty; every probe is one entry.
    shape = (len(kept), seeds, len(l2))
    top1 = torch.zeros(len(selections), *shape[:2], dtype=torch.float64)
    chosen = torch.zeros_like(top1)
    total, done, converged = len(selections) * shape[0] * shape[1] * shape[2], 0, 0.0
    plain = [name for name in selections if name != "pca"]
    for names in (plain, [name for name in selections if name == "pca"]):
        if not names:
            continue
        if names == ["pca"]:
            # Components of the standardised features: with all of them the probe is the one on all features.
            _, _, rotation = torch.linalg.svd((x.T @ x).double())
            x, x_test = x @ rotation.T.to(x), x_test @ rotation.T.to(x_test)
        masks = torch.stack(
            [
                subset_masks(activation_percent, name, k, lower=band[0], upper=band[1], seed=seed)
                for name in names
                for k in kept
                for seed in range(seeds)
            ]
        )
        rows = fit.repeat(len(names) * len(kept), 1)
        probes = fit_linear_probes(
            x,
            labels,
            l2=torch.tensor(l2, dtype=torch.float64).repeat(len(masks)),
            feature_masks=masks.repeat_interleave(len(l2), 0),
            sample_masks=rows.repeat_interleave(len(l2), 0),
            settings=FitSettings(False, settings.tolerance, settings.max_iterations),
            progress=partial(_report, progress, done, total),
        )
        done += len(probes)
        converged += float(probes.converged.sum())
        on_test = probes.accuracy(x_test, test_labels.to(x.device)).cpu().view(len(names), *shape)
        best = torch.zeros(len(names), *shape[:2], dtype=torch.int64)
        if len(l2) > 1:
            losses = probes.cross_entropy(x, labels, ~rows.repeat_interleave(len(l2), 0))
            best = losses.cpu().view(len(names), *shape).argmin(-1)
        places = [selections.index(name) for name in names]
        top1[places] = on_test.gather(-1, best[..., None]).squeeze(-1)
        chosen[places] = torch.tensor(l2, dtype=torch.float64)[best]
    counts = (counts_of(part) for part in sets)
    return Compression(tuple(selections), tuple(float(r) for r in reductions), kept, top1, chosen, converged / total, *counts)


def _report(progress: Progress | None, before: int, total: int, done: int, _: int, stage: str) -> None:
    if progress is not None:
        progress(before + done, total, stage)


def standardized(train: Tensor, test: Tensor, device: str | torch.device | None) -> tuple[Tensor, Tensor]:
    """Both sets with the training set's mean and deviation, float32 (or float64), on the device."""
    device = train.device if device is None else require_device(device)
    train, test = train.to(device), test.to(device)
    train = train if train.dtype == torch.float64 else train.float()
    mean, std = train.mean(0, dtype=torch.float64), train.double().std(0, correction=0)
    std = torch.where(std > 1e-6 * mean.abs(), std, 1.0)
    return (train - mean.to(train)) / std.to(train), (test.to(train) - mean.to(train)) / std.to(train)


def training_rows(count: int, validation_share: float, seed: int) -> Tensor:
    """bool `[N]`: the rows that train; the others are the seed's validation split."""
    held = max(1, round(validation_share * count))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    rows = torch.ones(count, dtype=torch.bool)
    rows[order[:held]] = False
    return rows
