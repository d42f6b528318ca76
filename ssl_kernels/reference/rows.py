"""The row ops: Q-Score, highly activating features, moments and column norms of representations `[N, D]`."""

from __future__ import annotations

import torch
from torch import Tensor

NORM_FLOOR = 1e-12


def _accumulation(h: Tensor) -> Tensor:
    return h if h.dtype == torch.float64 else h.float()


def normalize_rows(h: Tensor) -> Tensor:
    """Rows divided by their L2 norm, at least 1e-12; a row with NaN or infinity becomes NaN. `[N, D] -> [N, D]`."""
    norm = torch.linalg.vector_norm(h, dim=1, keepdim=True)
    return torch.where(norm.isfinite(), h / norm.clamp_min(NORM_FLOOR), torch.nan)


def _deviations(h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Deviations from the row mean, the mean and the population standard deviation. The first element is taken off
    before summing: a constant row then has deviations of exactly zero."""
    first = h[:, :1].detach()
    shifted = h - first
    mean = shifted.mean(dim=1, keepdim=True)
    deviations = shifted - mean
    std = deviations.square().mean(dim=1, keepdim=True).sqrt()
    return deviations, mean + first, std


def _power_of_two_scale(h: Tensor) -> Tensor:
    """Brings each row's largest magnitude near 1 without rounding, so that squares neither overflow nor vanish."""
    largest = h.detach().abs().amax(dim=1, keepdim=True)
    usable = largest.isfinite() & (largest > 0)
    exponent = torch.frexp(torch.where(usable, largest, 1.0)).exponent.clamp(-120, 120)
    return torch.ldexp(torch.ones_like(largest), -exponent)


def activating_mask(h: Tensor, eps: float = 4.0, two_sided: bool = False) -> Tensor:
    """`L_i = {j : h_ij > mu_i + eps sigma_i}` as a bool mask `[N, D]`; two-sided: `|h_ij - mu_i| > eps sigma_i`."""
    h = _accumulation(h.detach())
    deviations, _, std = _deviations(h * _power_of_two_scale(h))
    magnitude = deviations.abs() if two_sided else deviations
    return (magnitude > eps * std) & h.isfinite().all(dim=1, keepdim=True)


def qscore(h: Tensor, discriminative: Tensor, eps: float = 4.0, normalize: bool = True, two_sided: bool = False) -> Tensor:
    """Equation (1): the mean of `h_ij - mu_i` over `L_i` and S; 0 where the set is empty, NaN for non-finite rows."""
    active = activating_mask(h, eps, two_sided) & discriminative
    h = _accumulation(h)
    finite = h.isfinite().all(dim=1)
    scale = _power_of_two_scale(h)
    deviations, _, _ = _deviations(h * scale)
    if normalize:
        norm = torch.linalg.vector_norm(h * scale, dim=1, keepdim=True)
        deviations = deviations / torch.maximum(norm, NORM_FLOOR * scale)
    else:
        deviations = deviations / scale
    if two_sided:
        deviations = deviations.abs()
    count = active.sum(dim=1)
    score = torch.where(active, deviations, 0.0).sum(dim=1) / count.clamp_min(1)
    return torch.where(finite, score, torch.nan)


def qscore_counts(
    h: Tensor, discriminative: Tensor, eps: float = 4.0, normalize: bool = True, two_sided: bool = False
) -> tuple[Tensor, Tensor]:
    """`qscore` and `|L_i|`, int32 `[N]`."""
    q = qscore(h.detach(), discriminative, eps, normalize, two_sided)
    return q, activating_mask(h, eps, two_sided).sum(dim=1, dtype=torch.int32)


def qscore_backward(grad: Tensor, h: Tensor, discriminative: Tensor, eps: float, normalize: bool, two_sided: bool) -> Tensor:
    """Gradient of `qscore`, the active set held constant."""
    with torch.enable_grad():
        leaf = h.detach().requires_grad_()
        return torch.autograd.grad(qscore(leaf, discriminative, eps, normalize, two_sided), leaf, grad)[0]


def activation_counts(h: Tensor, eps: float = 4.0, two_sided: bool = False) -> tuple[Tensor, Tensor]:
    """How many rows each feature activates highly in, int64 `[D]`, and how many features each row, int32 `[N]`."""
    mask = activating_mask(h, eps, two_sided)
    return mask.sum(dim=0), mask.sum(dim=1, dtype=torch.int32)


def row_moments(h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, population standard deviation and L2 norm of each row, each `[N]`; NaN for non-finite rows."""
    h = _accumulation(h.detach())
    scale = _power_of_two_scale(h)
    _, mean, std = _deviations(h * scale)
    norm = torch.linalg.vector_norm(h * scale, dim=1, keepdim=True)
    finite = h.isfinite().all(dim=1)
    mean, std, norm = (torch.where(finite, (x / scale).squeeze(1), torch.nan) for x in (mean, std, norm))
    return mean, std, norm


def column_l1(h: Tensor, normalize: bool = True) -> Tensor:
    """`||H_:k||_1` of every feature, `[D]`, over L2-normalised rows by default."""
    h = _accumulation(h)
    return (normalize_rows(h) if normalize else h).abs().sum(dim=0)


def column_l1_backward(grad: Tensor, h: Tensor, normalize: bool) -> Tensor:
    """Gradient of `column_l1`."""
    with torch.enable_grad():
        leaf = h.detach().requires_grad_()
        return torch.autograd.grad(column_l1(leaf, normalize), leaf, grad)[0]


def _mean(values: Tensor) -> Tensor:
    """In float64 and within the range of the values: none of equal ones lies above or below it."""
    wide = values.detach().double()
    return wide.mean().clamp(wide.min(), wide.max()) if len(wide) else wide.new_zeros(())


def penalty_loss(q: Tensor, columns: Tensor, lambda1: float, lambda2: float, alpha: Tensor | None, beta: Tensor | None) -> Tensor:
    """Equations (2)-(3): `-lambda1 mean_i(1[q_i < alpha] q_i) + lambda2 sum_k(1[c_k > beta] c_k)`.

    alpha and beta default to the means of q and c. The comparisons are written so that NaN stays NaN.
    """
    alpha = _mean(q) if alpha is None else alpha
    beta = _mean(columns) if beta is None else beta
    low = torch.where(q.double() >= alpha, 0.0, q).sum() / max(q.numel(), 1)
    return -lambda1 * low + lambda2 * torch.where(columns.double() <= beta, 0.0, columns).sum()


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
    """The regulariser of equation (2)-(3), the scores `[N]` and the column L1 norms `[D]`."""
    q = qscore(h, discriminative, eps, normalize, two_sided)
    columns = column_l1(h, normalize)
    return penalty_loss(q, columns, lambda1, lambda2, alpha, beta), q, columns


def qscore_penalty_backward(
    grad_q: Tensor, grad_column_l1: Tensor, h: Tensor, discriminative: Tensor, eps: float, normalize: bool, two_sided: bool
) -> Tensor:
    """Gradient of the scores plus that of the column norms."""
    with torch.enable_grad():
        leaf = h.detach().requires_grad_()
        outputs = (qscore(leaf, discriminative, eps, normalize, two_sided), column_l1(leaf, normalize))
        return torch.autograd.grad(outputs, leaf, (grad_q, grad_column_l1))[0]
