"""Settings of the Q-Score studies; importing them loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from sslk.probes.settings import PENALTIES

Selection = Literal["discriminative", "random", "lower tail", "upper tail", "pca"]
SELECTIONS: tuple[Selection, ...] = get_args(Selection)
REDUCTIONS = (0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0)
LAMBDAS = (0.0, 1e-5, 1e-4, 1e-3, 1e-2)
Answers = Literal["probe", "neighbours"]


@dataclass(frozen=True)
class DiscoverSettings:
    """Which features count as highly activating and as discriminative.

    Attributes:
        eps: standard deviations above the mean at which a feature is highly activating, or auto; the paper's is 4, for
            D = 2048.
        lower: percentile of the activation percentages below which features are too rare.
        upper: percentile of the activation percentages above which features are too common.
        two_sided: count large negative deviations too; where the model's features are signed by default.
    """

    eps: float | Literal["auto"] = "auto"
    lower: float = 50.0
    upper: float = 95.0
    two_sided: bool | None = None


@dataclass(frozen=True)
class BootstrapSettings:
    """Of the intervals.

    Attributes:
        resamples: resamples of the bootstrap.
        seed: seed of the bootstrap.
    """

    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class FailureSettings:
    """What scores are judged by, and what Q-Score is compared with.

    Attributes:
        answers: probe: was the classifier right; neighbours: has the nearest other test sample the same label (R-AUROC), which
            needs no classifier. Tables and figures are of the first; of a second there is a table too.
        neighbors: which neighbour in the training store the k-NN distance is that to; at most as many as there are.
        shared_neighbors: neighbours under each model, of which neighbourhood consistency takes the shared ones; likewise.
        random_views: views of every image to encode for the variance over views, by the model and the images of the store,
            which must be had again; 0 for none.
        combine: scores of the logistic regressions beside Q-Score, by name; all label-free ones by default.
        folds: of their cross-fitting.
        further_trained: the encoder was trained further since the set was found, so that its weights are others.
    """

    answers: tuple[Answers, ...] = ("probe",)
    neighbors: int = 50
    shared_neighbors: int = 100
    random_views: int = 0
    combine: tuple[str, ...] = ()
    folds: int = 5
    further_trained: bool = False


@dataclass(frozen=True)
class CompressionSettings:
    """Which subsets of the features are probed, and how.

    Attributes:
        selections: which features are kept.
        reductions: percent of the features left out, below 100.
        seeds: validation splits (and draws of random features).
        l2: penalties to choose from on the validation split.
        validation_share: share of the training set held out per seed.
        tolerance: how far a probe's loss may lie above the least possible, in nats.
        max_iterations: evaluations of loss and gradient at most.
    """

    selections: tuple[Selection, ...] = SELECTIONS
    reductions: tuple[float, ...] = REDUCTIONS
    seeds: int = 4
    l2: tuple[float, ...] = PENALTIES
    validation_share: float = 0.1
    tolerance: float = 1e-4
    max_iterations: int = 1000


@dataclass(frozen=True)
class ThresholdSettings:
    """The points of a sweep.

    Attributes:
        eps: thresholds in standard deviations.
        bands: percentiles between which features are discriminative, as LOWER-UPPER.
        two_sided: count large negative deviations too; where the model's features are signed by default.
    """

    eps: tuple[float, ...] = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0)
    bands: tuple[str, ...] = ("50-95", "0-95", "50-100", "25-75")
    two_sided: bool | None = None


@dataclass(frozen=True)
class SignalSettings:
    """Where Q-Score is asked what it tells.

    Attributes:
        grid: thresholds in standard deviations, beside that of the set.
        shares: of the features that are drawn at random, without replacement, to see what D does.
        draws: subsets of each size.
        rows: training rows, drawn at random, that the sets of the subsets are found on; all where there are fewer.
        folds: of the cross-fitted regressions.
    """

    grid: tuple[float, ...] = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0)
    shares: tuple[float, ...] = (0.125, 0.25, 0.5, 0.75)
    draws: int = 4
    rows: int = 50_000
    folds: int = 5


@dataclass(frozen=True)
class LambdaSettings:
    """What the two-stage search tries.

    Attributes:
        lambda1: values of the first stage, at lambda2 = 0.
        lambda2: values of the second stage, at the best lambda1.
        seeds: every pair is trained with each.
    """

    lambda1: tuple[float, ...] = LAMBDAS
    lambda2: tuple[float, ...] = LAMBDAS
    seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class TransferTable:
    """How the table of a transfer is labelled, to be compared with a paper's.

    Attributes:
        name: name of the method; the model's name by default.
        arm: column of the accuracies, baseline or qscore.
    """

    name: str | None = None
    arm: str = "baseline"


@dataclass(frozen=True)
class PanelSettings:
    """Of the label-free panel.

    Attributes:
        rows: rows, drawn at random, that uniformity, cluster learnability and the intervals are computed on; the spectra and
            Q-Score are of all rows.
        images: images of which views are encoded, for LiDAR and alignment; 0 for neither.
        views: random views of each.
        resamples: resamples of the bootstrap.
        seed: of the rows, the views and the bootstrap.
    """

    rows: int = 10_000
    images: int = 1000
    views: int = 10
    resamples: int = 1000
    seed: int = 0
