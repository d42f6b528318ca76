"""Shapes and dtypes of every op without its values: what torch.compile and meta tensors see."""

import torch
from torch import Tensor


def _accumulation(h: Tensor) -> torch.dtype:
    return torch.float64 if h.dtype == torch.float64 else torch.float32


def _check(h: Tensor) -> None:
    torch._check(h.dim() == 2, lambda: f"h must be a matrix [N, D], got {h.dim()} dimensions.")
    torch._check(h.dtype.is_floating_point, lambda: f"h must be floating point, got {h.dtype}.")


@torch.library.register_fake("sslk::qscore")
def _(h: Tensor, discriminative: Tensor, eps: float = 4.0, normalize: bool = True, two_sided: bool = False) -> Tensor:
    _check(h)
    return h.new_empty(h.shape[0], dtype=_accumulation(h))


@torch.library.register_fake("sslk::qscore_backward")
def _(grad: Tensor, h: Tensor, discriminative: Tensor, eps: float, normalize: bool, two_sided: bool) -> Tensor:
    return h.new_empty(h.shape)


@torch.library.register_fake("sslk::activating_mask")
def _(h: Tensor, eps: float = 4.0, two_sided: bool = False) -> Tensor:
    _check(h)
    return h.new_empty(h.shape, dtype=torch.bool)


@torch.library.register_fake("sslk::activation_counts")
def _(h: Tensor, eps: float = 4.0, two_sided: bool = False) -> tuple[Tensor, Tensor]:
    _check(h)
    return h.new_empty(h.shape[1], dtype=torch.int64), h.new_empty(h.shape[0], dtype=torch.int32)


@torch.library.register_fake("sslk::row_moments")
def _(h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    _check(h)
    mean, std, norm = (h.new_empty(h.shape[0], dtype=_accumulation(h)) for _ in range(3))
    return mean, std, norm


@torch.library.register_fake("sslk::column_l1")
def _(h: Tensor, normalize: bool = True) -> Tensor:
    _check(h)
    return h.new_empty(h.shape[1], dtype=_accumulation(h))


@torch.library.register_fake("sslk::column_l1_backward")
def _(grad: Tensor, h: Tensor, normalize: bool) -> Tensor:
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
    _check(h)
    dtype = _accumulation(h)
    return h.new_empty((), dtype=dtype), h.new_empty(h.shape[0], dtype=dtype), h.new_empty(h.shape[1], dtype=dtype)


@torch.library.register_fake("sslk::qscore_penalty_backward")
def _(
    grad_q: Tensor,
    grad_column_l1: Tensor,
    h: Tensor,
    discriminative: Tensor,
    eps: float,
    normalize: bool,
    two_sided: bool,
) -> Tensor:
    return h.new_empty(h.shape)
