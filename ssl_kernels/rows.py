"""The row ops: Q-Score, highly activating features, moments and column norms of representations `[N, D]`.

Each documented function calls `torch.ops.sslk.<name>` of the same signature; below them stand their fakes (shapes and
dtypes for torch.compile and meta tensors) and gradients, each backward an op of its own so that it runs as one pass.
The row ops need no autocast rule: they take half inputs as they are and accumulate in float32.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from ssl_kernels import checks, derivatives

_ops = torch.ops.sslk

_NORM_FLOOR = 1e-12


def qscore(h: Tensor, discriminative: Tensor, eps: float = 4.0, normalize: bool = True, two_sided: bool = False) -> Tensor:
    """Q-Score of each representation: how far its highly activating discriminative features stand out.

    `Q_i = 1/|L_i & S| sum_{j in L_i & S} (h_ij - mu_i)` with `L_i = {j : h_ij > mu_i + eps sigma_i}`, the mean and
    population standard deviation taken over the row (Kalibhat et al., AAAI 2024, equation 1).

    Args:
        h: representations `[N, D]`, any strides; float64, float32, float16 or bfloat16.
        discriminative: bool `[D]`, the set S.
        eps: threshold in standard deviations, >= 0.
        normalize: divide rows by their L2 norm (at least 1e-12) first; the active set does not depend on it.
        two_sided: for signed features: `L_i = {j : |h_ij - mu_i| > eps sigma_i}`, averaging `|h_ij - mu_i|`.

    Returns:
        `[N]`, float32 (float64 for float64 input): 0 where `L_i & S` is empty, NaN where the row is not finite.
        Differentiable once in h, the active set held constant; forward mode, `torch.func` and vmap work. Deterministic.

    Raises:
        RuntimeError: h is no matrix, has no features or no floating dtype; the mask is not bool `[D]`; eps < 0.

    Examples:
        >>> import torch, ssl_kernels
        >>> h = torch.zeros(2, 32); h[0, 3] = 1.0
        >>> [round(q, 4) for q in ssl_kernels.qscore(h, torch.ones(32, dtype=torch.bool)).tolist()]
        [0.9688, 0.0]
    """
    return _ops.qscore(h, discriminative, eps, normalize, two_sided)


def qscore_counts(
    h: Tensor, discriminative: Tensor, eps: float = 4.0, normalize: bool = True, two_sided: bool = False
) -> tuple[Tensor, Tensor]:
    """`qscore` and the number of highly activating features `|L_i|`, in the set or not, from one pass: `[N]`, int32 `[N]`.

    For scoring data sets; not differentiable. A row that is not finite has a NaN score and no active feature. See
    `qscore` for the arguments. Deterministic.

    Examples:
        >>> import torch, ssl_kernels
        >>> q, active = ssl_kernels.qscore_counts(torch.eye(2, 8), torch.arange(8) < 1, eps=2.0)
        >>> q.tolist(), active.tolist()
        ([0.875, 0.0], [1, 1])
    """
    return _ops.qscore_counts(h, discriminative, eps, normalize, two_sided)


def activating_mask(h: Tensor, eps: float = 4.0, two_sided: bool = False) -> Tensor:
    """Which features are highly activating: `h_ij > mu_i + eps sigma_i`, as bool `[N, D]`.

    On the CPU the set is exact for every finite row at any scale and the same on every instruction set: elements within
    float32 rounding of the threshold are decided in double, those within its rounding in whole numbers, so that an
    element exactly at the threshold is not active. On CUDA it is exact but for elements within
    `2^-52 (1 + eps) (D + 64) sigma` of the threshold. A row that is not finite has no active feature. See `qscore` for
    the arguments. Deterministic.

    Examples:
        >>> import torch, ssl_kernels
        >>> ssl_kernels.activating_mask(torch.tensor([[0., 0., 0., 9.]]), eps=1.5)
        tensor([[False, False, False,  True]])
    """
    return _ops.activating_mask(h, eps, two_sided)


def activation_counts(h: Tensor, eps: float = 4.0, two_sided: bool = False) -> tuple[Tensor, Tensor]:
    """Counts of `activating_mask` without the mask: rows per feature, int64 `[D]`, and features per row, int32 `[N]`.

    `100 / N` times the first is the activation percentage `A_j`. Counts of batches add up. Deterministic.

    Examples:
        >>> import torch, ssl_kernels
        >>> ssl_kernels.activation_counts(torch.eye(2, 8), eps=2.0)
        (tensor([1, 1, 0, 0, 0, 0, 0, 0]), tensor([1, 1], dtype=torch.int32))
    """
    return _ops.activation_counts(h, eps, two_sided)


def row_moments(h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, population standard deviation and L2 norm of each row, each `[N]` in float32 (float64 for float64 input).

    Two-pass accurate: right for means far larger than the deviation and for any scale. NaN for rows that are not
    finite. Not differentiable. Deterministic.

    Examples:
        >>> import torch, ssl_kernels
        >>> [m.item() for m in ssl_kernels.row_moments(torch.tensor([[3.0, 5.0]]))]  # doctest: +ELLIPSIS
        [4.0, 1.0, 5.830...]
    """
    return _ops.row_moments(h)


def column_l1(h: Tensor, normalize: bool = True) -> Tensor:
    """L1 norm of every feature over the batch, `[D]`: `sum_i |h_ij|`, rows divided by their L2 norm by default.

    Float32 (float64 for float64 input). Differentiable once, in forward mode too. Deterministic, whatever the number of
    threads.

    Examples:
        >>> import torch, ssl_kernels
        >>> ssl_kernels.column_l1(torch.tensor([[3.0, -4.0], [0.0, 2.0]]))
        tensor([0.6000, 1.8000])
    """
    return _ops.column_l1(h, normalize)


def qscore_penalty(
    h: Tensor,
    discriminative: Tensor,
    lambda1: float = 1e-4,
    lambda2: float = 1e-4,
    eps: float = 4.0,
    normalize: bool = True,
    two_sided: bool = False,
    alpha: Tensor | None = None,
    beta: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The Q-Score regulariser in one pass: loss `[]`, scores `[N]` and column L1 norms `[D]`.

    `loss = -lambda1 mean_i(1[Q_i < alpha] Q_i) + lambda2 sum_k(1[c_k > beta] c_k)`, `c_k = ||H_:k||_1`
    (Kalibhat et al., equations 2 and 3). Add it to a self-supervised loss.

    Args:
        h, discriminative, eps, normalize, two_sided: as for `qscore`; h holds the batch, all views.
        lambda1, lambda2: weights, >= 0.
        alpha, beta: thresholds as tensors of one number in the dtype of the scores, constants: they must not
            require grad; the batch
            means of the scores and of the norms by default.

    Returns:
        All three are differentiable once in h, in reverse mode; a NaN row makes the loss NaN.

    Examples:
        >>> import torch, ssl_kernels
        >>> h = torch.randn(64, 512, requires_grad=True)
        >>> loss, q, columns = ssl_kernels.qscore_penalty(h, torch.arange(512) % 2 == 0, eps=2.0)
        >>> loss.backward(); h.grad.shape
        torch.Size([64, 512])
    """
    return _ops.qscore_penalty(h, discriminative, lambda1, lambda2, eps, normalize, two_sided, alpha, beta)


@torch.library.register_fake("sslk::qscore")
def _(h: Tensor, discriminative: Tensor, eps: float = 4.0, normalize: bool = True, two_sided: bool = False) -> Tensor:
    checks.qscore(h, discriminative, eps, normalize, two_sided)
    return h.new_empty(h.shape[0], dtype=checks.accumulation(h))


@torch.library.register_fake("sslk::qscore_counts")
def _(
    h: Tensor, discriminative: Tensor, eps: float = 4.0, normalize: bool = True, two_sided: bool = False
) -> tuple[Tensor, Tensor]:
    checks.qscore_counts(h, discriminative, eps, normalize, two_sided)
    return h.new_empty(h.shape[0], dtype=checks.accumulation(h)), h.new_empty(h.shape[0], dtype=torch.int32)


@torch.library.register_fake("sslk::qscore_backward")
def _(grad: Tensor, h: Tensor, discriminative: Tensor, eps: float, normalize: bool, two_sided: bool) -> Tensor:
    checks.qscore_backward(grad, h, discriminative, eps, normalize, two_sided)
    return h.new_empty(h.shape)


@torch.library.register_fake("sslk::activating_mask")
def _(h: Tensor, eps: float = 4.0, two_sided: bool = False) -> Tensor:
    checks.activating_mask(h, eps, two_sided)
    return h.new_empty(h.shape, dtype=torch.bool)


@torch.library.register_fake("sslk::activation_counts")
def _(h: Tensor, eps: float = 4.0, two_sided: bool = False) -> tuple[Tensor, Tensor]:
    checks.activation_counts(h, eps, two_sided)
    return h.new_empty(h.shape[1], dtype=torch.int64), h.new_empty(h.shape[0], dtype=torch.int32)


@torch.library.register_fake("sslk::row_moments")
def _(h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    checks.row_moments(h)
    mean, std, norm = (h.new_empty(h.shape[0], dtype=checks.accumulation(h)) for _ in range(3))
    return mean, std, norm


@torch.library.register_fake("sslk::column_l1")
def _(h: Tensor, normalize: bool = True) -> Tensor:
    checks.column_l1(h, normalize)
    return h.new_empty(h.shape[1], dtype=checks.accumulation(h))


@torch.library.register_fake("sslk::column_l1_backward")
def _(grad: Tensor, h: Tensor, normalize: bool) -> Tensor:
    checks.column_l1_backward(grad, h, normalize)
    return h.new_empty(h.shape)


@torch.library.register_fake("sslk::qscore_penalty")
def _(
    h: Tensor,
    discriminative: Tensor,
    lambda1: float = 1e-4,
    lambda2: float = 1e-4,
    eps: float = 4.0,
    normalize: bool = True,
    two_sided: bool = False,
    alpha: Tensor | None = None,
    beta: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    checks.qscore_penalty(h, discriminative, lambda1, lambda2, eps, normalize, two_sided, alpha, beta)
    dtype = checks.accumulation(h)
    return h.new_empty((), dtype=dtype), h.new_empty(h.shape[0], dtype=dtype), h.new_empty(h.shape[1], dtype=dtype)


@torch.library.register_fake("sslk::qscore_penalty_backward")
def _(
    grad_q: Tensor, grad_column_l1: Tensor, h: Tensor, discriminative: Tensor, eps: float, normalize: bool, two_sided: bool
) -> Tensor:
    checks.qscore_penalty_backward(grad_q, grad_column_l1, h, discriminative, eps, normalize, two_sided)
    return h.new_empty(h.shape)


def _qscore_setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    h, discriminative, ctx.eps, ctx.normalize, ctx.two_sided = inputs
    ctx.save_for_backward(h, discriminative)
    ctx.save_for_forward(h, discriminative)


def _qscore_backward(ctx: Any, grad: Tensor) -> tuple:
    h, discriminative = ctx.saved_tensors
    return _ops.qscore_backward(grad, h, discriminative, ctx.eps, ctx.normalize, ctx.two_sided), None, None, None, None


def _qscore_jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
    """Rows do not depend on each other: the gradient of their sum is that of each."""
    h, discriminative = ctx.saved_tensors
    h = h.to(checks.accumulation(h))
    gradient = _ops.qscore_backward(h.new_ones(len(h)), h, discriminative, ctx.eps, ctx.normalize, ctx.two_sided)
    return (gradient * tangent).sum(1)


def _rows_of_all(places: tuple[int, ...], apply: Any, info: Any, in_dims: tuple, *arguments: Any) -> tuple:
    """vmap of an op on independent rows: the rows of the whole batch in one call, unless the set is batched too."""
    if any(d is not None for i, d in enumerate(in_dims) if i not in places):
        return derivatives.one_by_one(apply, info, in_dims, *arguments)
    flat = list(arguments)
    for i in places:
        t, d = arguments[i], in_dims[i]
        t = t.expand(info.batch_size, *t.shape) if d is None else t.movedim(d, 0)
        rows = t.shape[1]
        flat[i] = t.flatten(0, 1)
    return apply(*flat).unflatten(0, (info.batch_size, rows)), 0


derivatives.differentiable("qscore", _qscore_setup, _qscore_backward, _qscore_jvp, functools.partial(_rows_of_all, (0,)))
derivatives.first_order("qscore_backward", "qscore", functools.partial(_rows_of_all, (0, 1)))


def _column_l1_setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    h, ctx.normalize = inputs
    ctx.save_for_backward(h)
    ctx.save_for_forward(h)


def _column_l1_backward(ctx: Any, grad: Tensor) -> tuple:
    (h,) = ctx.saved_tensors
    return _ops.column_l1_backward(grad, h, ctx.normalize), None


def _column_l1_jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
    """`sum_i sign(u_ij) du_ij` with `u = h / |h|`, `du = (dh - u <u, dh>) / |h|`; the second term only above the floor."""
    (h,) = ctx.saved_tensors
    dtype, h, tangent = checks.accumulation(h), h.double(), tangent.double()  # the norm of a float row may exceed float
    if not ctx.normalize:
        return (h.sign() * tangent).sum(0).to(dtype)
    norm = _ops.row_moments(h)[2].unsqueeze(1)
    u, tangent = h / norm.clamp_min(_NORM_FLOOR), tangent / norm.clamp_min(_NORM_FLOOR)
    along = torch.where(norm <= _NORM_FLOOR, 0.0, (u * tangent).sum(1, keepdim=True))
    return (h.sign() * tangent - u.abs() * along).sum(0).to(dtype)


derivatives.differentiable("column_l1", _column_l1_setup, _column_l1_backward, _column_l1_jvp)
derivatives.first_order("column_l1_backward", "column_l1")


def _penalty_setup(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    h, discriminative, ctx.lambda1, ctx.lambda2, ctx.eps, ctx.normalize, ctx.two_sided, alpha, beta = inputs
    for name, needs_grad in zip(("alpha", "beta"), ctx.needs_input_grad[7:9], strict=True):
        if needs_grad:
            raise RuntimeError(f"sslk::qscore_penalty: {name} is a constant and must not require grad; detach it.")
    _, q, columns = output
    # The scores and norms are N + D numbers; computing them again would be another pass over h.
    ctx.save_for_backward(h, discriminative, q, columns, alpha, beta)


def _mean(values: Tensor) -> Tensor:
    """As the kernel of the loss forms it: in double, of smaller numbers where the sum overflows, within their range."""
    if not len(values):
        return values.new_zeros(())
    wide = values.double()
    mean = wide.mean()
    mean = torch.where(mean.isinf(), (wide * 2.0**-64).mean() * 2.0**64, mean)
    return mean.clamp(wide.min(), wide.max())


def _penalty_backward(ctx: Any, grad_loss: Tensor, grad_q: Tensor, grad_columns: Tensor) -> tuple:
    h, discriminative, q, columns, alpha, beta = ctx.saved_tensors
    alpha = _mean(q) if alpha is None else alpha
    beta = _mean(columns) if beta is None else beta
    grad_q = grad_q + torch.where(q.double() < alpha, grad_loss * (-ctx.lambda1 / max(q.shape[0], 1)), 0.0)
    grad_columns = grad_columns + torch.where(columns.double() > beta, grad_loss * ctx.lambda2, 0.0)
    grad_h = _ops.qscore_penalty_backward(grad_q, grad_columns, h, discriminative, ctx.eps, ctx.normalize, ctx.two_sided)
    return grad_h, *([None] * 8)


derivatives.differentiable("qscore_penalty", _penalty_setup, _penalty_backward)
derivatives.first_order("qscore_penalty_backward", "qscore_penalty")
derivatives.constant("qscore_counts")
derivatives.constant("row_moments")
