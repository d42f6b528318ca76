"""Representation compression: accuracy of linear probes on subsets of the features."""

from __future__ import annotations

from typing import Any

from sslk.features.store import FeatureStore
from sslk.probes.labelled import in_memory, rows_of
from sslk.probes.linear import linear_probe
from sslk.probes.outputs import accuracy_interval
from sslk.probes.source import described, joined, unlike_classes
from sslk.progress import Progress
from sslk.quality.discovery import discover
from sslk.quality.settings import CompressionSettings, DiscoverSettings
from sslk.quality.studies.figures import compression_curves
from sslk.quality.subsets import compression
from sslk.results.figure import picture
from sslk.results.provenance import provenance
from sslk.results.run import Measure, Run, RunTable
from sslk.statistics.small_data import small_data, standard_error


def compression_study(
    train: FeatureStore,
    test: FeatureStore,
    settings: CompressionSettings = CompressionSettings(),  # noqa: B008 (frozen)
    features: DiscoverSettings = DiscoverSettings(),  # noqa: B008
    *,
    device: str | None = None,
    progress: Progress | None = None,
) -> Run:
    """Top-1 of linear probes on five selections and ten sizes of the features, see `compression`.

    Args:
        train, test: labelled stores of one model.
        settings: selections, sizes and probes.
        features: of the activation percentages, by which features are selected.
        device: where to compute.
        progress: called with the probes trained and to train.

    Raises:
        StoreError: a store is incomplete, without labels, or of another model than the other.
        ValueError: as for `compression`.
    """
    test = joined(train.require(labels=True), test.require(labels=True))
    found = discover(train, **vars(features), device=device)
    study = compression(
        train, test, found.activation_percent, settings, band=(features.lower, features.upper), device=device, progress=progress
    )
    mean, std = 100 * study.top1.mean(2), 100 * study.top1.std(2, correction=0)
    rows: list[list[Any]] = [
        [reduction, study.kept[r], *(float(v) for s in range(len(study.selections)) for v in (mean[s, r], std[s, r]))]
        for r, reduction in enumerate(study.reductions)
    ]
    columns = ["left out [%]", "features"]
    columns += [text for name in study.selections for text in (f"{name} top-1 [%]", f"{name} std")]
    samples = study.test_rows.used
    noise = standard_error(samples)
    # A point cannot be told from none where an accuracy is that uncertain.
    lossless = {name: study.lossless(name) if noise <= 1 else None for name in study.selections}
    findings = [
        f"{name}: up to {lossless[name]:g} % of the features can be left out within one point of all features' "
        f"top-1 ({float(mean[s, 0]):.1f} %)."
        for s, name in enumerate(study.selections)
        if lossless[name] is not None
    ]
    if noise > 1:
        findings.append(
            f"How many features can be left out within one point of all features' top-1 ({float(mean[0, 0]):.1f} %) "
            "cannot be said: the standard error is larger than a point."
        )
    findings.append(
        f"{samples} test samples: a top-1 has a standard error of at most {noise:.2f} points, beside the deviation over seeds."
    )
    if study.converged < 1:
        findings.append(
            f"{100 * (1 - study.converged):.3g} % of the probes were stopped before their loss was within "
            f"{settings.tolerance:g} of the least possible (max_iterations {settings.max_iterations}): their accuracies "
            "may be too low."
        )
    first, second = ((x, rows.labels) for rows, x in map(in_memory, rows_of(train, test)))
    plain = linear_probe(first, second, device=device or "cpu")
    findings += small_data(train=study.train_rows.used, features=study.kept[0], test=samples, classes=len(plain.classes))
    findings += [*unlike_classes(train, test), *study.train_rows.said("training"), *study.test_rows.said("test")]
    findings += plain.outputs.missing_classes()
    low, _ = accuracy_interval(int(plain.correct.sum()), len(plain.correct))
    if 100 * low > float(mean[0, 0]) and study.reductions[0] == 0:
        findings.append(
            f"The probe on all features ({float(mean[0, 0]):.1f} %) lies under the plain linear probe "
            f"({100 * plain.top1:.1f} %) by more than its interval: another l2 is needed."
        )
    summary = {
        **{f"lossless_{name.replace(' ', '_')}": value for name, value in lossless.items()},
        "linear_probe_top1": plain.top1,
        "top1_all_features": float(mean[0, 0]) / 100,
        "probes": study.top1.numel() * len(settings.l2),
        "converged": study.converged,
        "eps": found.eps,
        **study.train_rows.summary("train"),
        **study.test_rows.summary("test"),
    }
    drawn = picture(
        "compression",
        "Accuracy of feature subsets (figure 2)",
        "Top-1 over the share of features left out, for five selections.",
        lambda: compression_curves(study),
        {column: [row[c] for row in rows] for c, column in enumerate(columns)},
    )
    origin = {
        "command": "compression",
        "train": described(train),
        "test": described(test),
        "seeds": settings.seeds,
        "l2": settings.l2,
        "eps": found.eps,
        "lower": features.lower,
        "upper": features.upper,
        "two_sided": found.two_sided,
        "tolerance": settings.tolerance,
    }
    table = RunTable(f"Top-1 on subsets, over {settings.seeds} seeds", columns, rows)
    data, model = test.spec.dataset, test.spec.model
    measures = [
        Measure(data, model, f"linear probe on {kept} features, {name}", "top-1 [%]", float(mean[s, r]), samples=samples)
        for s, name in enumerate(study.selections)
        for r, kept in enumerate(study.kept)
    ]
    title = "Representation compression"
    return Run("compression", title, findings, provenance(origin), summary, [table], [drawn], measures=measures)
