"""Rows on which the package and the oracles are compared: float32, as a store has them; the oracles read the same numbers."""

import numpy as np


def _rows() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(11)
    plain = rng.normal(size=(130, 24))
    relu = np.maximum(plain, 0)
    relu[:, [3, 17]] = 0
    power = rng.normal(size=(150, 104)) * np.arange(1, 105) ** -0.6
    return {
        "random": plain,
        "relu, two dead": relu,
        "power law": power,
        "far from zero": 100 + plain,
        "low rank": rng.normal(size=(90, 5)) @ rng.normal(size=(5, 30)),
        "wide": rng.normal(size=(20, 64)),
        "tiny": rng.normal(size=(5, 3)),
        "copies": np.repeat(rng.normal(size=(25, 8)), 4, axis=0),
        "small": 1e-4 * plain,
        "large": 1e4 * plain,
        "scales apart": plain * 10.0 ** np.linspace(-2, 2, 24),
        "one column": rng.normal(size=(40, 1)),
    }


ROWS = {name: rows.astype(np.float32) for name, rows in _rows().items()}
CONSTANT = np.full((30, 6), 1.5, dtype=np.float32)
