"""What the study costs; every result says at which of these it was obtained."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from examples.reproduce.arms import ArmsConfig
from examples.reproduce.signal_steps import SignalConfig


@dataclass(frozen=True)
class StudyConfig:
    """Sizes and seeds of the study.

    Attributes:
        train_images, test_images: of the official splits, class-balanced; by default all.
        supervised_epochs: of the supervised control, where none is packaged.
        masked_images: of the test images, for the masked study.
        clusters: K of reverse probing on the training images; the sets of concepts are compared at the first.
        clusterings: independent clusterings for each K.
        kmeans_iterations: of Lloyd's algorithm, from one start a clustering.
        concept_epochs: passes of the predictor of clusters.
        imagenet_concepts: ask an ImageNet classifier about every training image.
        reductions: percent of the features left out in the compression study.
        random_draws: of random features at every reduction.
        resamples: of the bootstrap over test images.
        arms: of further training.
        signal: of the page on when Q-Score tells anything.
        seed: of the draws, the controls and every step.
    """

    train_images: int = 50_000
    test_images: int = 10_000
    supervised_epochs: int = 24
    masked_images: int = 10_000
    clusters: tuple[int, ...] = (50, 100, 1000)
    clusterings: int = 5
    kmeans_iterations: int = 30
    concept_epochs: int = 100
    imagenet_concepts: bool = True
    reductions: tuple[float, ...] = (0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0)
    random_draws: int = 4
    resamples: int = 1000
    arms: ArmsConfig = field(default_factory=ArmsConfig)
    signal: SignalConfig = field(default_factory=SignalConfig)
    seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> StudyConfig:
        """What `as_dict` gave, from JSON.

        >>> StudyConfig.from_dict(StudyConfig(clusters=(7,)).as_dict()).clusters
        (7,)
        """
        nested = {"arms": ArmsConfig(**values["arms"]), "signal": SignalConfig(**values["signal"])}
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **lists, **nested})
