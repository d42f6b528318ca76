"""Which C does best on rows that were held out, and the few-shot results, each draw of which chooses its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sslk.probes.logreg_draws import drawn, held_out
from sslk.probes.logreg_path import fit_path
from sslk.probes.logreg_rows import RotatedRows, rotate
from sslk.probes.outputs import balanced_accuracy
from sslk.probes.settings import LogregSettings

_SCORE_BYTES = 64 << 20


@dataclass(frozen=True)
class LogregPoint:
    """One value of C: accuracies on the held-out rows, and how training went.

    Attributes:
        c: as scikit-learn's.
        top1, mean_per_class: in [0, 1].
        loss: mean cross-entropy plus penalty, `1 / (2 C n) ||W||^2`, on the rows it was trained on.
        evaluations: of loss and gradient.
        converged: whether the weights are within the tolerance of the best.
    """

    c: float
    top1: float
    mean_per_class: float
    loss: float
    evaluations: int
    converged: bool


@dataclass(frozen=True, eq=False)
class Choice:
    """Every C, the place of the best, the smaller of equals, and its classifier `[1, K, R + 1]`."""

    points: list[LogregPoint]
    best: int
    position: Tensor


def choose(
    rows: RotatedRows,
    targets: Tensor,
    num_classes: int,
    judged: tuple[Tensor, Tensor],
    settings: LogregSettings,
    unit: float,
    *,
    count: int | None = None,
    turned: Callable[[Tensor], Tensor] = lambda position: position,
    progress: Callable[[int], None] = lambda done: None,
) -> Choice:
    """Train with every C, and judge each on other rows.

    Args:
        rows, targets, num_classes, count: as of `fit_path`.
        judged: rows `[M, R + 1]` and targets `[M]` that are not trained on.
        settings: values of C, and what chooses.
        unit: what features were divided by.
        turned: classifiers of `rows` as classifiers of the judged rows.
        progress: called with the values done.
    """
    strengths = settings.strengths
    points: list[LogregPoint] = []
    best, position = -1.0, None
    path = fit_path(rows, targets, num_classes, [c * unit**2 for c in strengths], settings, count=count, progress=progress)
    for places, found in path:
        predictions = predicted(turned(found.position), judged[0]).cpu()
        for g, place in enumerate(places):
            top1 = float((predictions[g] == judged[1].cpu()).double().mean())
            share = balanced_accuracy(predictions[g], judged[1].cpu())
            points.append(
                LogregPoint(
                    strengths[place], top1, share, float(found.value[g]), int(found.evaluations[g]), bool(found.converged[g])
                )
            )
            if (top1 if settings.metric == "top1" else share) > best:
                best, chosen, position = (top1 if settings.metric == "top1" else share), place, found.position[g : g + 1].clone()
    assert position is not None
    return Choice(points, chosen, position)


def predicted(position: Tensor, rows: Tensor) -> Tensor:
    """Classes int64 `[G, M]` that classifiers `[G, K, R + 1]` say of rows `[M, R + 1]`, block by block."""
    groups, classes, width = position.shape
    flat = position.reshape(groups * classes, width)
    size = max(1, _SCORE_BYTES // (flat.itemsize * groups * classes))
    parts = [(flat @ part.to(flat).T).view(groups, classes, -1).argmax(1) for part in rows.split(size)]
    return torch.cat(parts, 1)


def _report(progress: Callable[[int], None], before: int, done: int) -> None:
    progress(before + done)


@dataclass(frozen=True, eq=False)
class Draws:
    """Few-shot classifiers of one number of shots.

    Attributes:
        shots: training images per class.
        weights: `[T, K, D + 1]`, of every try.
        c: what each try chose.
        rows: training images of each try.
        short: classes that have fewer images than shots: all of theirs are used.
        converged: whether the chosen classifiers are within the tolerance of the best.
    """

    shots: int
    weights: Tensor
    c: list[float]
    rows: list[int]
    short: int
    converged: bool


def few_shot(
    rows: RotatedRows,
    targets: Tensor,
    num_classes: int,
    settings: LogregSettings,
    unit: float,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Draws]:
    """Classifiers of few training rows: C of every try is chosen on rows that none is drawn from.

    The tries share no training rows, so they share no products: each is a path of its own, in the span of its own rows.

    Raises:
        ValueError: no row can be held out, because no class has two.
    """
    device, host = targets.device, targets.cpu()
    held = held_out(host, settings.shots_validation_share, settings.seed)
    if not bool(held.any()):
        raise ValueError("train must hold two images of some class to choose C for shots, got one of each.")
    where = held.nonzero().squeeze(1)
    judged = (rows.z[where.to(rows.z.device)].to(device), host[where])
    remaining = torch.bincount(host[~held], minlength=num_classes)
    found, done = [], 0
    for shots in settings.shots:
        weights, chosen, sizes, converged = [], [], [], True
        for attempt in range(settings.tries):
            places = drawn(host, ~held, shots, settings.seed + attempt)
            part = rotate(rows.z[places.to(rows.z.device)].to(device), device)
            choice = choose(
                part,
                host[places].to(device),
                num_classes,
                judged,
                settings,
                unit,
                turned=part.unrotated,
                progress=partial(_report, progress, done),
            )
            done += len(settings.strengths)
            weights.append(rows.unrotated(part.unrotated(choice.position))[0])
            point = choice.points[choice.best]
            chosen.append(point.c)
            sizes.append(len(places))
            converged &= point.converged
        found.append(Draws(shots, torch.stack(weights), chosen, sizes, int((remaining < shots).sum()), converged))
    return found
