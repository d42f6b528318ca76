"""Claims of Kalibhat et al. (AAAI 2024) on Q-Score that CIFAR-10 can test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from examples.reproduce.results import EncoderResults, Study, records, table
from examples.reproduce.verdict import Claim, Finding, Interval, State, beyond, paired

PAPER = "Q-Score"
REDUCTION = 40.0  # percent of the features that the paper leaves out without a significant loss
MARGIN = 3.0  # points of top-1 within which two accuracies are called equal, noise included

_SMALL = (
    "The encoders are narrower (256 features in the compact one, against 512 to 2,048) and trained for fewer epochs than "
    "the paper's; few features of theirs single out an attribute."
)
_SHORT = (
    "A few steps on few images (see the table of arms), where the paper trains for 50 epochs; an effect below the spread "
    "over the seeds cannot be seen."
)


def auroc(kind: str) -> Callable[[Study], list[Finding]]:
    """Q-Score's AUROC as a failure predictor is above chance, for encoders of a kind."""

    def judge(study: Study) -> list[Finding]:
        return [
            Finding(beyond(found, 0.5), f"{name}: AUROC {_plain(found)}")
            for name, found, _ in _areas(study.of_kind(kind), "auroc")
        ]

    return judge


def auprc(study: Study) -> list[Finding]:
    """Q-Score's AUPRC is above the accuracy, which a constant score reaches."""
    return [
        Finding(beyond(found, accuracy), f"{name}: AUPRC {_plain(found)}, trivial {accuracy:.3f}")
        for name, found, accuracy in _areas(study.of_kind("self-supervised"), "auprc")
    ]


def compressible(study: Study) -> list[Finding]:
    """Leaving out 40 % of the features by discriminativeness costs no more top-1 than the margin, noise included."""
    findings = []
    for name, rows, noise in _compressed(study):
        full, less = (rows[at]["discriminative top-1 [%]"] for at in (0.0, REDUCTION))
        loss = full - less
        state: State = "holds" if loss + noise <= MARGIN else "does not hold" if loss > max(noise, MARGIN) else "undecided"
        findings.append(Finding(state, f"{name}: {full:.2f} % to {less:.2f} %, loss {loss:+.2f} points (± {noise:.1f})"))
    return findings


def selection_gain(others: Sequence[str]) -> Callable[[Study], list[Finding]]:
    """The discriminative features keep more accuracy than each other selection, at the same reduction."""

    def judge(study: Study) -> list[Finding]:
        findings = []
        for name, rows, noise in _compressed(study):
            for other in others:
                gain = rows[REDUCTION]["discriminative top-1 [%]"] - rows[REDUCTION][f"{other} top-1 [%]"]
                interval = Interval(gain, gain - noise, gain + noise)
                findings.append(Finding(beyond(interval), f"{name}, over {other}: {interval.text(2)} points"))
        return findings

    return judge


def equals_pca(study: Study) -> list[Finding]:
    """Discriminative features and as many principal components differ by no more than the margin, noise included."""
    findings = []
    for name, rows, noise in _compressed(study):
        gap = rows[REDUCTION]["discriminative top-1 [%]"] - rows[REDUCTION]["pca top-1 [%]"]
        state: State = (
            "holds" if abs(gap) + noise <= MARGIN else "does not hold" if abs(gap) > max(noise, MARGIN) else "undecided"
        )
        findings.append(Finding(state, f"{name}: {gap:+.2f} points against ± {noise:.1f} of noise"))
    return findings


def arms(column: str, other: str, sign: int = 1, unit: str = "") -> Callable[[Study], list[Finding]]:
    """The regularised arm exceeds (or, with sign -1, undercuts) another arm in a column, paired over seeds."""

    def judge(study: Study) -> list[Finding]:
        findings = []
        for found in study.encoders:
            differences = []
            for run in found.arms.values():
                rows = {row["arm"]: row for row in records(table(run, "Arms"))}
                differences.append(rows["qscore"][column] - rows[other][column])
            if differences:
                interval = paired(differences)
                signed = interval if sign > 0 else Interval(-interval.value, -interval.high, -interval.low)
                evidence = f"{found.encoder.name}: {interval.text(4 if not unit else 2, unit)}, {len(differences)} seeds"
                findings.append(Finding(beyond(signed), evidence))
        return findings

    return judge


def _areas(encoders: Sequence[EncoderResults], what: str) -> list[tuple[str, Interval, float]]:
    found = []
    for item in encoders:
        numbers = [item.number("failure", name) for name in (what, f"{what}_low", f"{what}_high", "accuracy")]
        value, low, high, accuracy = numbers
        if value is not None and low is not None and high is not None and accuracy is not None:
            found.append((item.encoder.name, Interval(value, low, high), accuracy))
    return found


def _compressed(study: Study) -> list[tuple[str, dict[float, dict[str, Any]], float]]:
    """Self-supervised encoders with their compression rows by reduction, and the noise of a difference in points.

    The noise is 1.96 standard errors of the difference of two accuracies on separate samples: too wide for classifiers
    tested on the same images, so that what it calls undecided may still be real.
    """
    found = []
    for item in study.of_kind("self-supervised"):
        if "compression" in item.runs:
            rows = {row["left out [%]"]: row for row in records(table(item.runs["compression"], "Top-1"))}
            share = rows[0.0]["discriminative top-1 [%]"] / 100
            noise = 196 * (2 * share * (1 - share) / study.config.test_images) ** 0.5
            if REDUCTION in rows:
                found.append((item.encoder.name, rows, noise))
    return found


def _plain(interval: Interval) -> str:
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


_INTERVAL = "The whole 95 % bootstrap interval lies above"
_PAIRED = "Student's 95 % interval of the paired differences over seeds lies above 0"

CLAIMS = [
    Claim(
        "q-auroc",
        PAPER,
        "Figure 4",
        "Q-Score, which needs no labels, predicts which samples a linear probe gets right.",
        f"{_INTERVAL} 0.5.",
        auroc("self-supervised"),
        {
            "undecided": _SMALL,
            "does not hold": _SMALL,
            "holds": "The signal is weak beside the paper's 0.65 to 0.73, and weaker than the probe's confidence (table "
            "of numbers): few features are highly activating in a sample.",
        },
    ),
    Claim(
        "q-auprc",
        PAPER,
        "Figure 4",
        "Its precision-recall curve lies above the trivial one.",
        f"{_INTERVAL} the probe's accuracy.",
        auprc,
        {"undecided": _SMALL, "does not hold": _SMALL},
    ),
    Claim(
        "q-supervised",
        PAPER,
        "Figure A.9",
        "Q-Score also predicts failures of supervised encoders.",
        f"{_INTERVAL} 0.5.",
        auroc("supervised"),
        {"undecided": "The control is trained for minutes.", "does not hold": "The control is trained for minutes."},
    ),
    Claim(
        "q-compress",
        PAPER,
        "Figure 2",
        f"Up to {REDUCTION:g} % of the features can be left out without a significant loss.",
        f"At {REDUCTION:g} %, loss plus noise is at most {MARGIN:g} points; refuted if it exceeds both.",
        compressible,
        {"does not hold": "256 features hold less redundancy than 2,048.", "undecided": _SMALL},
    ),
    Claim(
        "q-select",
        PAPER,
        "Figure 2",
        "Random features and both tails keep less accuracy than the discriminative ones.",
        f"At {REDUCTION:g} %, the gain over each lies above its noise.",
        selection_gain(["random", "lower tail", "upper tail"]),
        {
            "undecided": "With 256 features, 60 % of any kind hold nearly everything the probe needs, so the selections "
            "differ by little.",
            "does not hold": "With 256 features, 60 % of any kind hold nearly everything the probe needs.",
        },
    ),
    Claim(
        "q-pca",
        PAPER,
        "Figure 2",
        "Discriminative features are about as good as as many principal components.",
        f"At {REDUCTION:g} %, the gap plus noise is at most {MARGIN:g} points; refuted if it exceeds both.",
        equals_pca,
        {"does not hold": "Principal components keep nearly all variance of 256 correlated features; a subset cannot."},
    ),
    Claim(
        "q-top1",
        PAPER,
        "Tables 1 and A.1",
        "Further training with the regulariser beats the same training without.",
        f"{_PAIRED}; the paper's gain for SimCLR on CIFAR-10 is +1.48 points.",
        arms("probe top-1 [%]", "baseline", unit=" points"),
        {"undecided": _SHORT, "does not hold": _SHORT + " The penalty acts on a handful of features a sample."},
    ),
    Claim(
        "q-lasso",
        PAPER,
        "Tables 1 and A.1",
        "The regulariser beats an L1 penalty on all features.",
        f"{_PAIRED}; the paper's gain for SimCLR on CIFAR-10 is +2.98 points.",
        arms("probe top-1 [%]", "lasso", unit=" points"),
        {"undecided": _SHORT, "does not hold": _SHORT},
    ),
    Claim(
        "q-raises",
        PAPER,
        "Equations 2 and 3",
        "The regulariser raises Q-Score over the same training without it.",
        f"{_PAIRED}, mean Q on test images.",
        arms("mean Q", "baseline"),
        {
            "undecided": _SHORT,
            "does not hold": "The L1 term of features above the batch mean outweighs the Q term: "
            "it shrinks the very features that are highly activating.",
        },
    ),
    Claim(
        "q-repairs",
        PAPER,
        "Figure 4 and section on regularisation",
        "After regularisation Q-Score predicts failures less well, because low-quality samples were repaired.",
        "The same interval of the AUROC's change lies below 0.",
        arms("Q-Score AUROC", "baseline", sign=-1),
        {
            "undecided": _SHORT,
            "does not hold": _SHORT,
            "holds": "A smaller AUROC alone does not show repair: the accuracy must rise with it (the claim above on "
            "top-1), or the regulariser only blurred the score.",
        },
    ),
]
