"""The similarity ops: CKA and CCA between representations of the same samples."""

from __future__ import annotations

import torch
from torch import Tensor

_MOST_CANCELLED = 32.0  # as csrc/similarity/cancellation.h: terms of a debiased norm, relative to it, that float32 serves


def _centred(x: Tensor) -> Tensor:
    """Columns minus their means, at least in float32, scaled to order 1: every similarity is scale-invariant."""
    x = x if x.dtype == torch.float64 else x.float()
    shifted = x - x[..., :1, :].detach()
    shifted = shifted - shifted.mean(dim=-2, keepdim=True)
    largest = shifted.detach().abs().amax(dim=(-2, -1), keepdim=True)
    return shifted / torch.where((largest > 0) & largest.isfinite(), largest, 1.0)


def _hsic(x: Tensor, y: Tensor, debiased: bool) -> tuple[Tensor, Tensor]:
    """HSIC of centred `[..., N, D1]` and `[..., N, D2]`, up to a factor of N, and what it adds up in absolute value.

    Debiased, the streaming form of HSIC_1 where the column sums are zero, with `a_i = |x_i|^2` and `b_i = |y_i|^2`: no
    N x N matrix.
    """
    squares = (x.mT @ y).square().sum(dim=(-2, -1))
    if not debiased:
        return squares, squares
    n = x.shape[-2]
    a, b = x.square().sum(dim=-1), y.square().sum(dim=-1)
    added = squares + a.sum(dim=-1) * b.sum(dim=-1) / ((n - 1) * (n - 2))
    taken = n / (n - 2) * (a * b).sum(dim=-1)
    return added - taken, added + taken


def _cancels(own: list[tuple[Tensor, Tensor]]) -> bool:
    if torch.compiler.is_compiling():
        return False
    try:
        return any(bool((terms > _MOST_CANCELLED * h).any()) for h, terms in own)
    except RuntimeError:
        return False


def linear_cka(x: Tensor, y: Tensor, debiased: bool = True) -> Tensor:
    """`HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))` of B pairs of representations, `[B]`.

    Once more in float64, where the device has it, if so much of a norm cancels that float32 would show it; not where there
    are no numbers to look at (`torch.func.vmap`, a graph, meta tensors).
    """
    z, w = _centred(x), _centred(y)
    own = [_hsic(part, part, debiased) for part in (z, w)]
    if debiased and z.dtype != torch.float64 and z.device.type != "mps" and _cancels(own):
        return linear_cka(x.double(), y.double(), debiased).to(z.dtype)
    rounding = (64 + (sum(x.shape[-2:]) if z.dtype == torch.float64 else 0)) * torch.finfo(z.dtype).eps
    norms = torch.stack([torch.where(h <= rounding * t, 0.0, h).sqrt() for h, t in own]).prod(dim=0)
    return torch.where(norms > 0, _hsic(z, w, debiased)[0] / norms, torch.nan)


def linear_cka_backward(grad: Tensor, x: Tensor, y: Tensor, debiased: bool) -> tuple[Tensor, Tensor]:
    """Gradient of `linear_cka` in both."""
    with torch.enable_grad():
        leaves = (x.detach().requires_grad_(), y.detach().requires_grad_())
        grad_x, grad_y = torch.autograd.grad(linear_cka(*leaves, debiased), leaves, grad)
    return grad_x, grad_y


def cka_matrix(x: Tensor, debiased: bool = True) -> Tensor:
    """`linear_cka` of all pairs, `[V, V]`, the upper triangle mirrored and the diagonal 1."""
    count = x.shape[0]
    rows, columns = torch.triu_indices(count, count, offset=1, device=x.device)
    upper = linear_cka(x[rows], x[columns], debiased)
    own = linear_cka(x, x, debiased).detach()
    matrix = torch.diag(torch.where(own.isnan(), own, 1.0)).to(upper.dtype)
    return matrix.index_put((rows, columns), upper).index_put((columns, rows), upper)


def cka_matrix_backward(grad: Tensor, x: Tensor, debiased: bool) -> Tensor:
    """Gradient of `cka_matrix`."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad(cka_matrix(leaf, debiased), leaf, grad)[0]


def cca_matrix(x: Tensor, rtol: float | None = None, ridge: float = 0.0) -> tuple[Tensor, Tensor]:
    """`||Q_v' Q_w||_F^2 / min(rank)` from the SVD of each centred representation, and the ranks."""
    scores = torch.float64 if x.dtype == torch.float64 else torch.float32
    count, n, d = x.shape
    tolerance = min(0.5, 10 * torch.finfo(scores).eps * max(n, d) ** 0.5) if rtol is None else rtol
    bases = []
    for representation in x.double():
        z = _centred(representation)
        if not bool(z.isfinite().all()):
            bases.append(z[:, :0])
            continue
        u, s, _ = torch.linalg.svd(z, full_matrices=False)
        rank = min(int((s > tolerance * s[0]).sum()), n - 1)
        factors = s / (s.square() + ridge * s.square().sum() / d).sqrt()
        bases.append((u * factors)[:, :rank])
    matrix = x.new_full((count, count), torch.nan, dtype=torch.float64)
    for v, q in enumerate(bases):
        for w, p in enumerate(bases[: v + 1]):
            rank = min(q.shape[1], p.shape[1])
            if rank:
                same = v == w and ridge == 0
                matrix[v, w] = matrix[w, v] = 1.0 if same else (q.mT @ p).square().sum().clamp_max(rank) / rank
    return matrix.to(scores), torch.tensor([q.shape[1] for q in bases], device=x.device, dtype=torch.int64)
