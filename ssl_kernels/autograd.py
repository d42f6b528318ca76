"""Gradients: each backward is an op of its own, so that it compiles and fuses as one pass.

The row ops need no autocast rule: they take half inputs as they are and accumulate in float32.
"""

from typing import Any

import torch
from torch import Tensor

_ops = torch.ops.sslk


def _qscore_setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    h, discriminative, ctx.eps, ctx.normalize, ctx.two_sided = inputs
    ctx.save_for_backward(h, discriminative)


def _qscore_backward(ctx: Any, grad: Tensor) -> tuple:
    h, discriminative = ctx.saved_tensors
    return _ops.qscore_backward(grad, h, discriminative, ctx.eps, ctx.normalize, ctx.two_sided), None, None, None, None


torch.library.register_autograd("sslk::qscore", _qscore_backward, setup_context=_qscore_setup)


def _column_l1_setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    h, ctx.normalize = inputs
    ctx.save_for_backward(h)


def _column_l1_backward(ctx: Any, grad: Tensor) -> tuple:
    (h,) = ctx.saved_tensors
    return _ops.column_l1_backward(grad, h, ctx.normalize), None


torch.library.register_autograd("sslk::column_l1", _column_l1_backward, setup_context=_column_l1_setup)


def _penalty_setup(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    h, discriminative, ctx.lambda1, ctx.lambda2, ctx.eps, ctx.normalize, ctx.two_sided, alpha, beta = inputs
    _, q, columns = output
    # The scores and norms are N + D numbers; computing them again would be another pass over h.
    ctx.save_for_backward(h, discriminative, q, columns, alpha, beta)


def _penalty_backward(ctx: Any, grad_loss: Tensor, grad_q: Tensor, grad_columns: Tensor) -> tuple:
    h, discriminative, q, columns, alpha, beta = ctx.saved_tensors
    alpha = q.mean() if alpha is None else alpha
    beta = columns.mean() if beta is None else beta
    grad_q = grad_q + torch.where(q < alpha, grad_loss * (-ctx.lambda1 / max(q.shape[0], 1)), 0.0)
    grad_columns = grad_columns + torch.where(columns > beta, grad_loss * ctx.lambda2, 0.0)
    grad_h = _ops.qscore_penalty_backward(
        grad_q, grad_columns, h, discriminative, ctx.eps, ctx.normalize, ctx.two_sided
    )
    return grad_h, *([None] * 8)


torch.library.register_autograd("sslk::qscore_penalty", _penalty_backward, setup_context=_penalty_setup)
