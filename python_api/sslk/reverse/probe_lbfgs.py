"""Softmax regression on sparse concepts to convergence, by L-BFGS on all training rows at once."""

from __future__ import annotations

import numpy as np
import torch

from sslk.reverse.probe import ProbeSettings, TiledWeights, bag
from sslk.reverse.sparse_batches import Batches


def minimise(weights: TiledWeights, train: Batches, settings: ProbeSettings) -> int:
    """Minimise mean cross-entropy plus `weight_decay / 2` times the squared norm, in place; returns the iterations.

    Raises:
        ValueError: settings.iterations did not suffice for a gradient below 1e-5.
    """
    from scipy.optimize import minimize

    batch = train.whole()
    parameters = (weights.weight, weights.bias)
    shapes = [tuple(part.shape) for part in parameters]
    split = weights.weight.numel()

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        for part, values in zip(parameters, np.split(flat, [split]), strict=True):
            part.copy_(torch.from_numpy(values).view(part.shape))
        errors, loss = weights.errors(batch)
        errors.div_(len(train))
        gradient = torch.stack([bag(batch.rows, error, batch.column_offsets) for error in errors])
        gradients = (gradient, errors.sum(1, keepdim=True))
        pieces = [
            (g + settings.weight_decay * p).double().flatten() for g, p in zip(gradients, parameters, strict=True)
        ]
        penalty = 0.5 * settings.weight_decay * sum(float(part.double().square().sum()) for part in parameters)
        return float(loss) / len(train) + penalty, torch.cat(pieces).cpu().numpy()

    start = np.zeros(sum(int(np.prod(shape)) for shape in shapes))
    options = {
        "maxiter": settings.iterations,
        "maxfun": 2 * settings.iterations,
        "maxcor": 20,
        "ftol": 0.0,
        "gtol": 1e-6,
    }
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    objective(found.x)
    largest = float(np.abs(found.jac).max())
    if largest > 1e-4:
        raise ValueError(
            f"iterations must suffice for convergence, but after {found.nit} the largest gradient is {largest:.1e}: "
            f"raise iterations={settings.iterations} or weight_decay={settings.weight_decay}."
        )
    return int(found.nit)
