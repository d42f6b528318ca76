"""Q-Score as a predictor of which samples a classifier gets right, beside baselines, with intervals."""

from __future__ import annotations

import math
from dataclasses import replace

from sslk.features.store import FeatureStore
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.source import answered_rows, check_same_model, described
from sslk.progress import Progress
from sslk.quality import figures
from sslk.quality.answers import NeighbourAnswers, neighbour_answers
from sslk.quality.discovery import discover
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.quality.failure import QSCORE, FailurePrediction, failure_prediction, said_missing
from sslk.quality.failure_sources import FailureSources
from sslk.quality.score import QScores, qscore
from sslk.quality.settings import Answers, BootstrapSettings, DiscoverSettings
from sslk.quality.studies.failure_figures import curve_columns, risk_coverage_columns, risk_coverage_curves
from sslk.quality.studies.failure_tables import (
    combination_findings,
    combination_tables,
    combine,
    findings_of,
    gain_table,
    measures_of,
    prediction_table,
    selective_table,
)
from sslk.quality.studies.figures import auroc_bars, interval_columns
from sslk.results.figure import Picture, picture
from sslk.results.provenance import provenance
from sslk.results.run import Run, Value
from sslk.statistics.small_data import empty_sets, small_data

JUDGED: dict[Answers, str] = {"probe": "correct answers", "neighbours": "that the nearest neighbour shares the class"}


def failure_study(
    test: FeatureStore,
    outputs: ProbeOutputs | None,
    discriminative: FeatureStore | DiscriminativeFeatures,
    settings: DiscoverSettings = DiscoverSettings(),  # noqa: B008 (frozen)
    bootstrap: BootstrapSettings = BootstrapSettings(),  # noqa: B008
    *,
    sources: FailureSources = FailureSources(),  # noqa: B008
    device: str = "cpu",
    progress: Progress | None = None,
) -> Run:
    """Judge Q-Score as a predictor of which samples a classifier gets right (Kalibhat et al., figures 4 and A.9).

    Args:
        test: the samples that are scored.
        outputs: a classifier's answers for them, supervised too; None where `sources.settings.answers` is neighbours alone.
        discriminative: the set, or the training set's store to find it on.
        settings: how it is found, where a store is given.
        bootstrap: of the intervals.
        sources: what else is compared, how it is combined, and what judges; the training store of `discriminative` is its
            training store where none is named.
        device: where the kernels run.
        progress: called with the rows read and to read.

    Raises:
        StoreError: the outputs or a store are of other samples, or the set of another model.
        ValueError: all answers are right, or all wrong; or as for `FailureSources.compared`.
    """
    kinds = sources.settings.answers
    if not kinds or len(set(kinds)) < len(kinds) or (outputs is None and "probe" in kinds):
        raise ValueError(
            f"answers must be probe, for which outputs are needed, or neighbours, or both, got {' '.join(kinds) or 'none'} and "
            f"{'no ' if outputs is None else ''}outputs."
        )
    answers: dict[Answers, ProbeOutputs | NeighbourAnswers] = {}
    for kind in kinds:
        if outputs is not None and kind == "probe":
            answered_rows(test.require(), outputs)
            answers[kind] = outputs
        else:
            answers[kind] = neighbour_answers(test)
    train, found = sources.train, discriminative
    if isinstance(found, FeatureStore):
        train = train or found
        check_same_model(found, test)
        found = discover(found, **vars(settings), device=device, progress=progress)
    assert isinstance(found, DiscriminativeFeatures)
    further = sources.settings.further_trained
    scores = qscore(test, found, further_trained=further, device=device, progress=progress)
    compared, said = replace(sources, train=train).compared(test, progress)
    results = {
        kind: failure_prediction(scores.scores, given, features=test, others=compared, **vars(bootstrap))
        for kind, given in answers.items()
    }
    first, *more = kinds
    result = results[first]
    combination, uncombined = combine(result, sources.settings, bootstrap)
    title = {"probe": "Predicting which samples are classified correctly", "neighbours": f"Predicting {JUDGED['neighbours']}"}
    tables = [prediction_table(result, f"{title[first]}; 95 % bootstrap intervals"), selective_table(result), gain_table(result)]
    tables += combination_tables(combination) if combination else []
    tables += [prediction_table(results[kind], f"{title[kind]}; 95 % bootstrap intervals") for kind in more]
    findings = [sentence for kind in kinds for sentence in findings_of(results[kind], bootstrap.resamples, JUDGED[kind])]
    findings += combination_findings(combination) if combination else uncombined
    findings += empty_sets(found.empty_share, scores.empty_share)
    answered = len(answers[first].correct)
    findings += small_data(test=answered, classes=_classes(test, outputs))
    findings += [*without_answer(len(test) - answered, len(test)), *scores.said(), *found.said()]
    findings += [*said_missing(result.missing, answered - result.nonfinite), *said]
    measures = [
        measure
        for kind in kinds
        for measure in measures_of(
            test, results[kind], combination if kind == first else None, "R-" if kind == "neighbours" else ""
        )
    ]
    origin = {
        "command": "failure",
        **vars(bootstrap),
        **vars(sources.settings),
        "test": described(test),
        "train": None if train is None else described(train),
        "others": [described(store) for store in sources.others],
        "views": len(sources.views),
        "scores": list(sources.scores),
        "classifier": "none" if outputs is None else outputs.source.get("probe", "unknown"),
        "eps": found.eps,
        "two_sided": found.two_sided,
        "lower": found.lower,
        "upper": found.upper,
    }
    return Run(
        "qscore",
        "Failure prediction",
        findings,
        provenance(origin),
        _summary(results, scores, found),
        tables,
        _pictures(result, title[first]),
        measures=measures,
    )


def _classes(test: FeatureStore, outputs: ProbeOutputs | None) -> int:
    if outputs is not None:
        return len(outputs.classes)
    labels = test.labels()
    return len(labels[labels >= 0].unique())


def _summary(results: dict[Answers, FailurePrediction], scores: QScores, found: DiscriminativeFeatures) -> dict[str, Value]:
    """The headline numbers, those of the first answers by their bare names."""
    result = next(iter(results.values()))
    own = result.intervals[QSCORE].measures
    keys = {"AUROC": "auroc", "AUPRC": "auprc", "AURC": "aurc", "E-AURC": "e_aurc", "AUGRC": "augrc", "FPR at 95 % TPR": "fpr95"}
    summary: dict[str, Value] = {}
    for measure, key in keys.items():
        value, low, high, _ = own[measure]
        summary |= {key: value, f"{key}_low": low, f"{key}_high": high}
    if "neighbours" in results:
        r_auroc = results["neighbours"].intervals[QSCORE].auroc
        summary |= {"r_auroc": r_auroc.value, "r_auroc_low": r_auroc.low, "r_auroc_high": r_auroc.high}
    active = scores.mean_active_interval()
    return {
        **summary,
        "accuracy": result.accuracy,
        "samples": len(result.correct),
        "eps": scores.eps,
        "mean_active": active.value,
        "mean_active_low": active.low,
        "mean_active_high": active.high,
        "discriminative": scores.num_discriminative,
        "empty_share": scores.empty_share,
        "empty_share_train": None if math.isnan(found.empty_share) else found.empty_share,
    }


def _pictures(result: FailurePrediction, title: str) -> list[Picture]:
    auroc = {name: intervals.auroc for name, intervals in result.intervals.items()}
    return [
        picture(
            "failure-curves",
            "ROC and precision-recall (figure 4)",
            "ROC and precision-recall curves of Q-Score and the baselines.",
            lambda: figures.failure_curves(result),
            curve_columns(result),
        ),
        picture(
            "risk-coverage",
            "Risk over coverage",
            "Selective and generalised risk of Q-Score and the baselines over coverage, beside the best and a random order.",
            lambda: risk_coverage_curves(result),
            risk_coverage_columns(result),
        ),
        picture(
            "auroc-intervals",
            "AUROC with intervals",
            "AUROC of Q-Score and the baselines with 95 % intervals.",
            lambda: auroc_bars(auroc, title),
            interval_columns("score", auroc),
        ),
    ]


def without_answer(missing: int, rows: int) -> list[str]:
    """One sentence where rows of a store have no answer; else none.

    >>> without_answer(3, 100)
    ['3 of 100 test rows are unlabelled or not finite: they have no answer and are left out.']
    """
    if not missing:
        return []
    are, they, have = ("is", "it has", "is") if missing == 1 else ("are", "they have", "are")
    return [f"{missing} of {rows} test rows {are} unlabelled or not finite: {they} no answer and {have} left out."]
