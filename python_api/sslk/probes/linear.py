"""Linear probe: a grid of linear classifiers trained in one pass over cached features, chosen on validation data."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

LEARNING_RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
WEIGHT_DECAYS = (0.0, 1e-4, 1e-3)


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
        validation_top1: its accuracy there, a split of the training set.
    """

    top1: float
    predictions: Tensor
    logits: Tensor
    correct: Tensor
    classes: Tensor
    learning_rate: float
    weight_decay: float
    validation_top1: float


def linear_probe(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    *,
    epochs: int = 100,
    batch_size: int = 256,
    learning_rates: tuple[float, ...] = LEARNING_RATES,
    weight_decays: tuple[float, ...] = WEIGHT_DECAYS,
    validation_share: float = 0.1,
    seed: int = 0,
) -> LinearProbe:
    """Train linear classifiers on frozen features and report the best one's accuracy.

    Features are standardised with the training set's mean and deviation. All settings are trained side by side as one
    wide linear layer by SGD with momentum 0.9 and a cosine schedule, on the training set less a validation split; the
    split chooses the setting and that classifier is reported once on the test set.

    Args:
        train_features, test_features: `[N, D]` and `[M, D]`, floating point.
        train_labels, test_labels: integers `[N]` and `[M]`; classes need not be contiguous.
        epochs, batch_size: of SGD.
        learning_rates, weight_decays: the grid.
        validation_share: share of the training set that chooses the setting.
        seed: of the split, the order and nothing else.

    Raises:
        ValueError: shapes do not match or the training set has fewer than two classes.

    Example:
        >>> import torch, sslk
        >>> x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0)); y = (x[:, 0] > 0).long() * 7
        >>> sslk.linear_probe(x[:300], y[:300], x[300:], y[300:], epochs=20).top1 > 0.9
        True
    """
    for name, x, y in (("train", train_features, train_labels), ("test", test_features, test_labels)):
        if x.ndim != 2 or y.ndim != 1 or len(x) != len(y):
            raise ValueError(
                f"{name}_features must be [N, D] with {name}_labels [N], got {list(x.shape)} and {list(y.shape)}."
            )
    if train_features.shape[1] != test_features.shape[1]:
        raise ValueError(
            f"train_features and test_features must have the same D, got {train_features.shape[1]} and "
            f"{test_features.shape[1]}."
        )
    classes, targets = torch.unique(train_labels, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"train_labels must hold at least two classes, got {len(classes)}.")

    mean, std = train_features.float().mean(0), train_features.float().std(0, correction=0)
    std = torch.where(std > 0, std, 1.0)
    x_train, x_test = (train_features.float() - mean) / std, (test_features.float() - mean) / std
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x_train), generator=generator)
    held_out = max(1, round(validation_share * len(x_train)))
    validation, fit = order[:held_out], order[held_out:]

    settings = list(itertools.product(learning_rates, weight_decays))
    weight, bias = _train_grid(x_train[fit], targets[fit], len(classes), settings, epochs, batch_size, generator)
    logits = torch.einsum("nd,gdc->gnc", x_train[validation], weight) + bias[:, None]
    accuracy = (logits.argmax(-1) == targets[validation]).float().mean(1)
    best = int(accuracy.argmax())
    test_logits = x_test @ weight[best] + bias[best]
    predictions = classes[test_logits.argmax(1)]
    correct = predictions == test_labels
    return LinearProbe(
        float(correct.double().mean()), predictions, test_logits, correct, classes, *settings[best],
        float(accuracy[best]),
    )  # fmt: skip


def _train_grid(
    x: Tensor,
    targets: Tensor,
    num_classes: int,
    settings: list[tuple[float, float]],
    epochs: int,
    batch_size: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Weights `[G, D, C]` and biases `[G, C]` of every setting, from one sequence of batches."""
    num_settings, dim = len(settings), x.shape[1]
    rates = torch.tensor([rate for rate, _ in settings]).view(-1, 1, 1)
    decays = torch.tensor([decay for _, decay in settings]).view(-1, 1, 1)
    weight, bias = torch.zeros(num_settings, dim, num_classes), torch.zeros(num_settings, 1, num_classes)
    weight_velocity, bias_velocity = torch.zeros_like(weight), torch.zeros_like(bias)
    one_hot = F.one_hot(targets, num_classes).float()
    steps = epochs * -(-len(x) // batch_size)
    step = 0
    for _ in range(epochs):
        for index in torch.randperm(len(x), generator=generator).split(batch_size):
            schedule = 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / steps)))
            batch = x[index]
            # All settings share the batch, so one product with the weights side by side serves them all.
            logits = (batch @ weight.transpose(0, 1).reshape(dim, -1)).view(len(index), num_settings, num_classes)
            error = ((logits.transpose(0, 1) + bias).softmax(-1) - one_hot[index]) / len(index)
            gradient = (batch.T @ error.transpose(0, 1).reshape(len(index), -1)).view(dim, num_settings, num_classes)
            weight_velocity.mul_(0.9).add_(gradient.transpose(0, 1)).add_(decays * weight)
            bias_velocity.mul_(0.9).add_(error.sum(1, keepdim=True))
            weight.sub_(schedule * rates * weight_velocity)
            bias.sub_(schedule * rates * bias_velocity)
            step += 1
    return weight, bias.squeeze(1)
