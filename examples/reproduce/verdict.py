"""What a claim is, and how its verdict follows from intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal, NamedTuple, get_args

from scipy.stats import t as student

from examples.reproduce.results import Study

State = Literal["holds", "does not hold", "undecided", "not tested"]
STATES: tuple[State, ...] = get_args(State)


class Interval(NamedTuple):
    """A value with its 95 % interval; NaN bounds where one repetition says nothing about spread."""

    value: float
    low: float
    high: float

    def text(self, digits: int = 3, unit: str = "") -> str:
        """Value and bounds, such as `+0.020 [-0.010, +0.050]`."""
        bounds = f" [{self.low:+.{digits}f}, {self.high:+.{digits}f}]" if self.low == self.low else " (one repetition)"
        return f"{self.value:+.{digits}f}{bounds}{unit}"


@dataclass(frozen=True)
class Finding:
    """What one encoder (or one comparison) says about a claim."""

    state: State
    evidence: str


@dataclass(frozen=True)
class Claim:
    """A claim of a paper and how the study judges it.

    Attributes:
        key: short and unique.
        paper: which of the three.
        where: section, figure or table.
        text: the claim, in our words.
        rule: what counts as holding, in words.
        judge: the study -> findings, one per encoder or comparison; none where its runs are missing.
        reasons: the likely reason, by verdict.
    """

    key: str
    paper: str
    where: str
    text: str
    rule: str
    judge: Callable[[Study], Sequence[Finding]]
    reasons: Mapping[State, str]


@dataclass(frozen=True)
class Verdict:
    """The verdict of a claim: that of its findings where they agree, undecided where they do not."""

    claim: Claim
    state: State
    findings: Sequence[Finding]

    @property
    def reason(self) -> str:
        """The likely one of this state."""
        return self.claim.reasons.get(self.state, "")

    @property
    def counts(self) -> dict[State, int]:
        """How many findings are of each state, in the order of `STATES`."""
        states = [finding.state for finding in self.findings]
        return {state: states.count(state) for state in STATES if state in states}

    @property
    def contradicted(self) -> bool:
        """Whether some findings hold and others do not: no narrower interval would decide the claim for all."""
        return {"holds", "does not hold"} <= set(self.counts)

    def counted(self) -> str:
        """The counts in words, such as `holds for 7 of 9, does not hold for 2`; empty for a single finding."""
        total = len(self.findings)
        if total < 2:
            return ""
        first, *rest = [f"{state} for {count}" for state, count in self.counts.items()]
        return ", ".join([f"{first} of {total}", *rest])


def decide(claim: Claim, study: Study) -> Verdict:
    """Judge a claim."""
    findings = claim.judge(study)
    states = {finding.state for finding in findings}
    if not states:
        return Verdict(claim, "not tested", findings)
    return Verdict(claim, states.pop() if len(states) == 1 else "undecided", findings)


def beyond(interval: Interval, at: float = 0.0) -> State:
    """Whether a claim "greater than `at`" holds: the whole interval must lie above; below it, it does not hold.

    >>> beyond(Interval(0.6, 0.55, 0.65), 0.5), beyond(Interval(0.4, 0.3, 0.45), 0.5), beyond(Interval(0.6, 0.4, 0.8), 0.5)
    ('holds', 'does not hold', 'undecided')
    """
    return "holds" if interval.low > at else "does not hold" if interval.high < at else "undecided"


def paired(differences: Sequence[float]) -> Interval:
    """Mean of paired differences with Student's 95 % interval; needs two pairs for bounds.

    >>> paired([1.0, 2.0, 3.0]).text(2)
    '+2.00 [-0.48, +4.48]'
    """
    count = len(differences)
    if count < 2:
        return Interval(fmean(differences), math.nan, math.nan)
    half = float(student.ppf(0.975, count - 1)) * stdev(differences) / count**0.5
    mean = fmean(differences)
    return Interval(mean, mean - half, mean + half)


def welch(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Difference of two means with Welch's 95 % interval; needs two values on each side for bounds."""
    value = fmean(first) - fmean(second)
    if min(len(first), len(second)) < 2:
        return Interval(value, math.nan, math.nan)
    parts = [stdev(values) ** 2 / len(values) for values in (first, second)]
    error = sum(parts) ** 0.5
    if error == 0:
        return Interval(value, value, value)
    freedom = sum(parts) ** 2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True))
    half = float(student.ppf(0.975, freedom)) * error
    return Interval(value, value - half, value + half)
