"""Q-Score as a predictor of which samples a classifier gets right, beside baselines, with intervals."""

from __future__ import annotations

import math

import numpy as np

from sslk.features.store import FeatureStore
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.source import answered_rows, check_same_model, described
from sslk.progress import Progress
from sslk.quality import figures
from sslk.quality.discovery import discover
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.quality.failure import FailurePrediction, failure_prediction
from sslk.quality.score import qscore
from sslk.quality.settings import BootstrapSettings, DiscoverSettings
from sslk.quality.studies.figures import auroc_bars, interval_columns
from sslk.results.figure import picture
from sslk.results.provenance import provenance
from sslk.results.run import Run, RunTable
from sslk.statistics.small_data import empty_sets, small_data

POINTS = 200  # of a curve that are kept as numbers


def failure_study(
    test: FeatureStore,
    outputs: ProbeOutputs,
    discriminative: FeatureStore | DiscriminativeFeatures,
    settings: DiscoverSettings = DiscoverSettings(),  # noqa: B008 (frozen)
    bootstrap: BootstrapSettings = BootstrapSettings(),  # noqa: B008
    *,
    further_trained: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Run:
    """Judge Q-Score as a predictor of which samples a classifier gets right (Kalibhat et al., figures 4 and A.9).

    Args:
        test: the samples that are scored.
        outputs: a classifier's answers for them, supervised too.
        discriminative: the set, or the training set's store to find it on.
        settings: how it is found, where a store is given.
        bootstrap: of the intervals.
        further_trained: the encoder was trained further since the set was found, so that its weights are others.
        device: where the kernels run.
        progress: called with the rows read and to read.

    Raises:
        StoreError: the outputs are of other samples, or the set of another model.
        ValueError: all answers are right, or all wrong.
    """
    answered = answered_rows(test.require(), outputs)
    if isinstance(discriminative, FeatureStore):
        check_same_model(discriminative, test)
        found = discover(discriminative, **vars(settings), device=device, progress=progress)
    else:
        found = discriminative
    scores = qscore(test, found, further_trained=further_trained, device=device, progress=progress)
    result = failure_prediction(scores.scores, outputs, features=test, **vars(bootstrap))
    own, auroc = result.intervals["Q-Score"], {name: i.auroc for name, i in result.intervals.items()}
    rows = [
        [name, roc, auroc[name].low, auroc[name].high, pr, result.intervals[name].auprc.low, result.intervals[name].auprc.high]
        for name, roc, pr in result.table()[:-1]
    ]
    rows.append(["random (trivial)", 0.5, None, None, result.accuracy, None, None])
    columns = ["score", "AUROC", "AUROC low", "AUROC high", "AUPRC", "AUPRC low", "AUPRC high"]
    summary = {
        "auroc": own.auroc.value,
        "auroc_low": own.auroc.low,
        "auroc_high": own.auroc.high,
        "auprc": own.auprc.value,
        "auprc_low": own.auprc.low,
        "auprc_high": own.auprc.high,
        "accuracy": result.accuracy,
        "samples": len(answered) - result.nonfinite,
        "eps": scores.eps,
        "mean_active": scores.mean_active,
        "discriminative": scores.num_discriminative,
        "empty_share": scores.empty_share,
        "empty_share_train": None if math.isnan(found.empty_share) else found.empty_share,
    }
    pictures = [
        picture(
            "failure-curves",
            "ROC and precision-recall (figure 4)",
            "ROC and precision-recall curves of Q-Score and the baselines.",
            lambda: figures.failure_curves(result),
            _curve_columns(result),
        ),
        picture(
            "auroc-intervals",
            "AUROC with intervals",
            "AUROC of Q-Score and the baselines with 95 % intervals.",
            lambda: auroc_bars(auroc, "Predicting correct answers"),
            interval_columns("score", auroc),
        ),
    ]
    findings = _findings(result, bootstrap.resamples) + empty_sets(found.empty_share, scores.empty_share)
    findings += small_data(test=len(answered), classes=len(outputs.classes))
    findings += [*without_answer(len(test) - len(answered), len(test)), *scores.said(), *found.said()]
    origin = {
        "command": "failure",
        **vars(bootstrap),
        "test": described(test),
        "classifier": outputs.source.get("probe", "unknown"),
        "eps": found.eps,
        "two_sided": found.two_sided,
        "lower": found.lower,
        "upper": found.upper,
    }
    table = RunTable("Predicting which samples are classified correctly; 95 % bootstrap intervals", columns, rows)
    return Run("qscore", "Failure prediction", findings, provenance(origin), summary, [table], pictures)


def without_answer(missing: int, rows: int) -> list[str]:
    """One sentence where rows of a store have no answer; else none.

    >>> without_answer(3, 100)
    ['3 of 100 test rows are unlabelled or not finite: they have no answer and are left out.']
    """
    if not missing:
        return []
    are, they, have = ("is", "it has", "is") if missing == 1 else ("are", "they have", "are")
    return [f"{missing} of {rows} test rows {are} unlabelled or not finite: {they} no answer and {have} left out."]


def _findings(result: FailurePrediction, resamples: int) -> list[str]:
    own = result.intervals["Q-Score"].auroc
    known = "above chance" if own.low > 0.5 else "below chance"
    if own.low <= 0.5 <= own.high:
        known = "not distinguishable from chance"
    findings = [
        f"Q-Score predicts correct answers with AUROC {own}, {known}; AUPRC {result.intervals['Q-Score'].auprc}, where "
        f"the accuracy {result.accuracy:.3f} is trivial ({resamples} bootstrap resamples)."
    ]
    for name, interval in result.intervals.items():
        if name != "Q-Score":
            gain = interval.auroc_gain
            word = "better than" if gain.low > 0 else "worse than" if gain.high < 0 else "not distinguishable from"
            findings.append(f"Q-Score is {word} {name}: AUROC difference {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}].")
    return findings


def _curve_columns(result: FailurePrediction) -> dict[str, list[float]]:
    """Both curves of every score at up to `POINTS` places."""
    columns = {}
    for name, curves in {"Q-Score": result.qscore, **result.baselines}.items():
        for kind, values in (("ROC", curves.roc), ("PR", curves.precision_recall)):
            places = np.unique(np.linspace(0, len(values[0]) - 1, POINTS).round().astype(int))
            for axis, series in zip(("x", "y"), values, strict=True):
                columns[f"{name} {kind} {axis}"] = series[places].round(5).tolist()
    return columns
