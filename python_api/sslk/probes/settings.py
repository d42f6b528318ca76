"""Settings of the probes; importing them loads no torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Literal, TypeVar

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
class LogregSettings:
    """Logistic regression on features as they are, C chosen on held-out training rows: the protocol of DINOv2 and DINOv3.

    Attributes:
        c: values of C to choose from, as scikit-learn's; by default theirs, 45 from 1e-6 to 1e5 in equal steps of the exponent.
        metric: what chooses C: top1, or mean-per-class for sets whose classes are unequal.
        validation_share: share of every class that chooses C, one image at least, none of a class with one.
        shots: training images per class of the few-shot results; none by default.
        tries: draws of these images.
        shots_validation_share: share of every class that chooses C of a draw, which it is not drawn from.
        seed: of the split, the draws and the resamples.
        resamples: resamples of the test images, for the 95 % intervals.
        tolerance: how far weights may be from the best, relative to their norm.
        max_iterations: evaluations of loss and gradient at most, for each C.
        precision: of the arithmetic; DINOv2 and DINOv3 train in float64.
        memory: GiB of the optimiser's state at most; values of C that do not fit together are trained one after another.
        at_once: values of C trained as one batch; as many as fill a product of matrices by default.
    """

    c: tuple[float, ...] = ()
    metric: Literal["top1", "mean-per-class"] = "top1"
    validation_share: float = 0.1
    shots: tuple[int, ...] = ()
    tries: int = 5
    shots_validation_share: float = 0.01
    seed: int = 0
    resamples: int = 1000
    tolerance: float = 1e-2
    max_iterations: int = 1000
    precision: Literal["float32", "float64"] = "float32"
    memory: float = 2.0
    at_once: int | None = None

    def __post_init__(self) -> None:
        if not all(0 < value < float("inf") for value in self.c):
            raise ValueError(f"c must be values above 0, got {self.c}.")
        if self.metric not in ("top1", "mean-per-class"):
            raise ValueError(f"metric must be top1 or mean-per-class, got {self.metric!r}.")
        for name in ("validation_share", "shots_validation_share"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}.")
        if not all(shots >= 1 for shots in self.shots) or len(set(self.shots)) < len(self.shots):
            raise ValueError(f"shots must be different numbers of 1 or more, got {self.shots}.")
        for name, least in (("tries", 1), ("resamples", 2), ("max_iterations", 1), ("at_once", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}.")
        if not (self.tolerance > 0 and self.memory > 0):
            raise ValueError(f"tolerance and memory must be above 0, got {self.tolerance} and {self.memory}.")
        if self.precision not in ("float32", "float64"):
            raise ValueError(f"precision must be float32 or float64, got {self.precision!r}.")

    @property
    def strengths(self) -> list[float]:
        """The values of C, ascending.

        >>> values = LogregSettings().strengths
        >>> len(values), values[0], round(values[24], 9), values[-1]
        (45, 1e-06, 1.0, 100000.0)
        """
        return sorted(set(self.c)) or [10 ** (-6 + step / 4) for step in range(45)]


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
