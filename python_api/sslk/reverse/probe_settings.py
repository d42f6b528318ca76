"""Settings of the predictor from concepts to clusters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ProbeSettings:
    """Settings of the predictor; the defaults are the paper's.

    Attributes:
        solver: `sgd` as in the paper, or `lbfgs` to convergence on the training rows.
        epochs: of SGD, at most; the one of least validation cross-entropy counts.
        batch_size: rows per step.
        learning_rate: divided by 10 after 60 % and after 80 % of the epochs.
        momentum, weight_decay: of SGD; weight_decay is L2, on weights and biases, for both solvers.
        iterations: of L-BFGS, at most.
        seed: of splits and orders.
        device: where it runs.
    """

    solver: Literal["sgd", "lbfgs"] = "sgd"
    epochs: int = 100
    batch_size: int = 512
    learning_rate: float = 3.5
    momentum: float = 0.9
    weight_decay: float = 3e-6
    iterations: int = 500
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.solver not in ("sgd", "lbfgs"):
            raise ValueError(f"solver must be 'sgd' or 'lbfgs', got {self.solver!r}.")
        for name in ("epochs", "batch_size", "iterations", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")
