"""Claims on representations under masked inputs that CIFAR-10 can test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from examples.reproduce.results import EncoderResults, Study, records, table
from examples.reproduce.verdict import Claim, Finding, Interval, State, beyond

PAPER = "Masked inputs"
CKA = "linear CKA, debiased"
NEAREST = [("original", "foreground"), ("original", "center")]
COMPLEMENTS = [("foreground", "background"), ("center", "border")]
Pair = tuple[str, str]


def nearest_pairs(study: Study) -> list[Finding]:
    """Original with foreground and with center are the two most similar pairs."""
    return [_extreme(found, NEAREST, most=True) for found in _masked(study, "self-supervised")]


def farthest_pairs(study: Study) -> list[Finding]:
    """The pairs without a common pixel are the two least similar."""
    return [_extreme(found, COMPLEMENTS, most=False) for found in _masked(study, "self-supervised")]


def structure(study: Study) -> list[Finding]:
    """Trained encoders tell variants apart: their CKA spans a wider range than the untrained control's."""
    findings = []
    for control in _masked(study, "untrained"):
        narrow = _range(control)
        for found in _masked(study, "self-supervised"):
            wide = _range(found)
            # The extremes' own intervals bound the difference of the two ranges from both sides.
            gap = Interval(wide.value - narrow.value, wide.low - narrow.high, wide.high - narrow.low)
            evidence = f"{found.encoder.name} spans {wide.value:.2f}, untrained {narrow.value:.2f}: {gap.text(2)}"
            findings.append(Finding(beyond(gap), evidence))
    return findings


def objects_matter(study: Study) -> list[Finding]:
    """Foreground and center are classified better than background and border."""
    findings = []
    for found in _masked(study, "self-supervised"):
        rows = {row["variant"]: row for row in records(table(found.runs["masked"], "Linear evaluation"))}
        for kept, other in (("foreground", "background"), ("center", "border")):
            gap = rows[kept]["balanced_accuracy"] - rows[other]["balanced_accuracy"]
            # Standard deviations are over five folds; t with 8 degrees of freedom.
            half = 2.31 * ((rows[kept]["std"] ** 2 + rows[other]["std"] ** 2) / 5) ** 0.5
            interval = Interval(100 * gap, 100 * (gap - half), 100 * (gap + half))
            evidence = f"{found.encoder.name}, {kept} − {other}: {interval.text(1)} points"
            findings.append(Finding(beyond(interval), evidence))
    return findings


def supervised_neighbours(study: Study) -> list[Finding]:
    """Neighbours of originals and foregrounds are mostly of other variants, under a supervised encoder."""
    findings = []
    for found in _masked(study, "supervised"):
        rows = records(table(found.runs["masked"], "Share of the"))
        shares = {row["variant"]: row["value"] for row in rows if row["variant"] == row["with"]}
        state: State = "holds" if max(shares["original"], shares["foreground"]) < 0.5 else "does not hold"
        evidence = f"{found.encoder.name}: {shares['original']:.0%} of original, {shares['foreground']:.0%} of foreground"
        findings.append(Finding(state, evidence))
    return findings


def similarities(found: EncoderResults) -> dict[Pair, Interval]:
    """Debiased CKA of every pair of variants."""
    rows = records(table(found.runs["masked"], CKA))
    return {(row["variant"], row["with"]): Interval(row["value"], *_bounds(row)) for row in rows}


def _bounds(row: dict[str, Any]) -> tuple[float, float]:
    return (row["value"] if row["low"] is None else row["low"], row["value"] if row["high"] is None else row["high"])


def _extreme(found: EncoderResults, wanted: Sequence[Pair], most: bool) -> Finding:
    """Whether the wanted pairs lie beyond all others, intervals apart; refuted where another lies beyond one of them."""
    sign = 1 if most else -1
    all_pairs = {pair: _signed(value, sign) for pair, value in similarities(found).items()}
    inside = [all_pairs[pair] for pair in wanted]
    outside = [value for pair, value in all_pairs.items() if pair not in wanted]
    if min(value.low for value in inside) > max(value.high for value in outside):
        state: State = "holds"
    elif any(other.low > value.high for value in inside for other in outside):
        state = "does not hold"
    else:
        state = "undecided"
    order = sorted(all_pairs, key=lambda pair: -all_pairs[pair].value)
    places = ", ".join(
        f"{a}–{b} {sign * all_pairs[a, b].value:.2f} (place {order.index((a, b)) + 1} of {len(order)})" for a, b in wanted
    )
    best = order[0]
    word = "most" if most else "least"
    shown = f"; {word} similar {best[0]}–{best[1]} {sign * all_pairs[best].value:.2f}" if best not in wanted else ""
    return Finding(state, f"{found.encoder.name}: CKA {places}{shown}")


def _signed(value: Interval, sign: int) -> Interval:
    return value if sign > 0 else Interval(-value.value, -value.high, -value.low)


def _range(found: EncoderResults) -> Interval:
    values = list(similarities(found).values())
    top, bottom = max(values), min(values)
    return Interval(top.value - bottom.value, top.low - bottom.high, top.high - bottom.low)


def _masked(study: Study, kind: str) -> list[EncoderResults]:
    return [found for found in study.of_kind(kind) if "masked" in found.runs]


_GRABCUT = "Foregrounds are GrabCut's on 32-pixel images, not Segment Anything's; many cover most of the image or little of it."

CLAIMS = [
    Claim(
        "m-nearest",
        PAPER,
        "CKA matrices",
        "Original and foreground, original and center are represented most alike.",
        "Both pairs' intervals of debiased CKA lie above all others'; refuted where one lies below another.",
        nearest_pairs,
        {
            "undecided": _GRABCUT,
            "does not hold": f"{_GRABCUT} Where the foreground is small, the background is nearly the original image.",
        },
    ),
    Claim(
        "m-farthest",
        PAPER,
        "CKA matrices",
        "Variants that share no pixel are represented least alike.",
        "Both complementary pairs' intervals lie below all others'; refuted where one lies above another.",
        farthest_pairs,
        {
            "undecided": _GRABCUT,
            "does not hold": "Complements share an image's colours and scene; mixed pairs such as "
            "foreground and border may have as few pixels in common.",
        },
    ),
    Claim(
        "m-structure",
        PAPER,
        "controls (ours)",
        "What separates the variants is learnt.",
        "The range of debiased CKA exceeds the untrained control's, bounds of the extremes apart.",
        structure,
        {
            "does not hold": "The blackened area alone changes the representation of any network, trained or not: CKA between "
            "masked images measures the mask's geometry as well as what was learnt.",
            "undecided": "The bounds are conservative.",
        },
    ),
    Claim(
        "m-objects",
        PAPER,
        "Table 1",
        "Objects carry the class: foreground beats background, center beats border.",
        "The interval of the difference in balanced accuracy over five folds lies above 0, for both pairs.",
        objects_matter,
        {"undecided": _GRABCUT, "does not hold": _GRABCUT},
    ),
    Claim(
        "m-neighbours",
        PAPER,
        "Neighbour matrices",
        "A supervised encoder mixes the variants: about 40 % of the neighbours "
        "of originals and foregrounds are of the same variant.",
        "Less than half, for both.",
        supervised_neighbours,
        {"does not hold": "The control is small, saw whole images alone and has not learnt to look past the blackened area."},
    ),
]
