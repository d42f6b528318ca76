"""Kernels for measuring and improving self-supervised representations, as torch ops: `torch.ops.sslk.*`.

Importing the package loads the native libraries and registers the ops, their fake (meta) versions, gradients and
autocast rules. `ssl_kernels.qscore` and its siblings are the same ops with documentation; `ssl_kernels.reference`
holds a readable plain-torch version of each.
"""

from ssl_kernels import _load
from ssl_kernels.version import __version__

_load.load_libraries()

from ssl_kernels import reference_backends  # noqa: E402, F401  (registrations)
from ssl_kernels._load import build_info, cpu_isa, cuda_library_loaded, set_cpu_isa  # noqa: E402
from ssl_kernels.kmeans import kmeans_assign  # noqa: E402
from ssl_kernels.masking import circular_mask, heatmap_iou, masked_variants  # noqa: E402
from ssl_kernels.regression import sparse_softmax_sgd_  # noqa: E402
from ssl_kernels.rows import activating_mask, activation_counts, column_l1, qscore, qscore_counts, qscore_penalty, row_moments  # noqa: E402
from ssl_kernels.similarity import cca_matrix, cka_matrix, linear_cka  # noqa: E402

__all__ = [
    "__version__",
    "activating_mask",
    "activation_counts",
    "build_info",
    "cca_matrix",
    "circular_mask",
    "cka_matrix",
    "column_l1",
    "cpu_isa",
    "cuda_library_loaded",
    "heatmap_iou",
    "kmeans_assign",
    "linear_cka",
    "masked_variants",
    "qscore",
    "qscore_counts",
    "qscore_penalty",
    "row_moments",
    "set_cpu_isa",
    "sparse_softmax_sgd_",
]
