"""Settings of reverse probing; importing them loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Experiment = Literal["ranking", "breakdown", "gain", "vary-k", "transfer", "shifted", "self-labels", "labels", "pairs", "toy"]
EXPERIMENTS: tuple[Experiment, ...] = get_args(Experiment)


@dataclass(frozen=True)
class KMeansSettings:
    """Settings of the quantiser; the defaults are the paper's.

    Attributes:
        clusters: number of clusters K.
        iterations: iterations of Lloyd's algorithm, at most.
        restarts: runs per clustering, of which the one of least inertia counts.
        clusterings: independent clusterings, over which results are averaged.
        start: K random rows, or k-means++.
        engine: `sslk` runs on `ssl_kernels.kmeans_assign`; `faiss` on faiss, on its GPU build where there is one.
        max_points: rows that k-means sees, a random sample where the data has more; None is all of them. Every row is
            assigned in the end. Results state the number.
        seed: seed of starts and samples.
    """

    clusters: int = 1000
    iterations: int = 100
    restarts: int = 5
    clusterings: int = 5
    start: Literal["random", "k-means++"] = "random"
    engine: Literal["sslk", "faiss"] = "sslk"
    max_points: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("clusters", "iterations", "restarts", "clusterings"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.start not in ("random", "k-means++") or self.engine not in ("sslk", "faiss"):
            raise ValueError(
                f"start must be 'random' or 'k-means++' and engine 'sslk' or 'faiss', got {self.start!r} and {self.engine!r}."
            )


@dataclass(frozen=True)
class ProbeSettings:
    """Settings of the predictor; the defaults are the paper's.

    Attributes:
        solver: `sgd` as in the paper, or `lbfgs` to convergence on the training rows.
        epochs: epochs of SGD, at most; the one of least validation cross-entropy counts.
        batch_size: rows per step.
        learning_rate: divided by 10 after 60 % and after 80 % of the epochs.
        momentum: momentum of SGD.
        weight_decay: L2, on weights and biases, for both solvers.
        iterations: iterations of L-BFGS, at most.
        seed: seed of splits and orders.
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


@dataclass(frozen=True)
class ExperimentSettings:
    """What an experiment of reverse probing needs beside features and concepts.

    Attributes:
        groups: groups of concepts that are used, all by default, with that of the labels for gain and that of the pairs for
            pairs; for breakdown the order in which they are added.
        label_group: the group of the labels, none for a table without: breakdown begins with it, gain adds to it, labels
            leaves it out.
        ks: numbers of clusters of vary-k (500 to 3000 by default) and of transfer (500 and 1000 by default).
        accuracy: CSV of model and linear-probe top-1 in percent, for the scatter of ranking.
        title: title of the other data set of shifted, or of the assignment of self-labels.
        repeats: splits of labels, over which results are averaged.
        group: the group of concepts of pairs.
        count: number of pairs that pairs draws.
        seed: seed of the points of toy.
    """

    groups: tuple[str, ...] = ()
    label_group: str | None = "labels"
    ks: tuple[int, ...] = ()
    accuracy: str | None = None
    title: str | None = None
    repeats: int = 5
    group: str | None = None
    count: int = 4
    seed: int = 0
