"""Settings of self-supervised training in one dataclass; the defaults are those of the paper's further training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Arm = Literal["baseline", "lasso", "qscore"]
ARMS: tuple[Arm, ...] = get_args(Arm)
MethodName = Literal["simclr", "swav", "moco", "byol", "dino", "simsiam", "vicreg", "barlow-twins"]

# Settings that change how a run is carried out but not what it computes: a resumed run may have others.
CARRIED_OUT = ("workers", "checkpoint_every", "log_every", "capture")


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of training; the defaults are those of Kalibhat et al. (AAAI 2024) where the paper states them.

    Attributes:
        epochs: passes over the images.
        batch_size: images of a batch over all processes together; each gives two views. A shorter last one is dropped.
        accumulate: batches whose gradients are averaged before a step; the regulariser's batch is one of them.
        optimizer: `lars`, or `sgd`; biases and norms get neither decay nor layer-wise scaling.
        learning_rate: peak learning rate.
        momentum: momentum of the optimiser.
        weight_decay: weight decay of the optimiser, on weights.
        warmup_share: share of the steps in which the learning rate rises; then it follows a cosine to zero.
        lambda1: weight of the regulariser's term that raises Q-Scores (arm `qscore`).
        lambda2: weight of the regulariser's term that keeps the features' column norms small (arm `qscore`).
        lasso: weight of `sum |H|` over L2-normalised rows (arm `lasso`).
        alpha: fixed threshold of the Q-Scores in place of their mean over the batch.
        alpha_quantile: quantile of the batch's Q-Scores in place of their mean, such as 0.25 for its lowest quarter.
        beta: fixed threshold of the column norms in place of their mean over the batch.
        normalize: the penalties see L2-normalised rows of H, as the paper says; false: the projector's input as it is.
        eps: threshold at which the set S is found where none is given: auto, or standard deviations; the paper's is 4.
        refind_every: epochs after which S is found again, on the training images under the encoder of that moment, at the
            same eps and percentiles; 0 keeps the set of the start, as the paper does.
        head_warmup_epochs: passes in which fresh heads are trained with the encoder frozen, before the arms begin.
        head_learning_rate: peak learning rate of these.
        precision: `32-true`, `bf16-mixed` or `16-mixed`.
        compile: compile the encoder with torch.compile.
        capture: on one GPU, run the whole step from a CUDA graph; for images kept in memory, see `docs/finetune.md`.
        channels_last: memory format of the encoder; faster on most devices.
        view_size: side of the augmented views, in pixels; that of the encoder's input by default.
        local_views: further small crops per image, for SwAV and DINO.
        workers: processes that load and augment images; images kept in memory need none.
        checkpoint_every: steps between checkpoints; an interruption costs at most as many.
        log_every: steps between log entries.
        seed: seed of fresh heads, the order of the images and their views; arms of one seed see the same batches.

    Raises:
        ValueError: a setting is out of range, naming it.

    >>> TrainingConfig().learning_rate, TrainingConfig(epochs=2).epochs
    (1e-05, 2)
    """

    epochs: int = 50
    batch_size: int = 256
    accumulate: int = 1
    optimizer: Literal["lars", "sgd"] = "lars"
    learning_rate: float = 1e-5
    momentum: float = 0.9
    weight_decay: float = 1e-6
    warmup_share: float = 0.1
    lambda1: float = 1e-4
    lambda2: float = 1e-4
    lasso: float = 1e-4
    alpha: float | None = None
    alpha_quantile: float | None = None
    beta: float | None = None
    normalize: bool = True
    eps: float | Literal["auto"] = "auto"
    refind_every: int = 0
    head_warmup_epochs: int = 0
    head_learning_rate: float = 0.3
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    compile: bool = False
    capture: bool = False
    channels_last: bool = False
    view_size: int | None = None
    local_views: int = 0
    workers: int = 4
    checkpoint_every: int = 100
    log_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "accumulate", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("learning_rate", "head_learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")
        for name in ("momentum", "weight_decay", "lambda1", "lambda2", "lasso"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be zero or positive, got {getattr(self, name)}.")
        for name in ("head_warmup_epochs", "refind_every", "workers", "local_views", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}.")
        if not 0 <= self.warmup_share <= 1:
            raise ValueError(f"warmup_share must lie between 0 and 1, got {self.warmup_share}.")
        if self.alpha_quantile is not None and not (0 < self.alpha_quantile <= 1 and self.alpha is None):
            given = f"{self.alpha_quantile} and {self.alpha}"
            raise ValueError(f"alpha_quantile must lie between 0 and 1, without a fixed alpha, got {given}.")
        if self.eps != "auto" and (isinstance(self.eps, str) or not self.eps >= 0):
            raise ValueError(f"eps must be zero or positive, or 'auto', got {self.eps!r}.")
        if self.batch_size < 2:
            raise ValueError(
                f"batch_size must be at least 2, got {self.batch_size}: batch statistics and negatives need other images."
            )
        if self.view_size is not None and self.view_size < 8:
            raise ValueError(f"view_size must be at least 8 pixels, got {self.view_size}.")
        if self.optimizer not in ("lars", "sgd"):
            raise ValueError(f"optimizer must be lars or sgd, got {self.optimizer!r}.")
