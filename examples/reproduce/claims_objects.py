"""Claims of Kalibhat et al. (AAAI 2024) on where heatmaps lie, tested with the boxes of Tiny-ImageNet."""

from __future__ import annotations

from collections.abc import Callable

from examples.reproduce.results import Study, records, table
from examples.reproduce.verdict import Claim, Finding, Interval, beyond

PAPER = "Q-Score"

_BOXES = (
    "Boxes are no masks: core is everything inside the object's box, a corner of background included, and there is no "
    "spurious mask, only what lies outside. The encoders were trained on CIFAR-10 and see Tiny-ImageNet's images at 32 pixels, "
    "where a map has 4 x 4 cells."
)


def difference(name: str, beside: str) -> Callable[[Study], list[Finding]]:
    """A difference of mIoU lies above 0; what remains of it beyond uniform heat stands beside it."""

    def judge(study: Study) -> list[Finding]:
        findings = []
        for found in study.of_kind("self-supervised"):
            if "agreement" not in found.runs:
                continue
            rows = {row["difference"]: row for row in records(table(found.runs["agreement"], "Differences"))}
            own, more = (Interval(row["mean"], row["95 % low"], row["95 % high"]) for row in (rows[name], rows[beside]))
            evidence = f"{found.encoder.name}: mIoU {own.text()}, beyond uniform heat {more.text()}"
            findings.append(Finding(beyond(own), evidence))
        return findings

    return judge


CLAIMS = [
    Claim(
        "q-correct",
        PAPER,
        "Figure 7",
        "Heatmaps of discriminative features cover the object more in images that are classified correctly.",
        "The whole 95 % bootstrap interval of the difference in mIoU with the object's box lies above 0.",
        difference("core: correct - incorrect", "core: correct - incorrect beyond uniform heat"),
        {
            "holds": f"{_BOXES} Large objects have a larger mIoU under any map and are easier too: what counts is the difference "
            "beyond uniform heat.",
            "does not hold": _BOXES,
            "undecided": _BOXES,
            "not tested": "The study was run without `--extra-data`.",
        },
    ),
    Claim(
        "q-core",
        PAPER,
        "Figure 7",
        "They cover the object more than the rest of the image.",
        "The whole 95 % bootstrap interval of mIoU inside the box minus outside, beyond that of uniform heat, lies above 0. The "
        "paper's spurious masks are regions, ours is all that lies outside the box: without the uniform map the sizes decide.",
        difference("core - spurious beyond uniform heat", "core - spurious beyond uniform heat"),
        {
            "holds": _BOXES,
            "does not hold": _BOXES,
            "undecided": _BOXES,
            "not tested": "The study was run without `--extra-data`.",
        },
    ),
]
