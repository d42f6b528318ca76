"""Settings of the studies of further training; importing them loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sslk.training.config import Arm

DECADES = tuple(10.0**exponent for exponent in range(-6, 1))


@dataclass(frozen=True)
class GradientSettings:
    """What the sizes of gradients are measured on.

    Attributes:
        batches: batches of the training, at least 2.
        lambdas: values at which the shares are told; the terms are linear in them.
    """

    batches: int = 16
    lambdas: tuple[float, ...] = DECADES


@dataclass(frozen=True)
class Variant:
    """One arm of a comparison.

    Attributes:
        name: of its rows and folders: letters, digits and hyphens.
        arm: which penalty.
        settings: fields of `TrainingConfig` in which it differs.
        searched: its learning rate and lambdas are chosen; else they are those of the configuration and of `settings`.
    """

    name: str
    arm: Arm
    settings: dict[str, Any] = field(default_factory=dict)
    searched: bool = True


ARM_VARIANTS = (Variant("baseline", "baseline"), Variant("lasso", "lasso"), Variant("qscore", "qscore"))
#: What the paper trains with.
PAPER = {"learning_rate": 1e-5, "lambda1": 1e-4, "lambda2": 1e-4, "lasso": 1e-4}
PAPER_VARIANTS = tuple(Variant(f"paper-{v.name}", v.arm, dict(PAPER), searched=False) for v in ARM_VARIANTS)
#: What the paper leaves open: alpha at the lowest quarter of the batch's scores, the penalty on the projector's input as it is,
#: S found again every epoch, and the paper's eps.
OPEN_VARIANTS = (
    Variant("qscore-quarter", "qscore", {"alpha_quantile": 0.25}),
    Variant("qscore-raw", "qscore", {"normalize": False}),
    Variant("qscore-again", "qscore", {"refind_every": 1}),
    Variant("qscore-eps4", "qscore", {"eps": 4.0}),
)


@dataclass(frozen=True)
class ArmSearch:
    """How every arm's settings are chosen, and how it is then trained.

    Every arm has as many trials, the first of which is the paper's setting: learning rate 1e-5, lambdas 1e-4. The others have
    the learning rates of a grid in equal steps of the exponent less its lowest value, the same for every arm, and each has
    other lambdas: as many values, in equal steps of the exponent, shuffled by the seed (a Latin hypercube).

    Attributes:
        trials: trainings of each arm.
        learning_rates: lowest and highest.
        lambda1: lowest and highest. At equal weights the gradients of the other two are 10,000 times that of this one (`sslk
            train gradients`), which at 1e-4 is some 1e-6 of the SSL loss's: so the range goes from there to where it outweighs
            the loss, and so do the others.
        lambda2: lowest and highest.
        lasso: lowest and highest.
        epochs: of a trial.
        validation_share: share of the training images, of every class, that judges the trials and trains none of them, where
            no validation images are given.
        seeds: of the final trainings, which take all images; as many as there are runs.
        seed: of the split, the lambdas, and the order and views of all trials.
        resamples: of the bootstrap.
        keep: keep folders of the trainings: checkpoints, models and stores; else what comparisons need.
    """

    trials: int = 6
    learning_rates: tuple[float, float] = (1e-5, 1.0)
    lambda1: tuple[float, float] = (1e-4, 1e2)
    lambda2: tuple[float, float] = (1e-7, 1e-2)
    lasso: tuple[float, float] = (1e-7, 1e-2)
    epochs: int = 4
    validation_share: float = 0.2
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    seed: int = 0
    resamples: int = 1000
    keep: bool = False

    def __post_init__(self) -> None:
        for name in ("trials", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("learning_rates", "lambda1", "lambda2", "lasso"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be a lowest and a highest value above 0, got {low} and {high}.")
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share must lie between 0 and 1, got {self.validation_share}.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds must be different numbers of 0 or more, got {self.seeds}.")


def variants_by_name(names: Sequence[str]) -> list[Variant]:
    """The three arms, and those of the sets `paper` and `open` that are named.

    Raises:
        ValueError: there is no such set.

    >>> [variant.name for variant in variants_by_name(["paper"])][2:4]
    ['qscore', 'paper-baseline']
    """
    known = {"paper": PAPER_VARIANTS, "open": OPEN_VARIANTS}
    for name in names:
        if name not in known:
            raise ValueError(f"variants must be among paper and open, got {name!r}.")
    return [*ARM_VARIANTS, *(variant for name in names for variant in known[name])]
