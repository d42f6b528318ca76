"""The regression op: a step of softmax regression on sparse binary rows.

The documented function calls `torch.ops.sslk.sparse_softmax_sgd_`; below it stands its fake.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_kernels import checks, derivatives

_ops = torch.ops.sslk


def sparse_softmax_sgd_(
    weight: Tensor,
    bias: Tensor,
    weight_velocity: Tensor,
    bias_velocity: Tensor,
    columns: Tensor,
    offsets: Tensor,
    target: Tensor,
    index: Tensor,
    learning_rate: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> Tensor:
    """One step of SGD for softmax regression on a batch of sparse binary rows, in place.

    With `W` the weights and `y_i` the bits of row i, the loss is `mean_i -log softmax(W' y_i + b)[target_i]`. For weights
    and biases alike, `v <- momentum v + (gradient + weight_decay w)` and `w <- w - learning_rate v`, the step of
    `torch.optim.SGD`. Logits are sums of the weight rows of a row's ones, gradients sums of the errors of the rows that
    show a column: time grows with the ones, plus one pass over the weights.

    Args:
        weight: `[T, M, W]`, changed: T tiles of W classes each, float32 or float64. Tile t holds the classes from `t W`
            on; `[1, M, K]` is an ordinary matrix. Tiles of 64 classes keep a CPU core's second-level cache busy.
        bias: `[K]`, changed, with `W (T - 1) < K <= W T`. What weight holds past the last class has no influence.
        weight_velocity, bias_velocity: as weight and bias, changed; zeros before the first step.
        columns: int32, the ones of all rows of the table behind each other, in [0, M). A column named twice counts twice.
        offsets: int64 `[N + 1]`; those of row i are `columns[offsets[i]:offsets[i + 1]]`.
        target: int64 `[N]`, in [0, K).
        index: int64 `[n]`, the rows of the batch.
        learning_rate, momentum, weight_decay: of the step; finite, zero or positive. All three multiply what they
            are applied to, so that weights and velocities must be finite where they are zero too.

    Returns:
        The summed loss of the batch before the step, a float64 scalar. An empty batch gives 0 and changes nothing. The
        same call gives the same bits, on the CPU for every number of threads. On CUDA nothing waits for the device: what
        would raise for a value out of range there gives NaN instead, and changes nothing.

    Raises:
        RuntimeError: a wrong shape, dtype, device or layout, an argument that shares memory with one that is changed,
            one of these that requires grad outside `torch.no_grad()`, or (on the CPU) a value out of range in index, in the
            rows it names, or in their columns; nothing is changed.

    Examples:
        >>> import torch, ssl_kernels
        >>> columns, offsets = torch.tensor([0, 1, 2], dtype=torch.int32), torch.tensor([0, 1, 3])
        >>> weight, bias = torch.zeros(1, 3, 2), torch.zeros(2)
        >>> state = (weight, bias, torch.zeros_like(weight), torch.zeros_like(bias))
        >>> batch = (columns, offsets, torch.tensor([0, 1]), torch.tensor([0, 1]))
        >>> ssl_kernels.sparse_softmax_sgd_(*state, *batch, learning_rate=4.0)
        tensor(1.3863, dtype=torch.float64)
        >>> weight[0]
        tensor([[ 1., -1.],
                [-1.,  1.],
                [-1.,  1.]])
    """
    return _ops.sparse_softmax_sgd_(
        weight, bias, weight_velocity, bias_velocity, columns, offsets, target, index, learning_rate, momentum, weight_decay
    )


@torch.library.register_fake("sslk::sparse_softmax_sgd_")
def _(
    weight: Tensor,
    bias: Tensor,
    weight_velocity: Tensor,
    bias_velocity: Tensor,
    columns: Tensor,
    offsets: Tensor,
    target: Tensor,
    index: Tensor,
    learning_rate: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> Tensor:
    checks.sparse_softmax_sgd_(
        weight, bias, weight_velocity, bias_velocity, columns, offsets, target, index, learning_rate, momentum, weight_decay
    )
    return weight.new_empty((), dtype=torch.float64)


derivatives.in_place("sparse_softmax_sgd_", ("weight", "bias", "weight_velocity", "bias_velocity"))
