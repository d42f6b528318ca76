"""Softmax regression on sparse concepts to convergence, by L-BFGS on all training rows at once."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from sslk.reverse.settings import ProbeSettings
from sslk.reverse.sparse_rows import SparseRows
from sslk.reverse.tiled_weights import TiledWeights, bag


def minimize(weights: TiledWeights, train: SparseRows, settings: ProbeSettings) -> int:
    """Minimise mean cross-entropy plus `weight_decay / 2` times the squared norm, in place; returns the iterations.

    Raises:
        ValueError: settings.iterations did not suffice for a gradient below 1e-4.
    """
    from scipy.optimize import minimize

    by_concept = train.transposed(weights.weight.shape[1])
    parameters = (weights.weight, weights.bias)
    split = weights.weight.numel()
    tiles, _, width = weights.weight.shape
    surplus = tiles * width - len(weights.bias)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        for part, values in zip(parameters, np.split(flat, [split]), strict=True):
            part.copy_(torch.from_numpy(values).view(part.shape))
        logits = weights.logits(train)
        loss = F.cross_entropy(logits, train.clusters, reduction="none").double().sum()
        errors = logits.softmax(1)
        errors[torch.arange(len(train), device=errors.device), train.clusters] -= 1
        errors.div_(len(train))
        tiled = F.pad(errors, (0, surplus)).view(len(train), tiles, width).transpose(0, 1).contiguous()
        gradients = (torch.stack([bag(by_concept[0], tile, by_concept[1]) for tile in tiled]), errors.sum(0))
        pieces = [(g + settings.weight_decay * p).double().flatten() for g, p in zip(gradients, parameters, strict=True)]
        penalty = 0.5 * settings.weight_decay * sum(float(part.double().square().sum()) for part in parameters)
        return float(loss) / len(train) + penalty, torch.cat(pieces).cpu().numpy()

    start = np.zeros(split + len(weights.bias))
    options = {"maxiter": settings.iterations, "maxfun": 2 * settings.iterations, "maxcor": 20, "ftol": 0.0, "gtol": 1e-6}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    objective(found.x)
    largest = float(np.abs(found.jac).max())
    if largest > 1e-4:
        raise ValueError(
            f"iterations must suffice for convergence, but after {found.nit} the largest gradient is {largest:.1e}: "
            f"raise iterations={settings.iterations} or weight_decay={settings.weight_decay}."
        )
    return int(found.nit)
