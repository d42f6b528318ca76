"""Claims of Laina, Asano and Vedaldi (ICLR 2022) on reverse probing that CIFAR-10 can test."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

from scipy.stats import spearmanr

from examples.reproduce.results import EncoderResults, Study, records, table
from examples.reproduce.verdict import Claim, Finding, Interval, State, beyond, paired, welch

PAPER = "Reverse probing"
RANKED = 4  # self-supervised encoders below which a ranking says nothing


def more_than_untrained(study: Study) -> list[Finding]:
    """Concepts predict the clusters of trained encoders better than those of the untrained control."""
    count = study.config.clusters[0]
    return [
        Finding(beyond(gap), f"{found.encoder.name} − {control.encoder.name}: NMI {gap.text()}")
        for control in study.of_kind("untrained")
        for found in study.of_kind("self-supervised")
        if (gap := _gap(found, control, count)) is not None
    ]


def group_adds(group: str) -> Callable[[Study], list[Finding]]:
    """A group of concepts raises the NMI that labels alone reach, on the same clusterings and splits."""

    def judge(study: Study) -> list[Finding]:
        findings = []
        for found in study.of_kind("self-supervised"):
            alone = _nmi(found, study.config.clusters[0], "labels")
            both = _nmi(found, study.config.clusters[0], f"labels + {group}")
            if alone and both:
                gain = paired([b - a for a, b in zip(alone, both, strict=True)])
                evidence = f"{found.encoder.name}: NMI {fmean(alone):.3f} to {fmean(both):.3f}, {gain.text()}"
                findings.append(Finding(beyond(gain), evidence))
        return findings

    return judge


def follows_accuracy(study: Study) -> list[Finding]:
    """Encoders with a better linear probe have clusters that concepts predict better."""
    pairs = []
    for found in study.of_kind("self-supervised"):
        top1, nmi = found.number("linear", "top1"), _nmi(found, study.config.clusters[0], "all")
        if top1 is not None and nmi:
            pairs.append((top1, fmean(nmi)))
    if not pairs:
        return []
    if len(pairs) < RANKED:
        return [Finding("undecided", f"{len(pairs)} self-supervised encoder(s); a ranking needs at least {RANKED}")]
    correlation, p = spearmanr(*zip(*pairs, strict=True))
    state: State = "holds" if correlation > 0 and p < 0.05 else "does not hold" if correlation < 0 and p < 0.05 else "undecided"
    return [Finding(state, f"Spearman {correlation:+.2f} over {len(pairs)} encoders, p = {p:.3f}")]


def order_over_k(study: Study) -> list[Finding]:
    """The order of the encoders by NMI does not depend on K."""
    orders = []
    for count in study.config.clusters:
        values = {found.encoder.name: _nmi(found, count, "all") for found in study.encoders}
        if len(study.config.clusters) < 2 or not all(values.values()):
            return []
        orders.append(sorted(values, key=lambda name: -fmean(values[name])))
    texts = [f"K = {count}: {' > '.join(order)}" for count, order in zip(study.config.clusters, orders, strict=True)]
    state: State = "holds" if all(order == orders[0] for order in orders) else "does not hold"
    return [Finding(state, "; ".join(texts))]


def _nmi(found: EncoderResults, clusters: int, concepts: str) -> list[float]:
    """NMI of every clustering, in order; empty where it was not measured."""
    if "reverse" not in found.runs:
        return []
    rows = records(table(found.runs["reverse"], "NMI of every"))
    return [row["NMI"] for row in rows if row["K"] == clusters and row["concepts"] == concepts]


def _gap(found: EncoderResults, control: EncoderResults, clusters: int) -> Interval | None:
    first, second = (_nmi(item, clusters, "all") for item in (found, control))
    return welch(first, second) if first and second else None


_PAIRED = "Student's 95 % interval of the paired differences over clusterings lies above 0"
_SPREAD = (
    "NMI is that of the predicted clusters. From ten labels at most ten clusters are predicted; a thousand concepts spread over "
    "more, and NMI can fall while top-1 and I / H, in the table of numbers, rise. ImageNet's classifier sees 32-pixel images "
    "enlarged."
)

CLAIMS = [
    Claim(
        "r-trained",
        PAPER,
        "Table 2 (controls are ours)",
        "Concepts predict what a trained encoder groups together.",
        "Welch's 95 % interval of the NMI difference to the untrained control lies above 0.",
        more_than_untrained,
        {"does not hold": "An untrained convolutional network groups by colour, and colours are among the concepts."},
    ),
    Claim(
        "r-objects",
        PAPER,
        "Table 3",
        "Object concepts tell more about the clusters than labels alone.",
        f"{_PAIRED}.",
        group_adds("objects"),
        {"does not hold": _SPREAD, "undecided": _SPREAD, "not tested": "The study was run without ImageNet concepts."},
    ),
    Claim(
        "r-colour",
        PAPER,
        "Figure 4, Table 3 (texture, with colour)",
        "Colors tell more than labels alone.",
        f"{_PAIRED}; the paper finds a small gain for early methods and none for the best.",
        group_adds("colour"),
        {"holds": "The labels are ten coarse classes; colour of sky, water and grass separates clusters within them."},
    ),
    Claim(
        "r-rank",
        PAPER,
        "Figure 3",
        "NMI grows with linear-probe accuracy over encoders.",
        f"Spearman correlation above 0 with p < 0.05, over at least {RANKED} self-supervised encoders.",
        follows_accuracy,
        {"undecided": "Few encoders; what has learnt little groups by colour, and colours are among the concepts."},
    ),
    Claim(
        "r-k",
        PAPER,
        "Figures 6 and 7",
        "The order of encoders does not depend on the number of clusters.",
        "The same order at every K, controls included.",
        order_over_k,
        {"does not hold": "Encoders that are close may swap; see the intervals in the table of numbers."},
    ),
]
