"""Float64 oracles of the row ops, written row by row from the equations in numpy; they share no code with the library."""

import math

import numpy as np
import torch


def _row(values: np.ndarray) -> tuple[np.ndarray, float, float, float]:
    """Deviations from the mean, mean, population deviation and norm, with sums that do not round (math.fsum)."""
    n = len(values)
    mean = math.fsum(values) / n
    deviations = np.array([math.fsum((v, -mean)) for v in values])
    std = math.sqrt(math.fsum(d * d for d in deviations) / n)
    norm = math.sqrt(math.fsum(v * v for v in values))
    return deviations, mean, std, norm


def active_set(h: torch.Tensor, eps: float, two_sided: bool = False) -> torch.Tensor:
    """L_i as a bool mask [N, D]."""
    mask = np.zeros(tuple(h.shape), dtype=bool)
    for i, values in enumerate(h.detach().cpu().double().numpy()):
        if np.isfinite(values).all() and values.min() != values.max():  # in a constant row nothing exceeds the mean
            deviations, _, std, _ = _row(values)
            mask[i] = (np.abs(deviations) if two_sided else deviations) > eps * std
    return torch.from_numpy(mask)


def scores(
    h: torch.Tensor, discriminative: torch.Tensor, eps: float, normalize: bool = True, two_sided: bool = False
) -> torch.Tensor:
    """Q_i of equation (1), float64 [N]."""
    active = (active_set(h, eps, two_sided) & discriminative.cpu()).numpy()
    out = np.zeros(len(h))
    for i, values in enumerate(h.detach().cpu().double().numpy()):
        if not np.isfinite(values).all():
            out[i] = np.nan
        elif active[i].any():
            deviations, _, _, norm = _row(values)
            chosen = deviations[active[i]]
            out[i] = (np.abs(chosen) if two_sided else chosen).mean() / (max(norm, 1e-12) if normalize else 1.0)
    return torch.from_numpy(out)


def score_gradient(
    grad: torch.Tensor, h: torch.Tensor, discriminative: torch.Tensor, eps: float, normalize: bool, two_sided: bool
) -> torch.Tensor:
    """d(grad . Q)/dh by the chain rule of the spec: dQ/dh_k = 1[k in set]/|set| - 1/D, then through h = x/|x|."""
    active = (active_set(h, eps, two_sided) & discriminative.cpu()).numpy()
    x = h.detach().cpu().double().numpy()
    out = np.zeros_like(x)
    for i, values in enumerate(x):
        if not np.isfinite(values).all():
            out[i] = np.nan
            continue
        count = active[i].sum()
        if count == 0:
            continue
        deviations, _, _, norm = _row(values)
        direction = np.where(active[i], np.sign(deviations) if two_sided else 1.0, 0.0)
        g = float(grad[i]) * (direction / count - direction.sum() / count / len(values))
        if normalize:
            unit = values / max(norm, 1e-12)
            g = (g - (unit * (g @ unit) if norm > 1e-12 else 0.0)) / max(norm, 1e-12)
        out[i] = g
    return torch.from_numpy(out)


def column_norms(h: torch.Tensor, normalize: bool = True) -> torch.Tensor:
    """||H_:k||_1, float64 [D]."""
    x = h.detach().cpu().double().numpy()
    if normalize:
        x = np.stack([row / max(_row(row)[3], 1e-12) for row in x]) if len(x) else x
    return torch.from_numpy(np.array([math.fsum(abs(v) for v in column) for column in x.T]))


def column_gradient(grad: torch.Tensor, h: torch.Tensor, normalize: bool) -> torch.Tensor:
    """d(grad . c)/dh."""
    x, g = h.detach().cpu().double().numpy(), grad.cpu().double().numpy()
    out = np.zeros_like(x)
    for i, values in enumerate(x):
        direct = g * np.sign(values)
        if normalize:
            norm = _row(values)[3]
            unit = values / max(norm, 1e-12)
            direct = (direct - (unit * (direct @ unit) if norm > 1e-12 else 0.0)) / max(norm, 1e-12)
        out[i] = direct
    return torch.from_numpy(out)


def penalty(q: np.ndarray, c: np.ndarray, lambda1: float, lambda2: float, alpha: float, beta: float) -> float:
    """Equations (2)-(3), without the SSL loss."""
    low = sum(v for v in q if v < alpha) / max(len(q), 1)
    return -lambda1 * low + lambda2 * sum(v for v in c if v > beta)
