"""Linear probe: a grid of linear classifiers trained in one pass over frozen features, chosen on validation data."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sslk.probes.grid import LinearGrid
from sslk.probes.labelled import Array, Labelled, counts_of, origin_of, rows_of, scored, sets_given, standardization
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.settings import LinearSettings, changed
from sslk.probes.usable import RowCounts, TwoSets
from sslk.progress import Progress


@dataclass(frozen=True, eq=False)
class LinearProbe(TwoSets):
    """A linear classifier on frozen representations and its result on the test set.

    Attributes:
        outputs: its answer for every test sample.
        learning_rate, weight_decay: the setting chosen on the validation split.
        validation_top1: its accuracy there, trained without that split.
        grid: (learning rate, weight decay, validation accuracy) of every setting; -1 where training diverged.
        weight, bias: the classifier, `[C, D]` and `[C]`, for features standardised with `mean` and `scale`, `[D]`.
        train_rows, test_rows: how many rows there were, and how many were left out for being unlabelled or not finite.
    """

    outputs: ProbeOutputs
    learning_rate: float
    weight_decay: float
    validation_top1: float
    grid: list[tuple[float, float, float]]
    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor
    train_rows: RowCounts
    test_rows: RowCounts


def linear_probe(
    train: Labelled | Array,
    test: Labelled | Array,
    *more: Array | LinearSettings,
    settings: LinearSettings = LinearSettings(),  # noqa: B008 (frozen)
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
    **changes: Any,
) -> LinearProbe:
    """Train linear classifiers on frozen features and report the best one's accuracy.

    Features are standardised with the training set's mean and deviation. All settings are trained side by side as one
    wide linear layer by SGD with momentum 0.9 and a cosine schedule, on the training set less a validation split. The
    setting with the least cross-entropy on the split is trained again on the whole training set and
    reported once on the test set.

    Args:
        train, test: `(features [N, D], labels [N])`, a feature store of any size, read batch by batch, or other `Rows`
            such as `EncoderRows` for augmentation online; classes need not be contiguous. Rows that are unlabelled (a label
            below 0, NaN, None) or not finite are left out, counted and warned of. Four arrays are taken too: features and
            labels to train on, features and labels to test.
        settings: of SGD, and the grid; by position as well, after the sets.
        device: where the classifiers are.
        progress: called with the steps done and to do.
        changes: fields of the settings by name, such as `epochs=20`.

    Raises:
        StoreError: a store is incomplete, damaged, without labels, or of another model than the other.
        TypeError: a set is no features with labels, or there is no such setting.
        ValueError: shapes do not match, no row is labelled and finite, the training set has fewer than two classes, or no
            setting converges.

    Examples:
        >>> import torch, sslk
        >>> x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0)); y = (x[:, 0] > 0).long() * 7
        >>> sslk.linear_probe((x[:300], y[:300]), (x[300:], y[300:]), epochs=20).top1 > 0.9
        True
    """
    sets, settings = sets_given((train, test, *more), 2, settings, "linear_probe")
    settings = changed(settings, changes, "linear_probe")
    train, test = rows_of(*sets)
    epochs, batch_size, seed = settings.epochs, settings.batch_size, settings.seed
    chances = _grid(settings)
    train, mean, scale = standardization(train)
    mean, scale = mean.to(device), scale.to(device)
    classes, targets = torch.unique(train.labels, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"train_labels must hold at least two classes, got {len(classes)}.")
    generator = torch.Generator().manual_seed(seed)
    everything = torch.arange(len(targets))
    order = torch.randperm(len(targets), generator=generator)
    held_out = max(1, round(settings.validation_share * len(targets)))
    if held_out >= len(targets):
        raise ValueError(f"train_features must hold more than {held_out} rows, got {len(targets)}.")
    validation, fit = order[:held_out].sort().values, order[held_out:]

    steps = epochs * train.steps(fit, batch_size)
    again = epochs * train.steps(everything, batch_size)
    targets = targets.to(device)

    def trained(chosen: list[tuple[float, float]], part: Tensor, length: int, before: int) -> LinearGrid:
        grid = LinearGrid(chosen, train.num_features, len(classes), length, device)
        for _ in range(epochs):
            for x, rows in train.shuffled(part, batch_size, generator):
                grid.step((x.to(device) - mean) / scale, targets[rows.to(device)])
                if progress is not None:
                    progress(before + grid.steps_done, steps + again, "training probes")
        return grid

    grid = trained(chances, fit, steps, 0)
    losses = torch.zeros(len(chances), dtype=torch.float64, device=device)
    hits = torch.zeros(len(chances), dtype=torch.float64, device=device)
    start = 0
    for x in train.ordered(validation):
        wanted = targets[validation[start : start + len(x)].to(device)]
        start += len(x)
        scores = grid.logits((x.to(device) - mean) / scale)
        hits += (scores.argmax(-1) == wanted).sum(1)
        index = wanted.expand(len(chances), -1)[..., None]
        losses -= scores.log_softmax(-1).gather(-1, index).sum((1, 2), dtype=torch.float64)
    accuracy = hits / held_out
    diverged = ~torch.isfinite(grid.weight).view(len(chances), -1).all(1)
    accuracy[diverged] = -1.0
    losses[diverged | ~torch.isfinite(losses)] = torch.inf
    # Accuracies on a small split tie and are chance within a few points; its cross-entropy tells settings apart.
    best = int(losses.argmin())
    if accuracy[best] < 0:
        raise ValueError("learning_rates are all too large: every classifier diverged; lower them.")
    final = trained([chances[best]], everything, again, steps)
    weight, bias = final.weight.view(final.shape)[0], final.bias.view(final.shape[:2])[0]
    test, logits = scored(test, lambda x: ((x.to(device) - mean) / scale) @ weight.T + bias, "test")
    table = [(*setting, float(value)) for setting, value in zip(chances, accuracy.tolist(), strict=True)]
    outputs = ProbeOutputs.from_logits(logits.cpu(), classes, test.labels, *origin_of(test, "linear"))
    for sentence in outputs.missing_classes():
        warnings.warn(sentence, stacklevel=2)
    return LinearProbe(
        outputs,
        *chances[best],
        float(accuracy[best]),
        table,
        weight.cpu(),
        bias.cpu(),
        mean.cpu(),
        scale.cpu(),
        counts_of(train),
        counts_of(test),
    )


def _grid(settings: LinearSettings) -> list[tuple[float, float]]:
    """Every setting of the grid, checked."""
    if settings.epochs < 1 or settings.batch_size < 1:
        raise ValueError(f"epochs and batch_size must be at least 1, got {settings.epochs} and {settings.batch_size}.")
    if not 0 < settings.validation_share < 1:
        raise ValueError(f"validation_share must lie between 0 and 1, got {settings.validation_share:g}.")
    grid = list(itertools.product(settings.learning_rates, settings.weight_decays))
    if not grid or any(rate <= 0 or decay < 0 for rate, decay in grid):
        raise ValueError(
            f"learning_rates must be positive and weight_decays not negative, got {list(settings.learning_rates)} and "
            f"{list(settings.weight_decays)}."
        )
    return grid
