"""Readable plain-torch versions of every op: the oracle of the tests and the baseline of the benchmarks.

Each follows its equation in the precision of its input; pass float64 for an oracle. They are also registered for
devices without a native kernel (see `reference_backends`). Gradients come from autograd.
"""

from ssl_kernels.reference.kmeans import kmeans_assign
from ssl_kernels.reference.masking import circular_mask, heatmap_iou, masked_variants
from ssl_kernels.reference.regression import sparse_softmax_sgd_
from ssl_kernels.reference.rows import (
    activating_mask,
    activation_counts,
    column_l1,
    column_l1_backward,
    qscore,
    qscore_backward,
    qscore_counts,
    qscore_penalty,
    qscore_penalty_backward,
    row_moments,
)
from ssl_kernels.reference.similarity import cca_matrix, cka_matrix, cka_matrix_backward, linear_cka, linear_cka_backward

__all__ = [
    "activating_mask",
    "activation_counts",
    "cca_matrix",
    "circular_mask",
    "cka_matrix",
    "cka_matrix_backward",
    "column_l1",
    "column_l1_backward",
    "heatmap_iou",
    "kmeans_assign",
    "linear_cka",
    "linear_cka_backward",
    "masked_variants",
    "qscore",
    "qscore_backward",
    "qscore_counts",
    "qscore_penalty",
    "qscore_penalty_backward",
    "row_moments",
    "sparse_softmax_sgd_",
]
