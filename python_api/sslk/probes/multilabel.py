"""Several labels an image: one-vs-rest logistic regressions on frozen features, judged by average precision."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from sslk.distributed import require_device
from sslk.probes.average_precision import average_precision, micro_average_precision, resampled
from sslk.probes.logistic_loss import fit_labels
from sslk.probes.settings import MultiLabelSettings, changed
from sslk.probes.usable import RowCounts, finite_rows, matrix
from sslk.progress import Progress
from sslk.results.atomic import write_atomically
from sslk.statistics.bootstrap import Interval, percentile_interval
from sslk.statistics.moments import batch_moments, mean_and_std, merge_moments

_FORMAT = "sslk-multilabel-outputs-1"
_BLOCK = 16_384  # rows that are standardised at once


@dataclass(frozen=True, eq=False)
class MultiLabelProbe:
    """One-vs-rest logistic regressions and what they say about the test rows.

    Attributes:
        average_precision: float64 `[C]`; NaN for a class without a positive in test.
        intervals: float64 `[C, 2]`, ends of their 95 % bootstrap intervals over images.
        mean: mAP, the mean over the classes with a positive in test, with its interval.
        micro: average precision of all entries of all classes together.
        l2: the penalty that was chosen.
        grid: every penalty with its mAP on the validation part of the training rows; empty where one was given.
        weight, bias: `[C, D]` and `[C]`, for features standardised as `(x - center) / scale`.
        center, scale: `[D]`.
        scores: float32 `[M, C]`, log odds of the test rows that were used.
        labels: int8 `[M, C]`.
        index: int64 `[M]`, places of these rows among those given.
        train_positives: int64 `[C]`, positives among the training rows.
        trained: bool `[C]`, whether training has a positive and a negative; the score of another class is constant.
        unknown: unknown entries of the rows used, in training and test, left out.
        train_rows, test_rows: how many rows there were, and how many were left out: without any known label, or not finite.
        converged: whether every regression is within the tolerance of the least loss.
    """

    average_precision: Tensor
    intervals: Tensor
    mean: Interval
    micro: float
    l2: float
    grid: list[tuple[float, float]]
    weight: Tensor
    bias: Tensor
    center: Tensor
    scale: Tensor
    scores: Tensor
    labels: Tensor
    index: Tensor
    train_positives: Tensor
    trained: Tensor
    unknown: tuple[int, int]
    train_rows: RowCounts
    test_rows: RowCounts
    converged: bool

    def save(self, path: str | os.PathLike[str], index: Tensor | None = None, classes: Sequence[str] = ()) -> Path:
        """Write scores, labels and the samples' numbers as one safetensors file, atomically."""
        path = Path(path)
        tensors = {
            "scores": self.scores.contiguous(),
            "labels": self.labels.contiguous(),
            "index": (self.index if index is None else index[self.index]).contiguous(),
        }
        write_atomically(path, save(tensors, {"format": _FORMAT, "classes": json.dumps(list(classes))}))
        return path


def multilabel_probe(
    train_features: Tensor | np.ndarray,
    train_labels: Tensor | np.ndarray,
    test_features: Tensor | np.ndarray,
    test_labels: Tensor | np.ndarray,
    settings: MultiLabelSettings = MultiLabelSettings(),  # noqa: B008 (frozen)
    *,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> MultiLabelProbe:
    """One-vs-rest logistic regression on frozen features, all classes as one batch, and its average precision.

    Class c minimises `mean_i log(1 + exp(-s_i (w_c x_i + b_c))) + l2 / 2 ||w_c||^2` over the rows whose entry is known, `s_i` = 1
    or -1: scikit-learn's `LogisticRegression(C=1 / (l2 * n))` on features standardised over the training rows. One
    penalty serves all classes: the one with the best mAP on a part of the training rows, after which all of them are
    trained on. The test rows are used once.

    Args:
        train_features, test_features: `[N, D]`.
        train_labels, test_labels: `[N, C]`: 1, 0, or -1 (or NaN) for unknown. Rows that have no known entry or are not finite
            are left out, counted and warned of.
        settings: penalties to choose from, and resamples of the intervals.
        device: where to compute; where the training features are by default.
        progress: called with what is done, what there is to do, and the stage.
        changes: fields of the settings by name, such as `l2=1e-3`.

    Raises:
        TypeError, ValueError: shapes or values do not fit, no row can be used, or test has no positive.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = torch.randn(400, 8, generator=generator); y = (x[:, :3] > 0.5).to(torch.int8)
        >>> probe = multilabel_probe(x[:300], y[:300], x[300:], y[300:])
        >>> probe.average_precision.shape, probe.mean.value > 0.95, probe.mean.low < probe.mean.value < probe.mean.high
        (torch.Size([3]), True, True)
    """
    settings = changed(settings, changes, "multilabel_probe")
    x, y, _, train_rows = _usable(train_features, train_labels, "train")
    test_x, test_y, index, test_rows = _usable(test_features, test_labels, "test")
    if x.shape[1] != test_x.shape[1] or y.shape[1] != test_y.shape[1]:
        raise ValueError(
            f"test_features and test_labels must have {x.shape[1]} features and {y.shape[1]} classes as in training, got "
            f"{test_x.shape[1]} and {test_y.shape[1]}."
        )
    if not bool((test_y == 1).any()):
        raise ValueError("test_labels must hold a positive of some class, got none.")
    target = require_device(x.device if device is None else device)
    center, scale = _standardization(x)
    rows = _standardized(x, center, scale, target)
    labels = y.to(target)
    l2, grid = _chosen(rows, labels, settings, progress)
    found, converged = _fitted(rows, labels, (l2,), settings, progress, "training")
    scores = torch.cat(
        [
            (_standardized(part, center, scale, target) @ found[0, :, :-1].T + found[0, :, -1]).float().cpu()
            for part in test_x.split(_BLOCK)
        ]
    )
    precision = average_precision(scores, test_y)
    mean, intervals = _intervals(scores, test_y, precision, settings, progress)
    positives = (y == 1).sum(0)
    return MultiLabelProbe(
        average_precision=precision,
        intervals=intervals,
        mean=mean,
        micro=micro_average_precision(scores, test_y),
        l2=l2,
        grid=grid,
        weight=found[0, :, :-1].cpu(),
        bias=found[0, :, -1].cpu(),
        center=center,
        scale=scale,
        scores=scores,
        labels=test_y,
        index=index,
        train_positives=positives,
        trained=(positives > 0) & (y == 0).any(0),
        unknown=(int((y < 0).sum()), int((test_y < 0).sum())),
        train_rows=train_rows,
        test_rows=test_rows,
        converged=bool(converged.all()),
    )


def _usable(features: Any, labels: Any, name: str) -> tuple[Tensor, Tensor, Tensor, RowCounts]:
    """Features and labels of the rows that can be used, their places, and how many are left out."""
    x = matrix(features, f"{name}_features")
    x = x if x.is_floating_point() else x.float()
    y = torch.as_tensor(labels).detach().cpu()
    if y.ndim != 2 or len(y) != len(x) or not y.shape[1]:
        raise ValueError(f"{name}_labels must be [N, C] with N = {len(x)} rows, got {list(y.shape)}.")
    y = torch.where(y.isnan(), -1, y) if y.is_floating_point() else y.to(torch.int64)
    if not bool(((y == 1) | (y == 0) | (y == -1)).all()):
        odd = y[(y != 1) & (y != 0) & (y != -1)][0].item()
        raise ValueError(f"{name}_labels must be 1, 0, or -1 for unknown, got {odd:g}.")
    known, finite = (y >= 0).any(1), finite_rows(x).cpu()
    counts = RowCounts(len(x), int((~known).sum()), int((known & ~finite).sum()))
    for sentence in counts.said("training" if name == "train" else name):
        warnings.warn(sentence, stacklevel=3)
    index = (known & finite).nonzero().squeeze(1)
    if not len(index):
        raise ValueError(f"{name}_features must hold a row that is finite and has a known label, got none in {len(x)}.")
    whole = len(index) == len(x)
    return x if whole else x[index.to(x.device)], (y if whole else y[index]).to(torch.int8), index, counts


def _standardization(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation `[D]`; 1 where a feature is constant up to rounding, which would be blown up to noise."""
    moments = torch.zeros(1 + 2 * x.shape[1], dtype=torch.float64)
    for part in x.split(_BLOCK):
        moments = merge_moments(torch.stack([moments, batch_moments(part.cpu())]))
    mean, std = mean_and_std(moments)
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return mean.to(dtype), torch.where(std > 1e-6 * mean.abs(), std, 1.0).to(dtype)


def _standardized(x: Tensor, center: Tensor, scale: Tensor, device: torch.device) -> Tensor:
    center, scale = center.to(device), scale.to(device)
    return (x.to(device=device, dtype=center.dtype) - center) / scale


def _chosen(
    rows: Tensor, labels: Tensor, settings: MultiLabelSettings, progress: Progress | None
) -> tuple[float, list[tuple[float, float]]]:
    """The penalty with the best mAP on a part of the training rows, the largest of equals, and the mAP of all."""
    if len(settings.l2) == 1:
        return settings.l2[0], []
    held = min(max(1, round(settings.validation_share * len(rows))), len(rows) - 1)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(settings.seed)).to(rows.device)
    if held < 1 or not bool((labels[order[:held]] == 1).any()):
        raise ValueError(
            f"l2 must be one number where the validation part of {held} of {len(rows)} training rows holds no positive."
        )
    found, _ = _fitted(rows[order[held:]], labels[order[held:]], settings.l2, settings, progress, "choosing the penalty")
    judged, truth = rows[order[:held]], labels[order[:held]].cpu()
    values = []
    for weights in found:
        scores = (judged @ weights[:, :-1].T + weights[:, -1]).cpu()
        values.append(float(average_precision(scores, truth).nanmean()))
    return max(zip(settings.l2, values, strict=True), key=lambda pair: (pair[1], pair[0]))[0], list(
        zip(settings.l2, values, strict=True)
    )


def _fitted(
    rows: Tensor, labels: Tensor, l2: tuple[float, ...], settings: MultiLabelSettings, progress: Progress | None, stage: str
) -> tuple[Tensor, Tensor]:
    total = len(l2) * labels.shape[1]
    return fit_labels(
        rows,
        labels,
        torch.tensor(l2, dtype=torch.float64),
        tolerance=settings.tolerance,
        max_iterations=settings.max_iterations,
        progress=lambda done: None if progress is None else progress(done, total, stage),
    )


def _intervals(
    scores: Tensor, labels: Tensor, precision: Tensor, settings: MultiLabelSettings, progress: Progress | None
) -> tuple[Interval, Tensor]:
    """mAP with its interval, and the intervals of every class `[C, 2]`, over resamples of the images."""
    judged = (~precision.isnan()).nonzero().squeeze(1)
    parts: dict[int, list[Tensor]] = {c: [] for c in range(len(judged))}
    done = 0
    for c, values in resampled(scores[:, judged], labels[:, judged], settings.resamples, settings.seed):
        parts[c].append(values)
        done += len(values)
        if progress is not None:
            progress(done, len(judged) * settings.resamples, "resampling")
    samples = torch.stack([torch.cat(parts[c]) for c in range(len(judged))])  # [classes, B]
    intervals = torch.full((len(precision), 2), torch.nan, dtype=torch.float64)
    for place, c in enumerate(judged.tolist()):
        if not bool(samples[place].isnan().all()):  # else every one of a few resamples missed its few positives
            interval = percentile_interval(float(precision[c]), samples[place])
            intervals[c] = torch.tensor([interval.low, interval.high])
    whole, value = samples.nanmean(0), float(precision.nanmean())
    low, high = (torch.nan, torch.nan) if bool(whole.isnan().all()) else percentile_interval(value, whole)[1:3]
    return Interval(value, low, high, len(scores)), intervals
