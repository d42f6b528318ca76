"""Claims of Kalibhat et al. (AAAI 2024) on further training with the Q-Score regulariser."""

from __future__ import annotations

from collections.abc import Callable

from examples.reproduce.arms_results import AUROC, MEAN_Q, TOP1, beside, difference, paper_difference
from examples.reproduce.results import Study
from examples.reproduce.verdict import Claim, Finding, Interval, beyond

PAPER = "Q-Score"

_SHORT = (
    "Further training of a small network on few images, where the paper trains wider ones for 50 epochs of all images; "
    "how much the penalties can do at which lambda, the table of gradients says."
)


def arms(quantity: str, other: str, sign: int = 1, unit: str = "") -> Callable[[Study], list[Finding]]:
    """The regularised arm exceeds (or, with sign -1, undercuts) another arm in a quantity, paired over seeds and images."""

    def judge(study: Study) -> list[Finding]:
        findings = []
        for found in study.encoders:
            measured = difference(study, found, "qscore", other, quantity)
            if measured is not None:
                interval = measured.interval
                signed = interval if sign > 0 else Interval(-interval.value, -interval.high, -interval.low)
                evidence = f"{found.encoder.name}: {interval.text(4 if not unit else 2, unit)}, {measured.seeds} seeds"
                theirs = paper_difference(found, "qscore", other) if quantity == TOP1 else None
                if theirs is not None:
                    evidence += f"; the paper's {theirs:+.2f} lies {beside(interval, theirs)}"
                findings.append(Finding(beyond(signed), evidence))
        return findings

    return judge


# The rules are those of the first study but for their interval, which was Student's over seeds alone.
_PAIRED = "The hierarchical 95 % bootstrap interval, over seeds and test images, of the paired differences lies above 0"

CLAIMS = [
    Claim(
        "q-top1",
        PAPER,
        "Tables 1 and A.1",
        "Further training with the regulariser beats the same training without.",
        f"{_PAIRED}; the paper's gain for SimCLR on CIFAR-10 is +1.48 points.",
        arms(TOP1, "baseline", unit=" points"),
        {"undecided": _SHORT, "does not hold": _SHORT + " The penalty acts on a handful of features a sample."},
    ),
    Claim(
        "q-lasso",
        PAPER,
        "Tables 1 and A.1",
        "The regulariser beats an L1 penalty on all features.",
        f"{_PAIRED}; the paper's gain for SimCLR on CIFAR-10 is +2.98 points.",
        arms(TOP1, "lasso", unit=" points"),
        {"undecided": _SHORT, "does not hold": _SHORT},
    ),
    Claim(
        "q-raises",
        PAPER,
        "Equations 2 and 3",
        "The regulariser raises Q-Score over the same training without it.",
        f"{_PAIRED}, mean Q on test images.",
        arms(MEAN_Q, "baseline"),
        {
            "undecided": "Where the trials chose a large lambda1 the score rises; at the paper's 1e-4 that term's gradient "
            "vanishes beside the loss's (table of gradients), and the learning rate alone moves the score as much.",
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
        arms(AUROC, "baseline", sign=-1),
        {
            "undecided": "The AUROC can fall where lambda1 is large and the mean Q rises most, but no accuracy rises with it: "
            "there the score was bent, and no sample repaired.",
            "does not hold": _SHORT,
            "holds": "A smaller AUROC alone does not show repair: the accuracy must rise with it (the claim above on "
            "top-1), or the regulariser only blurred the score.",
        },
    ),
]
