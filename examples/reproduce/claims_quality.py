"""Claims of Kalibhat et al. (AAAI 2024) on Q-Score that CIFAR-10 can test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from examples.reproduce import claims_arms
from examples.reproduce.results import EncoderResults, Study, records, table
from examples.reproduce.verdict import Claim, Finding, Interval, State, beyond

PAPER = "Q-Score"
REDUCTION = 40.0  # percent of the features that the paper leaves out without a significant loss
MARGIN = 3.0  # points of top-1 within which two accuracies are called equal, noise included

_SMALL = (
    "The encoders are narrower (256 features in the compact one, against 512 to 2,048) and trained for fewer epochs than "
    "the paper's; few features of theirs single out an attribute."
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
    for name, rows, gains in _compressed(study):
        full, less = (rows[at]["discriminative top-1 [%]"] for at in (0.0, REDUCTION))
        loss, noise = -gains["all features"].value, _half(gains["all features"])
        state: State = "holds" if loss + noise <= MARGIN else "does not hold" if loss > max(noise, MARGIN) else "undecided"
        findings.append(Finding(state, f"{name}: {full:.2f} % to {less:.2f} %, loss {loss:+.2f} points (± {noise:.2f})"))
    return findings


def selection_gain(others: Sequence[str]) -> Callable[[Study], list[Finding]]:
    """The discriminative features keep more accuracy than each other selection, at the same reduction."""

    def judge(study: Study) -> list[Finding]:
        return [
            Finding(beyond(gains[other]), f"{name}, over {other}: {gains[other].text(2)} points")
            for name, _, gains in _compressed(study)
            for other in others
        ]

    return judge


def equals_pca(study: Study) -> list[Finding]:
    """Discriminative features and as many principal components differ by no more than the margin, noise included."""
    findings = []
    for name, _, gains in _compressed(study):
        gap, noise = gains["pca"].value, _half(gains["pca"])
        state: State = (
            "holds" if abs(gap) + noise <= MARGIN else "does not hold" if abs(gap) > max(noise, MARGIN) else "undecided"
        )
        findings.append(Finding(state, f"{name}: {gap:+.2f} points (± {noise:.2f})"))
    return findings


def _areas(encoders: Sequence[EncoderResults], what: str) -> list[tuple[str, Interval, float]]:
    found = []
    for item in encoders:
        numbers = [item.number("failure", name) for name in (what, f"{what}_low", f"{what}_high", "accuracy")]
        value, low, high, accuracy = numbers
        if value is not None and low is not None and high is not None and accuracy is not None:
            found.append((item.encoder.name, Interval(value, low, high), accuracy))
    return found


def _compressed(study: Study) -> list[tuple[str, dict[float, dict[str, Any]], dict[str, Interval]]]:
    """Self-supervised encoders with their compression rows by reduction, and at 40 % what the discriminative features gain over
    each other selection, in pairs on the same test images."""
    found = []
    for item in study.of_kind("self-supervised"):
        if "compression" in item.runs:
            rows = {row["left out [%]"]: row for row in records(table(item.runs["compression"], "Top-1"))}
            differences = records(table(item.runs["compression"], "Discriminative features minus"))
            gains = {
                row["minus"]: Interval(row["value"], row["low"], row["high"])
                for row in differences
                if row["left out [%]"] == REDUCTION
            }
            if gains:
                found.append((item.encoder.name, rows, gains))
    return found


def _half(interval: Interval) -> float:
    return (interval.high - interval.low) / 2


def _plain(interval: Interval) -> str:
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


_INTERVAL = "The whole 95 % bootstrap interval lies above"

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
        dict.fromkeys(("undecided", "does not hold"), "The control is a small network of few epochs."),
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
    *claims_arms.CLAIMS,
]
