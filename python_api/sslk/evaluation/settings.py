"""Settings of an evaluation; importing them loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from sslk.data.source import OnCorrupt

System = Literal["qscore", "reverse", "masked"]
SYSTEMS: tuple[System, ...] = get_args(System)


@dataclass(frozen=True)
class EvaluationSettings:
    """What is evaluated on what.

    Attributes:
        data: name of a published data set, folder:PATH, manifest:PATH, npz:PATH, hf:NAME or sample.
        concepts: table that `sslk concepts build` wrote for the train split; without it reverse probing is left out.
        segmenter: finds the foreground in the masked study: grabcut, labels:CLASS,..., boxes, files:FOLDER, deeplab or sam.
        clusters: K of reverse probing.
        systems: which protocols: qscore, reverse, masked.
        probes: with qscore, also fit linear and nearest-neighbour probes and judge Q-Score as a predictor of their failures;
            they need labels.
        train_split: split on which sets, clusters and probes are fitted.
        test_split: split on which they are judged.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        image_size: side of the image crop in pixels; each model's own by default.
        batch_size: images per forward pass.
        workers: loading processes.
        device: where to compute; a GPU where there is one.
        seed: seed of everything random.
        on_corrupt: an unreadable image ends the evaluation at its planning or in its step, or is left out, counted and listed.
    """

    data: str
    concepts: str | None = None
    segmenter: str = "grabcut"
    clusters: int = 1000
    systems: tuple[System, ...] = SYSTEMS
    probes: bool = True
    train_split: str = "train"
    test_split: str = "test"
    root: str | None = None
    image_size: int | None = None
    batch_size: int | None = None
    workers: int = 4
    device: str | None = None
    seed: int = 0
    on_corrupt: OnCorrupt = "raise"

    def __post_init__(self) -> None:
        if not self.systems:
            raise ValueError(f"systems must name some of {', '.join(SYSTEMS)}, got none.")
        if self.clusters < 1:
            raise ValueError(f"clusters must be at least 1, got {self.clusters}.")
        if self.train_split == self.test_split:
            raise ValueError(
                f"train_split and test_split are both {self.test_split!r}: what is fitted on the first is judged on the second."
            )
        if tuple(self.systems) == ("reverse",) and not self.concepts:
            raise ValueError("systems asks for reverse, which needs concepts: a table that `sslk concepts build` wrote.")
        if unknown := [system for system in self.systems if system not in SYSTEMS]:
            raise ValueError(f"systems must be among {', '.join(SYSTEMS)}, got {', '.join(unknown)}.")


@dataclass(frozen=True)
class DepthSettings:
    """How a network is measured layer by layer.

    Attributes:
        epochs: of the linear probes.
        clusters: K of reverse probing.
        seed: seed of everything random.
    """

    epochs: int = 100
    clusters: int = 100
    seed: int = 0


@dataclass(frozen=True)
class DemoSettings:
    """The further training of the demo, far shorter and with a learning rate far larger than the paper's.

    Attributes:
        epochs: passes of further training per arm.
        learning_rate: peak learning rate of LARS in the further training.
        seed: seed of everything random; the same seed gives the same numbers on the same machine.
    """

    epochs: int = 4
    learning_rate: float = 0.3
    seed: int = 0
