"""What the study of Q-Score's signal leaves: tables, numbers by name, measures and sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sslk.quality.failure import QSCORE, labels_of
from sslk.quality.signal import CONFIDENCE, KNOWN, NORM, Signal, at_eps
from sslk.results.run import Measure, RunTable, Value
from sslk.statistics.bootstrap import Interval

AREAS, OVER_EPS, OVER_FEATURES, PARTIAL, NESTED = (
    "AUROC of every score",
    "Q-Score over eps",
    "Q-Score over the number of features",
    "Partial rank correlation",
    "Regressions with and without Q-Score",
)
BOTH = (NORM, CONFIDENCE)


def tables_of(found: Signal) -> list[RunTable]:
    """All tables, each title beginning with one of the names above."""
    return [_areas(found), _over_eps(found), _over_features(found), _partial(found), _nested(found)]


def _areas(found: Signal) -> RunTable:
    rows = [
        [
            name,
            *found.areas.of(name)[:3],
            *((None,) * 3 if name == QSCORE else found.areas.gain(QSCORE, name)[:3]),
            labels_of(name),
        ]
        for name in found.names
    ]
    columns = ["score", *_ends("AUROC"), *_ends("Q-Score less it"), "uses labels"]
    return RunTable(f"{AREAS}; 95 % bootstrap intervals, differences in pairs", columns, rows)


def _over_eps(found: Signal) -> RunTable:
    rows: list[list[Any]] = []
    for eps, scores in found.sweep.items():
        if scores is None:
            rows.append([eps, 0, *(None,) * 8])
        else:
            name = at_eps(eps)
            left = found.partial.values[BOTH][name]
            rows.append([eps, *_set(scores), *found.areas.of(name)[:3], *left[:3]])
    columns = ["eps", "|S|", "mean |L_i|", "empty sets [%]", *_ends("AUROC"), *_ends("partial correlation")]
    return RunTable(f"{OVER_EPS}; the partial correlation is that given norm and confidence", columns, rows)


def _over_features(found: Signal) -> RunTable:
    rows: list[list[Any]] = []
    for part in found.subsets:
        numbers: list[float | None] = [None] * 11
        if part.qscore:
            own, norm = found.areas.of(*part.qscore), found.areas.of(*part.norm)
            spread = found.areas.range(*part.qscore)
            numbers = [part.eps, part.mean_active, 100 * part.empty_share, *own[:3], *spread, *norm[:3]]
        rows.append([part.features, len(part.qscore), *numbers])
    scores, all_features = found.scores, found.areas.of(QSCORE)
    rows.append(
        [
            found.found.num_features,
            1,
            scores.eps,
            *_set(scores)[1:],
            *all_features[:3],
            *found.areas.range(QSCORE),
            *found.areas.of(NORM)[:3],
        ]
    )
    columns = ["features", "subsets", "eps", "mean |L_i|", "empty sets [%]", *_ends("AUROC"), "lowest", "highest"]
    title = f"{OVER_FEATURES}: random subsets, means over them; the classifier's answers are those with all features"
    return RunTable(title, [*columns, *_ends("norm's AUROC")], rows)


def _partial(found: Signal) -> RunTable:
    rows = [
        [name, given(names), *interval[:3]]
        for names, values in found.partial.values.items()
        for name, interval in values.items()
        if name in found.names
    ]
    title = f"{PARTIAL} of every score with correctness, given other scores; {found.partial.samples} samples"
    return RunTable(title, ["score", "given", *_ends("correlation")], rows)


def _nested(found: Signal) -> RunTable:
    rows = [
        [given(names), *(n for part in ("without", "with") for n in fit.measures[part]["AUROC"][:3]), *fit.gains["AUROC"][:3]]
        for names, fit in found.nested.items()
    ]
    columns = ["known", *_ends("AUROC without"), *_ends("AUROC with"), *_ends("what Q-Score adds")]
    folds = next(iter(found.nested.values())).folds
    return RunTable(f"{NESTED}: logistic, {folds}-fold cross-fitted", columns, rows)


def records(table: RunTable) -> list[dict[str, Any]]:
    """The rows of a table by column."""
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def columns_of(table: RunTable) -> dict[str, list[Any]]:
    """The columns of a table by name, None as an empty cell."""
    return {name: ["" if row[number] is None else row[number] for row in table.rows] for number, name in enumerate(table.columns)}


def given(names: Sequence[str]) -> str:
    """What is known, in words.

    >>> given(()), given(("feature norm", "confidence"))
    ('nothing', 'feature norm and confidence')
    """
    return " and ".join(names) or "nothing"


def summary_of(found: Signal) -> dict[str, Value]:
    """The headline numbers by name."""
    numbers: dict[str, Value] = {}
    for name, interval in (
        ("auroc", found.areas.of(QSCORE)),
        ("mean_active", found.scores.mean_active_interval()),
        ("norm_auroc", found.areas.of(NORM)),
        ("confidence_auroc", found.areas.of(CONFIDENCE)),
        ("correlation", found.partial.values[()][QSCORE]),
        ("partial_norm", found.partial.values[(NORM,)][QSCORE]),
        ("partial_confidence", found.partial.values[(CONFIDENCE,)][QSCORE]),
        ("partial", found.partial.values[BOTH][QSCORE]),
        ("gain_norm", found.nested[(NORM,)].gains["AUROC"]),
        ("gain", found.nested[BOTH].gains["AUROC"]),
    ):
        numbers |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    scores = found.scores
    return numbers | {
        "accuracy": found.prediction.accuracy,
        "samples": len(found.prediction.correct),
        "features": found.found.num_features,
        "eps": scores.eps,
        "discriminative": scores.num_discriminative,
        "empty_share": scores.empty_share,
    }


def measures_of(found: Signal, data: str, model: str) -> list[Measure]:
    """AUROC, correlations and gains one by one."""
    count = len(found.prediction.correct)
    made = [
        Measure(data, model, f"failure prediction by {name}", "AUROC", *found.areas.of(name)[:3], samples=count)
        for name in found.names
    ]
    for names, values in found.partial.values.items():
        metric = f"rank correlation with correctness given {given(names)}"
        task = "failure prediction by "
        made += [Measure(data, model, task + n, metric, *i[:3], samples=count) for n, i in values.items() if n in found.names]
    for names, fit in found.nested.items():
        metric = f"AUROC added to {given(names)}"
        made.append(Measure(data, model, f"failure prediction by {QSCORE}", metric, *fit.gains["AUROC"][:3], samples=count))
    return made


def findings_of(found: Signal) -> list[str]:
    """What Q-Score tells, against what, and what remains, one sentence each."""
    own, accuracy = found.areas.of(QSCORE), found.prediction.accuracy
    chance = "above chance" if own.low > 0.5 else "below chance" if own.high < 0.5 else "not distinguishable from chance"
    said = [
        f"Q-Score tells right from wrong answers with AUROC {own}, {chance}; {100 * accuracy:.1f} % of "
        f"{len(found.prediction.correct)} answers are right."
    ]
    said += compared(
        {name: (found.areas.gain(QSCORE, name), labels_of(name) == "no") for name in found.names if name != QSCORE},
        own.high < 0.5,
    )
    for names in KNOWN:
        left, gain = found.partial.values[names][QSCORE], found.nested[names].gains["AUROC"]
        said.append(
            f"Given {given(names)}, its partial rank correlation with correctness is {signed(left)}, {remains(left)}; a "
            f"regression on them gains {signed(gain, 4)} of AUROC by it."
        )
    known = [(found.areas.of(at_eps(eps)).value, eps) for eps, scores in found.sweep.items() if scores is not None]
    if known:
        low, high = min(known), max(known)
        said.append(
            f"At {len(known)} thresholds its AUROC lies between {low[0]:.3f} (eps {low[1]:g}) and {high[0]:.3f} (eps "
            f"{high[1]:g}, chosen on the test samples: no estimate); that above is at eps {found.scores.eps:g}."
        )
    return [*said, *found.partial.said()]


def compared(gains: dict[str, tuple[Interval, bool]], below: bool = False) -> list[str]:
    """One sentence each on the label-free scores and on those that use labels: which Q-Score beats, and which beat it.

    Args:
        gains: AUROC of Q-Score less that of each score, and whether the score is label-free.
        below: Q-Score is below chance, so that "better" only means "less wrong"; said.
    """
    said = []
    for free, kind in ((True, "label-free scores"), (False, "scores that use labels or are of others")):
        part = {name: gain for name, (gain, without) in gains.items() if without is free}
        if not part:
            continue
        better = [name for name, gain in part.items() if gain.low > 0]
        worse = [name for name, gain in part.items() if gain.high < 0]
        alike = [name for name in part if name not in (*better, *worse)]
        phrases = (("better than", better), ("worse than", worse), ("not distinguishable from", alike))
        said.append(
            f"Of the {kind}, Q-Score is " + "; ".join(f"{what} {', '.join(names)}" for what, names in phrases if names) + "."
        )
    if below:
        said.append("Q-Score itself ranks wrong answers first here: being better than another score only means being less wrong.")
    return said


def remains(left: Interval) -> str:
    """What a partial correlation says, in words.

    >>> remains(Interval(0.1, 0.05, 0.15)), remains(Interval(0.0, -0.05, 0.05))
    ('so that something of its own remains', 'so that nothing is shown to remain')
    """
    if math.isnan(left.value):
        return "as it is constant"
    if left.low > 0:
        return "so that something of its own remains"
    return "so that what remains points the other way" if left.high < 0 else "so that nothing is shown to remain"


def signed(value: Interval, digits: int = 3) -> str:
    """A difference with its interval.

    >>> signed(Interval(0.0123, -0.01, 0.03))
    '+0.012 [-0.010, +0.030]'
    """
    return f"{value.value:+.{digits}f} [{value.low:+.{digits}f}, {value.high:+.{digits}f}]"


def _ends(name: str) -> list[str]:
    return [name, f"{name} low", f"{name} high"]


def _set(scores: Any) -> list[float]:
    return [scores.num_discriminative, scores.mean_active, 100 * scores.empty_share]
