"""The k-means op: nearest centroids.

The documented function calls `torch.ops.sslk.kmeans_assign`; below it stand its fake and autocast rule (float32).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_kernels import checks, derivatives

_ops = torch.ops.sslk


def kmeans_assign(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centroid of each row and the squared distance to it.

    Inner products narrow the choice down; centroids that they cannot tell apart within their rounding error are
    compared by their exact distances in double. The assignment is thus that of float64 arithmetic on the given values,
    ties going to the lowest index, at every scale of the type: squares neither overflow nor vanish. Where rounding
    decides, all CPU instruction sets decide alike. The N x K products are formed a tile at a time.

    Args:
        x: `[N, D]`, any strides; float64, float32, float16 or bfloat16.
        centroids: `[K, D]`, K >= 1, the dtype and device of x.

    Returns:
        The index, int32 `[N]`, and `|x - c|^2`, `[N]`, float32 (float64 for float64 input) and rounded once; infinite
        where the type has no number as large. A row with NaN or infinity gets index 0 and distance NaN; a centroid with
        NaN or infinity is never chosen unless all are.
        Not differentiable. Deterministic.

    Raises:
        RuntimeError: x or centroids has the wrong shape, dtype or device; on CUDA, unless the dtype is float64, while
            `torch.backends.cuda.matmul.allow_fp16_accumulation` is set: torch then has no float16 products with float32 sums.

    Examples:
        >>> import torch, ssl_kernels
        >>> ssl_kernels.kmeans_assign(torch.tensor([[0.0, 1.0], [4.0, 4.0]]), torch.tensor([[0.0, 0.0], [4.0, 2.0]]))
        (tensor([0, 1], dtype=torch.int32), tensor([1., 4.]))
    """
    return _ops.kmeans_assign(x, centroids)


@torch.library.register_fake("sslk::kmeans_assign")
def _(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    checks.kmeans_assign(x, centroids)
    return x.new_empty(x.shape[0], dtype=torch.int32), x.new_empty(x.shape[0], dtype=checks.accumulation(x))


derivatives.constant("kmeans_assign")


for _device in ("cpu", "cuda"):
    torch.library.register_autocast("sslk::kmeans_assign", _device, torch.float32)
