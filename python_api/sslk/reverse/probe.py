"""The predictor: softmax regression from sparse binary concepts to clusters, its cost growing with the ones.

Logits of an image are the sum of the weight rows of its concepts, and the gradient of a weight row is the sum of the
errors of the images that show the concept. A step of SGD is one op, `ssl_kernels.sparse_softmax_sgd_`; where only logits
are wanted they are bags of rows (`torch.nn.functional.embedding_bag`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sslk.concepts.table import ConceptTable
from sslk.distributed import require_device
from sslk.progress import Progress
from sslk.reverse.probe_lbfgs import minimize
from sslk.reverse.settings import ProbeSettings
from sslk.reverse.sparse_rows import SparseRows
from sslk.reverse.tiled_weights import TiledWeights, bag


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
            raise ValueError(f"concepts must have {len(self.weight)} columns as in the fit, got {concepts.num_concepts}.")
        return bag(concepts.columns, self.weight, concepts.offsets) + self.bias


def fit_predictor(
    train: ConceptTable,
    train_clusters: Tensor,
    validation: ConceptTable,
    validation_clusters: Tensor,
    num_clusters: int,
    settings: ProbeSettings | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    progress: Progress | None = None,
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
    device = require_device(settings.device)
    fitted = SparseRows.of(train, train_clusters, device)
    held_out = SparseRows.of(validation, validation_clusters, device)
    weights = TiledWeights(train.num_concepts, num_clusters, device, dtype)
    if settings.solver == "lbfgs":
        iterations = minimize(weights, fitted, settings)
        return ConceptPredictor(*weights.whole(), iterations, [], [])
    return _sgd(weights, fitted, held_out, settings, progress)


def _sgd(
    weights: TiledWeights, train: SparseRows, validation: SparseRows, settings: ProbeSettings, progress: Progress | None
) -> ConceptPredictor:
    generator = torch.Generator().manual_seed(settings.seed)
    velocity = weights.zeros()
    curves: tuple[list[float], list[float]] = ([], [])
    best, best_epoch, best_loss = weights.whole(), 0, math.inf
    for epoch in range(settings.epochs):
        drops = sum(epoch >= round(share * settings.epochs) for share in (0.6, 0.8))
        rate = settings.learning_rate / 10**drops
        curves[0].append(weights.epoch(train, velocity, generator, rate, settings) / len(train))
        curves[1].append(weights.cross_entropy(validation))
        if not math.isfinite(curves[1][-1]):
            raise ValueError(f"learning_rate={settings.learning_rate} makes the loss diverge in epoch {epoch + 1}: lower it.")
        if curves[1][-1] < best_loss:
            best, best_epoch, best_loss = weights.whole(), epoch + 1, curves[1][-1]
        if progress is not None:
            progress(epoch + 1, settings.epochs, "probing")
    return ConceptPredictor(*best, best_epoch, *curves)
