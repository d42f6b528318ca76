"""Settings of the probes; importing them loads no torch."""

from __future__ import annotations

from dataclasses import dataclass

LEARNING_RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
WEIGHT_DECAYS = (0.0, 1e-3, 1e-2, 1e-1)
NEIGHBORS = (1, 5, 10, 20, 50, 100, 200)
TEMPERATURES = (0.07, 0.2)
# Penalties to choose from. On the embedded sample (D = 256) 3e-2 is best for 2,000 rows and 3e-1 for 230; 1e-4 loses 6.6
# and 3 points to them.
PENALTIES = (1e-4, 3e-3, 3e-2, 3e-1)


@dataclass(frozen=True)
class LinearSettings:
    """A grid of linear classifiers, trained in one pass by SGD.

    Attributes:
        epochs: passes over the training set.
        batch_size: rows per step.
        learning_rates: learning rates of the grid.
        weight_decays: weight decays of the grid.
        validation_share: share of the training set that chooses the setting.
        seed: seed of the split and the order.
    """

    epochs: int = 100
    batch_size: int = 256
    learning_rates: tuple[float, ...] = LEARNING_RATES
    weight_decays: tuple[float, ...] = WEIGHT_DECAYS
    validation_share: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class KnnSettings:
    """A grid of k and temperature, from one search.

    Attributes:
        neighbors: grid of k.
        temperatures: grid of temperatures.
        validation_share: share of the training set that chooses k and temperature.
        seed: seed of the split.
    """

    neighbors: tuple[int, ...] = NEIGHBORS
    temperatures: tuple[float, ...] = TEMPERATURES
    validation_share: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class KFoldSettings:
    """Folds, and the penalties to choose from within each.

    Attributes:
        folds: number of folds.
        l2: penalties to choose from within each fold; scikit-learn's C is 1 / (l2 samples).
        seed: seed of the folds.
        tolerance: how far a probe's loss may lie above the least possible, in nats.
        max_iterations: evaluations of loss and gradient at most.
    """

    folds: int = 5
    l2: tuple[float, ...] = PENALTIES
    seed: int = 0
    tolerance: float = 1e-4
    max_iterations: int = 1000


@dataclass(frozen=True)
class FitSettings:
    """How many logistic regressions are trained at once.

    Attributes:
        standardize: give every feature zero mean and unit deviation over the probe's own rows; constant ones stay 0.
        tolerance: a probe is done when its loss is within this of the least possible, in nats: the bound is
            `|dW|^2 / (2 l2)` for the weights, and the gradient times the distance for biases and where l2 is 0.
        max_iterations: evaluations of loss and gradient at most.
    """

    standardize: bool = True
    tolerance: float = 1e-4
    max_iterations: int = 1000
