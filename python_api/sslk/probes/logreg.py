"""Logistic regression on frozen features: C from a grid by held-out training rows, trained again on all, tested once."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sslk.distributed import require_device
from sslk.probes.accuracy_intervals import mean_per_class_interval, over_tries
from sslk.probes.labelled import Array, Labelled, counts_of, origin_of, rows_of, scored, sets_given, standardization
from sslk.probes.logreg_choice import Choice, Draws, LogregPoint, choose, few_shot
from sslk.probes.logreg_draws import held_out
from sslk.probes.logreg_path import fit_path
from sslk.probes.logreg_rows import filled, rotate
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.settings import LogregSettings, changed
from sslk.probes.usable import RowCounts, TwoSets
from sslk.progress import Progress
from sslk.statistics.bootstrap import Interval


@dataclass(frozen=True, eq=False)
class FewShot:
    """What classifiers of few training images per class reach on the test set.

    Attributes:
        shots: training images per class.
        top1, mean_per_class: float64 `[T]`, of every try, in [0, 1].
        top1_mean, mean_per_class_mean: their means, with intervals over tries and test images.
        c: the value that each try chose.
        rows: training images of each try.
        short: classes with fewer images than shots, all of which were used.
        converged: whether every chosen classifier is within the tolerance of the best.
    """

    shots: int
    top1: Tensor
    mean_per_class: Tensor
    top1_mean: Interval
    mean_per_class_mean: Interval
    c: list[float]
    rows: list[int]
    short: int
    converged: bool


@dataclass(frozen=True, eq=False)
class LogregProbe(TwoSets):
    """A logistic regression on frozen representations and its result on the test set.

    Attributes:
        outputs: its answer for every test sample.
        c: the value chosen on the held-out training rows.
        grid: every value, with its accuracies there, trained without them; empty where one value was given.
        held_out: how many rows chose.
        mean_per_class: mean over the classes of test of the share of right answers, with its interval over images.
        weight, bias: float64 `[K, D]` and `[K]`, for features as they are, of the sorted `classes`.
        loss: mean cross-entropy plus penalty on all training rows.
        converged: whether the weights are within the tolerance of the best.
        shots: the few-shot results.
        train_rows, test_rows: how many rows there were, and how many were left out for being unlabelled or not finite.
    """

    outputs: ProbeOutputs
    c: float
    grid: list[LogregPoint]
    held_out: int
    mean_per_class: Interval
    weight: Tensor
    bias: Tensor
    loss: float
    converged: bool
    shots: list[FewShot]
    train_rows: RowCounts
    test_rows: RowCounts

    @property
    def top5(self) -> float | None:
        """Share of the test samples whose class is among the five of the largest scores; None of five classes or fewer."""
        if len(self.classes) <= 5:
            return None
        best = self.classes[self.outputs.logits.topk(5).indices]
        return float((best == self.outputs.labels[:, None]).any(1).double().mean())


def logreg_probe(
    train: Labelled | Array,
    test: Labelled | Array,
    *more: Array | LogregSettings,
    settings: LogregSettings = LogregSettings(),  # noqa: B008 (frozen)
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
    **changes: Any,
) -> LogregProbe:
    """Multinomial logistic regression with the best C of a grid, as DINOv2 and DINOv3 evaluate frozen features.

    Each C minimises `C sum_i CE(W x_i + b, y_i) + 1/2 ||W||^2`, scikit-learn's `LogisticRegression(C=C)`: features as they
    are, no penalty on the bias, and with two classes on the one vector of weights. C is chosen by accuracy on a tenth of every
    class, the smaller of equals; all training rows train the final classifier; the test set is used once.

    Args:
        train, test: `(features [N, D], labels [N])`, feature stores, or their folders, as for `linear_probe`. One copy of the
            training features is held in the device's memory, or in the host's where they do not fit; test is read by batches.
        settings: the grid, few-shot draws, precision and memory; by position as well, after the sets.
        device: where to compute.
        progress: called with the regressions trained and to train.
        changes: fields of the settings by name, such as `shots=(1, 5)`.

    Raises:
        StoreError: a store is incomplete, damaged, without labels, or of another model than the other.
        TypeError: a set is no features with labels, or there is no such setting.
        ValueError: shapes do not match, no row is labelled and finite, training has fewer than two classes, or no class has a
            second row that could choose C.

    Examples:
        >>> x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0)); y = (x[:, 0] > 0).long() * 7
        >>> probe = logreg_probe((x[:300], y[:300]), (x[300:], y[300:]), shots=5)
        >>> probe.top1 > 0.95, len(probe.grid), len(probe.shots[0].top1)
        (True, 45, 5)
    """
    sets, settings = sets_given((train, test, *more), 2, settings, "logreg_probe")
    settings = changed(settings, changes, "logreg_probe")
    device = require_device(device)
    train, test = rows_of(*sets)
    train, mean, deviation = standardization(train)
    unit = float(deviation.double().square().mean().sqrt())
    classes, targets = torch.unique(train.labels, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"train_labels must hold at least two classes, got {len(classes)}.")
    strengths = settings.strengths
    total = len(strengths) * (1 + len(settings.shots) * settings.tries) + 1

    def report(before: int, done: int) -> None:
        if progress is not None:
            progress(before + done, total, "training regressions")

    held = held_out(targets, settings.validation_share, settings.seed) if len(strengths) > 1 else torch.zeros_like(targets).bool()
    if len(strengths) > 1 and not bool(held.any()):
        raise ValueError("train_labels must hold two rows of some class to choose c, got one of each: give one value of c.")
    order = torch.cat([(~held).nonzero().squeeze(1), held.nonzero().squeeze(1)])
    dtype = torch.float64 if settings.precision == "float64" else torch.float32
    rows = rotate(filled(train, order.argsort(), mean, unit, device, dtype), device)
    targets = targets[order].to(device)
    fitted = len(order) - int(held.sum())
    choice: Choice | None = None
    if len(strengths) > 1:
        judged = rows.z[fitted:].to(device), targets[fitted:]
        choice = choose(rows, targets, len(classes), judged, settings, unit, count=fitted, progress=lambda done: report(0, done))
    c = strengths[0] if choice is None else strengths[choice.best]
    begin = None if choice is None else choice.position
    _, final = next(fit_path(rows, targets, len(classes), [c * unit**2], settings, begin=begin))
    report(len(strengths), 1)
    draws: list[Draws] = []
    if settings.shots:
        draws = few_shot(rows, targets, len(classes), settings, unit, lambda done: report(len(strengths) + 1, done))
    whole = rows.unrotated(final.position)[0]
    center = mean.to(device, dtype)
    answers: list[list[Tensor]] = [[] for _ in draws]

    def score(x: Tensor) -> Tensor:
        x = (x.to(device, dtype) - center) / unit
        for draw, parts in zip(draws, answers, strict=True):
            scores = torch.einsum("nd,tkd->tnk", x, draw.weights[..., :-1]) + draw.weights[:, None, :, -1]
            parts.append(scores.argmax(-1).cpu())
        return (x @ whole[:, :-1].T + whole[:, -1]).cpu()

    test, logits = scored(test, score, "test")
    outputs = ProbeOutputs.from_logits(logits, classes, test.labels, *origin_of(test, "logreg"))
    for sentence in outputs.missing_classes():
        warnings.warn(sentence, stacklevel=2)
    exact = whole.double().cpu()
    weight = exact[:, :-1] / unit
    return LogregProbe(
        outputs,
        c,
        [] if choice is None else choice.points,
        int(held.sum()),
        mean_per_class_interval(outputs.correct, outputs.labels, settings.resamples, settings.seed),
        weight,
        exact[:, -1] - weight @ mean.double(),
        float(final.value[0]),
        bool(final.converged[0]),
        [
            _judged(draw, classes[torch.cat(parts, 1)], outputs.labels, settings)
            for draw, parts in zip(draws, answers, strict=True)
        ],
        counts_of(train),
        counts_of(test),
    )


def _judged(draw: Draws, predictions: Tensor, labels: Tensor, settings: LogregSettings) -> FewShot:
    """What the draws of one number of shots reach; predictions `[T, N]`."""
    correct = predictions == labels
    classes, member = torch.unique(labels, return_inverse=True)
    hits = torch.zeros(len(correct), len(classes), dtype=torch.float64).index_add_(1, member, correct.double())
    top1, share = over_tries(correct, labels, settings.resamples, settings.seed)
    return FewShot(
        draw.shots,
        correct.double().mean(1),
        (hits / torch.bincount(member)).mean(1),
        top1,
        share,
        draw.c,
        draw.rows,
        draw.short,
        draw.converged,
    )
