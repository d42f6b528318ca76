"""The predictor: softmax regression from sparse binary concepts to clusters, its cost growing with the ones.

Logits of an image are the sum of the weight rows of its concepts, and the gradient of a weight row is the sum of the
errors of the images that show the concept: both are bags of rows (`torch.nn.functional.embedding_bag`), the second over
the transposed batch. Weights are kept in tiles of columns that stay in a core's second-level cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from sslk.reverse.concepts.table import ConceptTable
from sslk.reverse.sparse_batches import Batches, SparseBatch

_TILE = 128  # columns: 1,300 concepts x 128 floats are 0.67 MB


@dataclass(frozen=True)
class ProbeSettings:
    """Settings of the predictor; the defaults are the paper's.

    Attributes:
        solver: `sgd` as in the paper, or `lbfgs` to convergence on the training rows.
        epochs: of SGD, at most; the one of least validation cross-entropy counts.
        batch_size: rows per step.
        learning_rate: divided by 10 after 60 % and after 80 % of the epochs.
        momentum, weight_decay: of SGD; weight_decay is L2, on weights and biases, for both solvers.
        iterations: of L-BFGS, at most.
        seed: of splits and orders.
        device: where it runs.
    """

    solver: Literal["sgd", "lbfgs"] = "sgd"
    epochs: int = 100
    batch_size: int = 512
    learning_rate: float = 3.5
    momentum: float = 0.9
    weight_decay: float = 3e-6
    iterations: int = 500
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.solver not in ("sgd", "lbfgs"):
            raise ValueError(f"solver must be 'sgd' or 'lbfgs', got {self.solver!r}.")
        for name in ("epochs", "batch_size", "iterations", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")


@dataclass(frozen=True, eq=False)
class ConceptPredictor:
    """A fitted predictor.

    Attributes:
        weight: `[M, K]`.
        bias: `[K]`.
        epoch: the selected epoch, from 1; iterations for L-BFGS.
        train_curve, validation_curve: mean cross-entropy per epoch, in nats; that of training is taken before each
            step. Empty for L-BFGS.
    """

    weight: Tensor
    bias: Tensor
    epoch: int
    train_curve: list[float]
    validation_curve: list[float]

    def logits(self, concepts: ConceptTable) -> Tensor:
        """`[n, K]` for the table's rows; its columns are those of the fit."""
        if concepts.num_concepts != len(self.weight):
            raise ValueError(
                f"concepts must have {len(self.weight)} columns as in the fit, got {concepts.num_concepts}."
            )
        bags = F.embedding_bag(
            concepts.columns, self.weight, concepts.offsets.int(), mode="sum", include_last_offset=True
        )
        return bags + self.bias


def fit_predictor(
    train: ConceptTable,
    train_clusters: Tensor,
    validation: ConceptTable,
    validation_clusters: Tensor,
    num_clusters: int,
    settings: ProbeSettings | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int, int], None] | None = None,
) -> ConceptPredictor:
    """Fit softmax regression from concepts to clusters.

    `min_W  mean_i -log softmax(W^T y_i + b)[c_i] + weight_decay / 2 (|W|^2 + |b|^2)`, started at zero.

    Args:
        train, validation: concepts of the rows.
        train_clusters, validation_clusters: their clusters, integers in [0, K).
        num_clusters: K.
        settings: the paper's by default.
        dtype: of weights and products.
        progress: called with epochs done and in all.

    Raises:
        ValueError: rows and clusters do not match, or training diverges.

    >>> table = ConceptTable.from_rows([[0], [1]] * 20, ["cat", "dog"], "labels")
    >>> fit = fit_predictor(table, torch.arange(40) % 2, table, torch.arange(40) % 2, 2, ProbeSettings(epochs=5))
    >>> fit.logits(table).argmax(1)[:4].tolist()
    [0, 1, 0, 1]
    """
    settings = settings or ProbeSettings()
    for name, table, clusters in (("train", train, train_clusters), ("validation", validation, validation_clusters)):
        if clusters.shape != (len(table),) or not len(table):
            raise ValueError(f"{name}_clusters must be [{len(table)}], one per row, got {list(clusters.shape)}.")
        if not 0 <= int(clusters.min()) <= int(clusters.max()) < num_clusters:
            raise ValueError(f"{name}_clusters must lie in [0, {num_clusters}), got up to {int(clusters.max())}.")
    device = torch.device(settings.device)
    fitted = Batches(train, train_clusters, device)
    held_out = Batches(validation, validation_clusters, device)
    weights = TiledWeights(train.num_concepts, num_clusters, device, dtype)
    if settings.solver == "lbfgs":
        from sslk.reverse.probe_lbfgs import minimise

        iterations = minimise(weights, fitted, settings)
        return ConceptPredictor(*weights.whole(), iterations, [], [])
    return _sgd(weights, fitted, held_out, settings, progress)


def _sgd(
    weights: TiledWeights,
    train: Batches,
    validation: Batches,
    settings: ProbeSettings,
    progress: Callable[[int, int], None] | None,
) -> ConceptPredictor:
    generator = torch.Generator().manual_seed(settings.seed)
    velocity = weights.zeros()
    curves: tuple[list[float], list[float]] = ([], [])
    best, best_epoch, best_loss = weights.whole(), 0, math.inf
    for epoch in range(settings.epochs):
        drops = sum(epoch >= round(share * settings.epochs) for share in (0.6, 0.8))
        rate = settings.learning_rate / 10**drops
        loss = torch.zeros((), dtype=torch.float64, device=weights.device)
        for batch in train.epoch(settings.batch_size, generator):
            loss += weights.step(batch, velocity, rate, settings.momentum, settings.weight_decay)
        curves[0].append(float(loss) / len(train))
        curves[1].append(weights.cross_entropy(validation))
        if not math.isfinite(curves[1][-1]):
            raise ValueError(
                f"learning_rate={settings.learning_rate} makes the loss diverge in epoch {epoch + 1}: lower it."
            )
        if curves[1][-1] < best_loss:
            best, best_epoch, best_loss = weights.whole(), epoch + 1, curves[1][-1]
        if progress is not None:
            progress(epoch + 1, settings.epochs)
    return ConceptPredictor(*best, best_epoch, *curves)


class TiledWeights:
    """Weights `[M, K]` and biases `[K]` of softmax regression as tiles of columns, with its forward and gradient."""

    def __init__(self, concepts: int, clusters: int, device: torch.device, dtype: torch.dtype) -> None:
        # A GPU holds all columns in its cache; a CPU core only so many.
        tiles = 1 if device.type == "cuda" else -(-clusters // _TILE)
        width = -(-clusters // (tiles * 16)) * 16
        self.clusters, self.width, self.device = clusters, width, device
        self.weight = torch.zeros(tiles, concepts, width, dtype=dtype, device=device)
        self.bias = torch.zeros(tiles, 1, width, dtype=dtype, device=device)

    def zeros(self) -> tuple[Tensor, Tensor]:
        """Two tensors as the weights and the biases."""
        return torch.zeros_like(self.weight), torch.zeros_like(self.bias)

    def whole(self) -> tuple[Tensor, Tensor]:
        """Copies on the CPU, `[M, K]` and `[K]`."""
        weight = self.weight.transpose(0, 1).flatten(1)[:, : self.clusters]
        return weight.cpu().contiguous(), self.bias.flatten()[: self.clusters].cpu().clone()

    def errors(self, batch: SparseBatch) -> tuple[Tensor, Tensor]:
        """`softmax - one-hot`, `[tiles, n, width]`, and the summed cross-entropy, float64."""
        n = len(batch.clusters)
        errors = torch.empty(len(self.weight), n, self.width, dtype=self.weight.dtype, device=self.device)
        for out, weight, bias in zip(errors, self.weight, self.bias, strict=True):
            torch.add(bag(batch.columns, weight, batch.offsets), bias, out=out)
        surplus = errors.shape[0] * self.width - self.clusters
        if surplus:
            # Columns that fill up the tiles: they may span several where K is small.
            flat = torch.arange(self.clusters, self.clusters + surplus, device=self.device)
            errors[flat // self.width, :, flat % self.width] = -torch.inf
        tile, column = batch.clusters // self.width, batch.clusters % self.width
        rows = torch.arange(n, device=self.device)
        highest = errors.amax((0, 2))
        errors.sub_(highest[:, None])
        target = errors[tile, rows, column].double()
        total = errors.exp_().sum((0, 2))
        loss = (total.double().log() - target).sum()
        errors.div_(total[:, None])
        errors[tile, rows, column] -= 1
        return errors, loss

    def step(
        self, batch: SparseBatch, velocity: tuple[Tensor, Tensor], rate: float, momentum: float, decay: float
    ) -> Tensor:
        """One step of SGD as torch's: `v = momentum v + g + decay w`, `w -= rate v`; returns the summed loss before."""
        errors, loss = self.errors(batch)
        errors.div_(len(batch.clusters))
        # Tile by tile, so that gradient, velocity and weights meet in the cache.
        for error, weight, speed in zip(errors, self.weight, velocity[0], strict=True):
            gradient = bag(batch.rows, error, batch.column_offsets)
            # What torch.optim.SGD(fused=True) calls: one pass over the tile in place of three.
            torch._fused_sgd_(
                [weight], [gradient], [speed], weight_decay=decay, momentum=momentum, lr=rate, dampening=0.0,
                nesterov=False, maximize=False, is_first_step=False,
            )  # fmt: skip
        bias_speed = velocity[1]
        torch.add(errors.sum(1, keepdim=True), bias_speed, alpha=momentum, out=bias_speed)
        bias_speed.add_(self.bias, alpha=decay)
        self.bias.sub_(bias_speed, alpha=rate)
        return loss

    def cross_entropy(self, rows: Batches) -> float:
        """Mean cross-entropy over all rows, in nats."""
        return float(sum(self.errors(batch)[1] for batch in rows.in_order())) / len(rows)


def bag(rows: Tensor, table: Tensor, offsets: Tensor) -> Tensor:
    """Sums of rows of a table, one per bag; `offsets` has one more entry than there are bags."""
    return F.embedding_bag(rows, table, offsets, mode="sum", include_last_offset=True)
