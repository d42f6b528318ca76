"""Settings of the probes; importing them loads no torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, TypeVar

S = TypeVar("S")

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
class MultiLabelSettings:
    """One-vs-rest logistic regressions of several labels an image.

    Attributes:
        l2: penalties, of which one for all classes is chosen on validation data; scikit-learn's C is 1 / (l2 samples).
        validation_share: share of the training set that chooses the penalty.
        seed: seed of the split and the resamples.
        resamples: resamples of the test images, for the 95 % intervals.
        tolerance: how far a regression's loss may lie above the least possible, in nats.
        max_iterations: evaluations of loss and gradient at most.
    """

    l2: tuple[float, ...] = PENALTIES
    validation_share: float = 0.2
    seed: int = 0
    resamples: int = 1000
    tolerance: float = 1e-4
    max_iterations: int = 1000

    def __post_init__(self) -> None:
        if not self.l2 or not all(0 <= value < float("inf") for value in self.l2):
            raise ValueError(f"l2 must be penalties of zero or more, got {self.l2}.")
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share must lie between 0 and 1, got {self.validation_share}.")
        if self.resamples < 2:
            raise ValueError(f"resamples must be at least 2, got {self.resamples}.")


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


def changed(settings: S, changes: Mapping[str, Any], function: str) -> S:
    """Settings with some of their fields given by name, as in `linear_probe(train, test, epochs=20)`.

    Args:
        settings: a settings dataclass.
        changes: values by field; one number where several may be given counts as a grid of one.
        function: what was called, for the errors.

    Raises:
        TypeError: there is no such setting, or it is no number where one is needed.

    >>> changed(KnnSettings(), {"neighbors": 20}, "knn_probe").neighbors
    (20,)
    >>> changed(LinearSettings(), {"epoch": 20}, "linear_probe")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    TypeError: linear_probe has no setting 'epoch': did you mean epochs? It has epochs, batch_size, ...
    """
    fields = vars(settings)
    values = {}
    for name, value in changes.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=3, cutoff=0.5)
            hint = f": did you mean {' or '.join(near)}?" if near else "."
            raise TypeError(f"{function} has no setting {name!r}{hint} It has {', '.join(fields)}.")
        current = fields[name]
        if isinstance(current, tuple):
            several = (value,) if isinstance(value, str | Real) else value
            values[name] = tuple(_of_kind(name, item, current[0] if current else item) for item in several)
        else:
            values[name] = _of_kind(name, value, current)
    return replace(settings, **values)  # type: ignore[type-var]


def _of_kind(name: str, value: Any, current: Any) -> Any:
    """The value; text is refused where the present value is a number, and 2.5 where it is a whole one."""
    if not isinstance(current, Real) or isinstance(current, bool):
        return value
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r:.60}.")
    if not isinstance(current, int):
        return float(value)
    if not float(value).is_integer():
        raise TypeError(f"{name} must be a whole number, got {value!r}.")
    return int(value)
