"""Settings of sparse codes; importing them loads no torch."""

from __future__ import annotations

from dataclasses import dataclass

from sslk.probes.settings import PENALTIES


@dataclass(frozen=True)
class CodesSettings:
    """A TopK sparse autoencoder, and how it is trained.

    Attributes:
        latents: number of latents M; 4 D by default.
        k: latents that are kept of a row.
        epochs: passes over the store.
        batch_size: rows that are read per step; those held out are left out of them.
        learning_rate: of Adam; 2e-4 sqrt(2^14 / M) by default.
        k_aux: dead latents that reconstruct the residual of a row; D / 2 by default.
        aux_weight: weight of that loss.
        dead_after: rows without activity after which a latent is dead; one epoch by default, 10,000,000 at most.
        validation_share: share of the rows that is held out and tells the variance explained.
        seed: seed of the initialisation, the rows held out and the order.
    """

    latents: int | None = None
    k: int = 32
    epochs: int = 20
    batch_size: int = 512
    learning_rate: float | None = None
    k_aux: int | None = None
    aux_weight: float = 1 / 32
    dead_after: int | None = None
    validation_share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("latents", "k", "epochs", "batch_size", "k_aux", "dead_after"):
            value = getattr(self, name)
            if value is not None and not 1 <= value < 2**31:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        if self.latents is not None and self.k > self.latents:
            raise ValueError(f"k must be at most the {self.latents} latents, got {self.k}.")
        if self.learning_rate is not None and not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}.")
        if not 0 <= self.aux_weight < float("inf"):
            raise ValueError(f"aux_weight must be zero or positive, got {self.aux_weight}.")
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share must lie between 0 and 1, got {self.validation_share}.")


@dataclass(frozen=True)
class CodesComparison:
    """How one-sided sets, two-sided sets and codes are compared.

    Attributes:
        resamples: resamples of the bootstrap.
        seed: seed of the bootstrap.
        kept: features that are kept, in percent of D; all and fewer.
        seeds: validation splits of the probes.
        l2: penalties to choose from on the validation split.
        validation_share: share of the training set held out per seed.
        tolerance: how far a probe's loss may lie above the least possible, in nats.
        max_iterations: evaluations of loss and gradient at most.
    """

    resamples: int = 1000
    seed: int = 0
    kept: tuple[float, ...] = (100.0, 50.0, 25.0, 10.0)
    seeds: int = 2
    l2: tuple[float, ...] = PENALTIES
    validation_share: float = 0.1
    tolerance: float = 1e-4
    max_iterations: int = 1000

    def __post_init__(self) -> None:
        if not self.kept or min(self.kept) <= 0 or max(self.kept) > 100:
            raise ValueError(f"kept must be percentages above 0 and up to 100, got {list(self.kept)}.")
