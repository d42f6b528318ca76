"""Linear probe: a grid of linear classifiers trained in one pass over frozen features, chosen on validation data."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sslk.features.store import FeatureStore
from sslk.probes.grid import LinearGrid
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.rows import Rows, StoreRows, TensorRows, standardisation
from sslk.probes.source import joined, source_of

LEARNING_RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
WEIGHT_DECAYS = (0.0, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A linear classifier on frozen representations and its result on the test set.

    Attributes:
        top1: accuracy on the test set, in [0, 1].
        predictions: int64 `[N]`, predicted labels (values of the given labels, not positions).
        logits: `[N, C]`, columns in the order of `classes`.
        correct: bool `[N]`.
        classes: int64 `[C]`, sorted labels of the training set.
        learning_rate, weight_decay: the setting chosen on the validation split.
        validation_top1: its accuracy there, trained without that split.
        grid: (learning rate, weight decay, validation accuracy) of every setting; -1 where training diverged.
        weight, bias: the classifier, `[C, D]` and `[C]`, for features standardised with `mean` and `scale`, `[D]`.
    """

    top1: float
    predictions: Tensor
    logits: Tensor
    correct: Tensor
    classes: Tensor
    learning_rate: float
    weight_decay: float
    validation_top1: float
    grid: list[tuple[float, float, float]]
    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor

    def outputs(
        self, labels: Tensor, index: Tensor | None = None, source: dict[str, str] | None = None
    ) -> ProbeOutputs:
        """What the probe says about every test sample."""
        return ProbeOutputs.from_logits(self.logits, self.classes, labels, index, source)


def linear_probe(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    epochs: int = 100,
    batch_size: int = 256,
    learning_rates: Sequence[float] = LEARNING_RATES,
    weight_decays: Sequence[float] = WEIGHT_DECAYS,
    validation_share: float = 0.1,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> LinearProbe:
    """Train linear classifiers on frozen features and report the best one's accuracy.

    Features are standardised with the training set's mean and deviation. All settings are trained side by side as one
    wide linear layer by SGD with momentum 0.9 and a cosine schedule, on the training set less a validation split. The
    setting with the least cross-entropy on the split is trained again on the whole training set and
    reported once on the test set.

    Args:
        train_features, test_features: `[N, D]` and `[M, D]`, floating point.
        train_labels, test_labels: integers `[N]` and `[M]`; classes need not be contiguous.
        epochs, batch_size: of SGD.
        learning_rates, weight_decays: the grid.
        validation_share: share of the training set that chooses the setting.
        seed: of the split, the order and nothing else.
        device: where the classifiers are.
        progress: called with the steps done and to do.

    Raises:
        ValueError: shapes do not match, features are not finite, the training set has fewer than two classes, or no
            setting converges.

    Examples:
        >>> import torch, sslk
        >>> x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0)); y = (x[:, 0] > 0).long() * 7
        >>> sslk.linear_probe(x[:300], y[:300], x[300:], y[300:], epochs=20).top1 > 0.9
        True
    """
    return probe_rows(
        TensorRows("train", train_features, train_labels), TensorRows("test", test_features, test_labels),
        epochs=epochs, batch_size=batch_size, learning_rates=learning_rates, weight_decays=weight_decays,
        validation_share=validation_share, seed=seed, device=device, progress=progress,
    )  # fmt: skip


def linear_probe_stores(
    train: FeatureStore,
    test: FeatureStore,
    *,
    epochs: int = 100,
    batch_size: int = 256,
    learning_rates: Sequence[float] = LEARNING_RATES,
    weight_decays: Sequence[float] = WEIGHT_DECAYS,
    validation_share: float = 0.1,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[LinearProbe, ProbeOutputs]:
    """`linear_probe` over two feature stores of any size, read batch by batch, and its outputs on the test store.

    Raises:
        StoreError: a store is incomplete, damaged, without labels, or of another model than the other.
        ValueError: as for `linear_probe`.
    """
    test = joined(train, test)
    rows = StoreRows(test)
    probe = probe_rows(
        StoreRows(train), rows, epochs=epochs, batch_size=batch_size, learning_rates=learning_rates,
        weight_decays=weight_decays, validation_share=validation_share, seed=seed, device=device, progress=progress,
    )  # fmt: skip
    index = torch.cat([shard.indices for shard in test.shards()])
    return probe, probe.outputs(rows.labels, index, source_of(test, "linear"))


def probe_rows(
    train: Rows,
    test: Rows,
    *,
    epochs: int = 100,
    batch_size: int = 256,
    learning_rates: Sequence[float] = LEARNING_RATES,
    weight_decays: Sequence[float] = WEIGHT_DECAYS,
    validation_share: float = 0.1,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> LinearProbe:
    """`linear_probe` on rows of any kind: `TensorRows`, `StoreRows`, or `EncoderRows` for augmentation online."""
    if train.num_features != test.num_features:
        raise ValueError(
            f"train_features and test_features must have the same D, got {train.num_features} and {test.num_features}."
        )
    settings = _checked_settings(epochs, batch_size, learning_rates, weight_decays, validation_share)
    classes, targets = torch.unique(train.labels, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"train_labels must hold at least two classes, got {len(classes)}.")
    mean, scale = (part.to(device) for part in standardisation(train))
    generator = torch.Generator().manual_seed(seed)
    everything = torch.arange(len(targets))
    order = torch.randperm(len(targets), generator=generator)
    held_out = max(1, round(validation_share * len(targets)))
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
                    progress(before + grid.steps_done, steps + again)
        return grid

    grid = trained(settings, fit, steps, 0)
    losses = torch.zeros(len(settings), dtype=torch.float64, device=device)
    hits = torch.zeros(len(settings), dtype=torch.float64, device=device)
    start = 0
    for x in train.ordered(validation):
        wanted = targets[validation[start : start + len(x)].to(device)]
        start += len(x)
        scores = grid.logits((x.to(device) - mean) / scale)
        hits += (scores.argmax(-1) == wanted).sum(1)
        index = wanted.expand(len(settings), -1)[..., None]
        losses -= scores.log_softmax(-1).gather(-1, index).sum((1, 2), dtype=torch.float64)
    accuracy = hits / held_out
    diverged = ~torch.isfinite(grid.weight).view(len(settings), -1).all(1)
    accuracy[diverged] = -1.0
    losses[diverged | ~torch.isfinite(losses)] = torch.inf
    # Accuracies on a small split tie and are chance within a few points; its cross-entropy tells settings apart.
    best = int(losses.argmin())
    if accuracy[best] < 0:
        raise ValueError("learning_rates are all too large: every classifier diverged; lower them.")
    final = trained([settings[best]], everything, again, steps)
    weight, bias = final.weight.view(final.shape)[0], final.bias.view(final.shape[:2])[0]
    logits = torch.cat([((x.to(device) - mean) / scale) @ weight.T + bias for x in test.ordered()]).cpu()
    predictions = classes[logits.argmax(1)]
    correct = predictions == test.labels
    table = [(*setting, float(value)) for setting, value in zip(settings, accuracy.tolist(), strict=True)]
    return LinearProbe(
        float(correct.double().mean()), predictions, logits, correct, classes, *settings[best], float(accuracy[best]),
        table, weight.cpu(), bias.cpu(), mean.cpu(), scale.cpu(),
    )  # fmt: skip


def _checked_settings(
    epochs: int,
    batch_size: int,
    learning_rates: Sequence[float],
    weight_decays: Sequence[float],
    validation_share: float,
) -> list[tuple[float, float]]:
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"epochs and batch_size must be at least 1, got {epochs} and {batch_size}.")
    if not 0 < validation_share < 1:
        raise ValueError(f"validation_share must lie between 0 and 1, got {validation_share:g}.")
    settings = list(itertools.product(learning_rates, weight_decays))
    if not settings or any(rate <= 0 or decay < 0 for rate, decay in settings):
        raise ValueError(
            f"learning_rates must be positive and weight_decays not negative, got {list(learning_rates)} and "
            f"{list(weight_decays)}."
        )
    return settings
