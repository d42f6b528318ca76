"""What the study of failure prediction leaves: tables, measures and sentences."""

from __future__ import annotations

from sslk.features.store import FeatureStore
from sslk.quality.combined import Combination, combined
from sslk.quality.failure import QSCORE, FailurePrediction, labels_of
from sslk.quality.failure_baselines import LABEL_FREE
from sslk.quality.settings import BootstrapSettings, FailureSettings
from sslk.results.run import Measure, RunTable
from sslk.statistics.bootstrap import Interval
from sslk.statistics.selective import MEASURES

WITH, WITHOUT = "combined with Q-Score", "combined without Q-Score"


def prediction_table(result: FailurePrediction, title: str) -> RunTable:
    """AUROC and AUPRC of every score with intervals, and whether it uses labels."""
    columns = ["score", "AUROC", "AUROC low", "AUROC high", "AUPRC", "AUPRC low", "AUPRC high", "uses labels"]
    rows = [[name, *found.auroc[:3], *found.auprc[:3], labels_of(name)] for name, found in result.intervals.items()]
    rows.append(["random (trivial)", 0.5, None, None, result.accuracy, None, None, "no"])
    return RunTable(title, columns, rows)


def selective_table(result: FailurePrediction) -> RunTable:
    """AURC, E-AURC, AUGRC and FPR at 95 % TPR of every score with intervals; the last row is of a random order."""
    measures = MEASURES[2:]
    columns = ["score", *(f"{measure}{end}" for measure in measures for end in ("", " low", " high"))]
    rows = [
        [name, *(number for measure in measures for number in found.measures[measure][:3])]
        for name, found in result.intervals.items()
    ]
    error, own = 1 - result.accuracy, result.qscore
    trivial = (error, error - (own.aurc - own.e_aurc), error / 2, 0.95)
    rows.append(["random (trivial)", *(cell for value in trivial for cell in (value, None, None))])
    return RunTable("Selective classification, low is good; 95 % bootstrap intervals", columns, rows)


def gain_table(result: FailurePrediction) -> RunTable:
    """Every measure of Q-Score less that of every other score, on the same resamples."""
    columns = ["Q-Score less", *(f"{measure}{end}" for measure in MEASURES for end in ("", " low", " high"))]
    rows = [
        [name, *(number for measure in MEASURES for number in found.gains[measure][:3])]
        for name, found in result.intervals.items()
        if name != QSCORE
    ]
    title = "Differences in pairs: above 0 speaks for Q-Score in AUROC and AUPRC, below 0 in the others"
    return RunTable(title, columns, rows)


def combine(
    result: FailurePrediction, settings: FailureSettings, bootstrap: BootstrapSettings
) -> tuple[Combination | None, list[str]]:
    """Regressions on label-free scores with Q-Score and without, or a sentence why there are none.

    Raises:
        ValueError: the settings name a score that is not there.
    """
    if unknown := [name for name in settings.combine if name not in result.scores]:
        raise ValueError(f"combine must name scores of the run, got {unknown[0]!r}; there are {', '.join(result.scores)}.")
    chosen = settings.combine or [name for name in result.scores if name in LABEL_FREE]
    scores = {name: result.scores[name] for name in (QSCORE, *chosen)}
    rarer = int(min(result.correct.sum(), (~result.correct).sum()))
    if len(scores) < 2 or rarer < 2:
        what = "no other label-free score" if len(scores) < 2 else "a single sample of one answer"
        return None, [f"There is no combination of scores: {what}."]
    folds = min(settings.folds, rarer)
    return combined(scores, result.correct, QSCORE, folds=folds, **vars(bootstrap)), []


def combination_tables(found: Combination) -> list[RunTable]:
    """Measures of both combinations and their difference, and the coefficients."""
    columns = ["regression", *(f"{measure}{end}" for measure in MEASURES for end in ("", " low", " high"))]
    parts = {WITH: found.measures["with"], WITHOUT: found.measures["without"], "what Q-Score adds": found.gains}
    rows = [[name, *(number for measure in MEASURES for number in part[measure][:3])] for name, part in parts.items()]
    title = f"Logistic regression on {len(found.names)} scores, fitted on answers, {found.folds}-fold cross-fitted"
    weights = [[name, *interval[:3]] for name, interval in found.coefficients.items()]
    names = ["score", "coefficient per standard deviation", "low", "high"]
    return [RunTable(title, columns, rows), RunTable("Coefficients of the regression on all samples", names, weights)]


def measures_of(
    test: FeatureStore, result: FailurePrediction, found: Combination | None = None, prefix: str = ""
) -> list[Measure]:
    """Every number of every score; `prefix` R- where the answers are those of neighbours."""
    scores = {name: intervals.measures for name, intervals in result.intervals.items()}
    if found is not None:
        scores |= {WITH: found.measures["with"], WITHOUT: found.measures["without"]}
    model = f"{test.spec.model}, {test.spec.feature}" if test.spec.feature else test.spec.model
    return [
        Measure(
            test.spec.dataset,
            model,
            f"failure prediction by {name}",
            f"{prefix}{measure}",
            *interval[:3],
            samples=len(result.correct),
        )
        for name, intervals in scores.items()
        for measure, interval in intervals.items()
    ]


def findings_of(result: FailurePrediction, resamples: int, judged: str) -> list[str]:
    """What Q-Score predicts and how it compares, one sentence each."""
    own = result.intervals[QSCORE]
    known = "above chance" if own.auroc.low > 0.5 else "below chance"
    if own.auroc.low <= 0.5 <= own.auroc.high:
        known = "not distinguishable from chance"
    risks = ", ".join(f"{measure} {own.measures[measure]}" for measure in MEASURES[2:])
    found = [
        f"Q-Score predicts {judged} with AUROC {own.auroc}, {known}; AUPRC {own.auprc}, where "
        f"the accuracy {result.accuracy:.3f} is trivial ({resamples} bootstrap resamples).",
        f"Of Q-Score, low being good: {risks}.",
    ]
    for name, intervals in result.intervals.items():
        if name == QSCORE:
            continue
        gain = intervals.auroc_gain
        found.append(f"Q-Score is {_compared(gain)} {name}: AUROC difference {_signed(gain)}.")
        if labels_of(name) == "unknown" and intervals.auroc.high < 0.5:
            found.append(
                f"{name} ranks the wrong samples first: higher must mean correct, so an uncertainty needs its sign turned."
            )
    return found


def combination_findings(found: Combination) -> list[str]:
    """What Q-Score adds to the other scores."""
    gain, weight = found.gains["AUROC"], found.coefficients[QSCORE]
    added = "adds" if gain.low > 0 else "takes away" if gain.high < 0 else "adds nothing that is shown"
    sign = "positive" if weight.low > 0 else "negative" if weight.high < 0 else "of unknown sign"
    others = ", ".join(found.names[1:])
    return [
        f"Combined with {others} by logistic regressions that were fitted on other samples' answers, Q-Score {added}: AUROC "
        f"{found.measures['without']['AUROC']} without it, difference {_signed(gain)}.",
        f"Its coefficient there is {sign}: {_signed(weight)} per standard deviation, the other scores held fixed.",
    ]


def _compared(gain: Interval) -> str:
    return "better than" if gain.low > 0 else "worse than" if gain.high < 0 else "not distinguishable from"


def _signed(value: Interval) -> str:
    return f"{value.value:+.3f} [{value.low:+.3f}, {value.high:+.3f}]"
