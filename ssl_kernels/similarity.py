"""The similarity ops: CKA and CCA between representations of the same samples.

Each documented function calls `torch.ops.sslk.<name>` of the same signature; below them stand their fakes, gradients
(each backward an op of its own, saving nothing but the inputs) and autocast rules (float32).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ssl_kernels import checks, derivatives

_ops = torch.ops.sslk


def linear_cka(x: Tensor, y: Tensor, debiased: bool = True) -> Tensor:
    """Linear centred kernel alignment of B pairs of representations.

    `CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))` with `K = X X'`, `L = Y Y'` (Kornblith et al., ICML 2019).
    Debiased, HSIC is the unbiased estimator of Song et al. (JMLR 2012), as in Nguyen et al. (ICLR 2021): independent
    representations score about 0, some below, where the biased value tends to 1 as features outnumber samples.

    Args:
        x: `[B, N, D1]`, N samples in rows, any strides; float64, float32, float16 or bfloat16.
        y: `[B, N, D2]`, the same samples, dtype and device.
        debiased: the unbiased estimator, N >= 4; else the biased one, N >= 2.

    Returns:
        `[B]`, float32 (float64 for float64 inputs), never clamped; NaN where a representation is constant or not
        finite, or debiased where no two samples have anything in common (all but one equal, or all orthogonal, as one-hot
        rows). Invariant to orthogonal maps, scale and offset: columns are centred in double before anything is
        multiplied, so offsets cost no precision. Products of narrower types are of float32; where a debiased norm is the
        small difference of large terms (samples far from the rest, or few of very many features) all is computed once
        more from float64 copies; on CUDA the host waits to see it, and a captured graph keeps float32. Differentiable
        once. Deterministic for a fixed number of threads.

    Raises:
        RuntimeError: x or y has the wrong shape, dtype or device, or too few samples.

    Examples:
        >>> import torch, ssl_kernels
        >>> x = torch.randn(1, 100, 8, generator=torch.Generator().manual_seed(0))
        >>> round(ssl_kernels.linear_cka(x, 3.0 * x.flip(2) + 1.0).item(), 5)
        1.0
    """
    return _ops.linear_cka(x, y, debiased)


def cka_matrix(x: Tensor, debiased: bool = True) -> Tensor:
    """Linear CKA between all pairs of V representations of the same samples; see `linear_cka`.

    Each of the V (V + 1) / 2 block products `X_v' X_w` is formed once, a panel of centred rows at a time; where the
    samples are fewer than the features, the V Gram matrices `X_v X_v'` are formed instead.

    Args:
        x: `[V, N, D]`, any strides; float64, float32, float16 or bfloat16.
        debiased: the unbiased estimator, N >= 4; else the biased one, N >= 2.

    Returns:
        `[V, V]`, float32 (float64 for float64 input): exactly symmetric, 1 on the diagonal, never clamped; NaN in the
        row and column of a representation that `linear_cka` has none for. Differentiable once. Deterministic for a
        fixed number of threads.

    Raises:
        RuntimeError: x has the wrong shape or dtype, or too few samples.

    Examples:
        >>> import torch, ssl_kernels
        >>> x = torch.randn(3, 500, 16, generator=torch.Generator().manual_seed(0))
        >>> cka = ssl_kernels.cka_matrix(x)
        >>> cka.shape, bool((cka.diagonal() == 1).all()), bool((cka - torch.eye(3)).abs().max() < 0.05)
        (torch.Size([3, 3]), True, True)
    """
    return _ops.cka_matrix(x, debiased)


def cca_matrix(x: Tensor, rtol: float | None = None, ridge: float = 0.0) -> tuple[Tensor, Tensor]:
    """Mean squared canonical correlation between all pairs of V representations, and their ranks.

    `R2 = ||Q_v' Q_w||_F^2 / min(rank_v, rank_w)` with Q an orthonormal basis of the centred columns. One factorisation
    per representation: a QR decomposition in float64, built up over panels of rows, and the SVD of its factor (of the
    data itself where N <= D), so that the condition number is never squared.

    Args:
        x: `[V, N, D]`, any strides; float64, float32, float16 or bfloat16. N >= 2.
        rtol: singular values up to `rtol` times the largest do not count towards the rank. By default
            `10 sqrt(max(N, D)) eps`, eps being that of float64 for float64 input and of float32 otherwise: above the
            rounding of columns that depend on each other, and less harsh on large N than `max(N, D) eps`.
        ridge: regularisation in units of the mean variance of the features: `C + ridge tr(C)/D I` takes the place of
            each covariance C. Scale-invariant.

    Returns:
        `[V, V]`, float32 (float64 for float64 input), and the ranks, int64 `[V]`. Exactly symmetric; without ridge,
        exactly 1 on the diagonal. A representation that is constant or not finite has rank 0 and NaN in its row and
        column. Not differentiable. Deterministic for a fixed number of threads.

    Raises:
        RuntimeError: x has the wrong shape or dtype or fewer than 2 samples; rtol or ridge is out of range.

    Examples:
        >>> import torch, ssl_kernels
        >>> x = torch.randn(1, 50, 4, generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1)
        >>> x[1, :, 3] = x[1, :, 0] - x[1, :, 1]
        >>> ssl_kernels.cca_matrix(x)
        (tensor([[1., 1.],
                [1., 1.]]), tensor([4, 3]))
    """
    return _ops.cca_matrix(x, rtol, ridge)


@torch.library.register_fake("sslk::linear_cka")
def _(x: Tensor, y: Tensor, debiased: bool = True) -> Tensor:
    checks.linear_cka(x, y, debiased)
    return x.new_empty(x.shape[0], dtype=checks.accumulation(x))


@torch.library.register_fake("sslk::linear_cka_backward")
def _(grad: Tensor, x: Tensor, y: Tensor, debiased: bool) -> tuple[Tensor, Tensor]:
    checks.linear_cka_backward(grad, x, y, debiased)
    return x.new_empty(x.shape), y.new_empty(y.shape)


@torch.library.register_fake("sslk::cka_matrix")
def _(x: Tensor, debiased: bool = True) -> Tensor:
    checks.cka_matrix(x, debiased)
    return x.new_empty((x.shape[0], x.shape[0]), dtype=checks.accumulation(x))


@torch.library.register_fake("sslk::cka_matrix_backward")
def _(grad: Tensor, x: Tensor, debiased: bool) -> Tensor:
    checks.cka_matrix_backward(grad, x, debiased)
    return x.new_empty(x.shape)


@torch.library.register_fake("sslk::cca_matrix")
def _(x: Tensor, rtol: float | None = None, ridge: float = 0.0) -> tuple[Tensor, Tensor]:
    checks.cca_matrix(x, rtol, ridge)
    count = x.shape[0]
    return x.new_empty((count, count), dtype=checks.accumulation(x)), x.new_empty(count, dtype=torch.int64)


def _linear_cka_setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, y, ctx.debiased = inputs
    ctx.save_for_backward(x, y)


def _linear_cka_backward(ctx: Any, grad: Tensor) -> tuple:
    x, y = ctx.saved_tensors
    return *_ops.linear_cka_backward(grad, x, y, ctx.debiased), None


derivatives.differentiable("linear_cka", _linear_cka_setup, _linear_cka_backward)
derivatives.first_order("linear_cka_backward", "linear_cka")


def _cka_matrix_setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, ctx.debiased = inputs
    ctx.save_for_backward(x)


def _cka_matrix_backward(ctx: Any, grad: Tensor) -> tuple:
    (x,) = ctx.saved_tensors
    return _ops.cka_matrix_backward(grad, x, ctx.debiased), None


derivatives.differentiable("cka_matrix", _cka_matrix_setup, _cka_matrix_backward)
derivatives.first_order("cka_matrix_backward", "cka_matrix")
derivatives.constant("cca_matrix")

for _name in ("linear_cka", "cka_matrix", "cca_matrix"):
    for _device in ("cpu", "cuda"):
        torch.library.register_autocast(f"sslk::{_name}", _device, torch.float32)
