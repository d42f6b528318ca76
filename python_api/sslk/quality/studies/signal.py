"""When Q-Score tells anything: the study of one encoder."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sslk.features.store import FeatureStore
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.source import described
from sslk.progress import Progress
from sslk.quality.failure import said_missing
from sslk.quality.settings import BootstrapSettings, DiscoverSettings, SignalSettings
from sslk.quality.signal import NORM, signal
from sslk.quality.studies.failure import without_answer
from sslk.quality.studies.figures import auroc_bars, interval_columns
from sslk.quality.studies.signal_figures import eps_curves, feature_curves, partial_bars
from sslk.quality.studies.signal_tables import columns_of, findings_of, measures_of, records, summary_of, tables_of
from sslk.results.figure import picture
from sslk.results.provenance import provenance
from sslk.results.run import Run
from sslk.statistics.small_data import empty_sets, small_data


def signal_study(
    train: FeatureStore,
    test: FeatureStore,
    outputs: ProbeOutputs,
    settings: SignalSettings = SignalSettings(),  # noqa: B008 (frozen)
    discovery: DiscoverSettings = DiscoverSettings(),  # noqa: B008
    bootstrap: BootstrapSettings = BootstrapSettings(),  # noqa: B008
    *,
    scores: Mapping[str, Tensor] | None = None,
    progress: Progress | None = None,
) -> Run:
    """When Q-Score tells which answers are right: over eps, over D, beside other scores, and beyond norm and confidence.

    Arguments and errors are those of `sslk.quality.signal.signal`.
    """
    found = signal(train, test, outputs, settings, discovery, bootstrap, scores=scores, progress=progress)
    tables = tables_of(found)
    rows = [records(table) for table in tables]
    areas = {name: found.areas.of(name) for name in found.names}
    answered = len(outputs.correct)
    findings = findings_of(found)
    findings += empty_sets(found.found.empty_share, found.scores.empty_share)
    findings += small_data(test=answered, classes=len(outputs.classes))
    findings += [*without_answer(len(test) - answered, len(test)), *found.scores.said(), *found.found.said()]
    findings += [*said_missing(found.prediction.missing, answered - found.prediction.nonfinite), *found.said]
    spec = test.spec
    model = f"{spec.model}, {spec.feature}" if spec.feature else spec.model
    origin = {
        "command": "signal",
        **vars(settings),
        **vars(bootstrap),
        "train": described(train),
        "test": described(test),
        "scores": list(scores or ()),
        "classifier": outputs.source.get("probe", "unknown"),
        "eps": found.scores.eps,
        "lower": discovery.lower,
        "upper": discovery.upper,
        "two_sided": found.found.two_sided,
    }
    norm = found.areas.of(NORM).value
    pictures = [
        picture(
            "auroc",
            "AUROC of every score",
            "AUROC of Q-Score and the other scores with 95 % intervals.",
            lambda: auroc_bars(areas, "Telling right from wrong answers"),
            interval_columns("score", areas),
        ),
        picture(
            "partial",
            "What is left given other scores",
            "Rank correlation of every score with correctness given nothing, the norm, the confidence, and both.",
            lambda: partial_bars(rows[3]),
            columns_of(tables[3]),
        ),
    ]
    if rows[1]:
        pictures.append(
            picture(
                "eps",
                "Over eps",
                "AUROC, partial correlation given norm and confidence, and empty sets of Q-Score over eps.",
                lambda: eps_curves(rows[1], found.scores.eps, norm),
                columns_of(tables[1]),
            )
        )
    if rows[2][1:]:
        pictures.append(
            picture(
                "features",
                "Over the number of features",
                "AUROC of Q-Score and feature norm of random subsets of the features, over their size.",
                lambda: feature_curves(rows[2]),
                columns_of(tables[2]),
            )
        )
    return Run(
        "qscore",
        "When Q-Score tells anything",
        findings,
        provenance(origin),
        summary_of(found),
        tables,
        pictures,
        measures=measures_of(found, spec.dataset, model),
    )
