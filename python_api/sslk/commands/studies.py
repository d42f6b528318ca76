"""Compression and the sweep of thresholds from the command line."""

from __future__ import annotations

from pathlib import Path

from sslk.commands.console import print_fields, progress_bar
from sslk.commands.sources import Extraction, described, open_stores, parsed_eps
from sslk.features.store import FeatureStore
from sslk.probes.batched import PENALTIES
from sslk.probes.linear import linear_probe
from sslk.probes.outputs import ProbeOutputs, accuracy_interval
from sslk.probes.source import check_same_model, require_same_rows, unlike_classes
from sslk.quality import study_figures
from sslk.quality.ablation import sweep_thresholds
from sslk.quality.compression import REDUCTIONS, SELECTIONS, Selection, compression_study
from sslk.quality.streaming import discover_store
from sslk.results.figure import save_figure
from sslk.results.provenance import provenance
from sslk.results.run import Run, RunTable
from sslk.statistics.small_data import auroc_standard_error, few_rows, lost_in_noise, small_data, standard_error


def compression(
    out: str,
    train: str | None = None,
    test: str | None = None,
    extraction: Extraction = Extraction(),  # noqa: B008 (frozen)
    selections: list[Selection] = list(SELECTIONS),  # noqa: B006 (never written to)
    reductions: list[float] = list(REDUCTIONS),  # noqa: B006
    seeds: int = 4,
    l2: list[float] = list(PENALTIES),  # noqa: B006
    eps: float | str = "auto",
    lower: float = 50.0,
    upper: float = 95.0,
    tolerance: float = 1e-4,
    max_iterations: int = 1000,
    device: str | None = None,
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Accuracy of linear probes on subsets of the features: five selections, ten sizes, all trained as one batch.

    Examples:
        $ sslk compression --train runs/sample-train --test runs/sample-test --out runs/compression

    Args:
        out: folder of the run.
        train: folder of the training set's feature store.
        test: folder of the test set's.
        extraction: a model and its data, in place of the stores.
        selections: which features are kept.
        reductions: percent of the features left out, below 100.
        seeds: validation splits (and draws of random features).
        l2: penalties to choose from on the validation split.
        eps: threshold of the activation percentages, or auto.
        lower: percentile towards which the discriminative selection narrows from below.
        upper: percentile towards which it narrows from above.
        tolerance: how far a probe's loss may lie above the least possible, in nats.
        max_iterations: evaluations at most.
        device: where to compute.
        json: print one JSON object.
        quiet: no progress bar.
    """
    folder = Path(out)
    first, second = open_stores(train, test, extraction, folder, device, quiet)
    found = discover_store(first, parsed_eps(eps), lower, upper, device=device or "cpu")
    bank, queries = first.load(), second.load()
    assert bank.labels is not None and queries.labels is not None
    with progress_bar("training", quiet) as update:
        study = compression_study(
            bank.features, bank.labels, queries.features, queries.labels, found.activation_percent,
            selections=selections, reductions=reductions, seeds=seeds, l2=l2, lower=lower, upper=upper,
            tolerance=tolerance, max_iterations=max_iterations, device=device, progress=update,
        )  # fmt: skip
    mean, std = 100 * study.top1.mean(2), 100 * study.top1.std(2, correction=0)
    rows = [
        [reduction, study.kept[r], *(float(v) for s in range(len(study.selections)) for v in (mean[s, r], std[s, r]))]
        for r, reduction in enumerate(study.reductions)
    ]
    columns = ["left out [%]", "features"]
    columns += [text for name in study.selections for text in (f"{name} top-1 [%]", f"{name} std")]
    noise = standard_error(len(queries.labels))
    # A point cannot be told from none where an accuracy is that uncertain.
    verdicts = {name: study.lossless(name) if noise <= 1 else None for name in study.selections}
    findings = [
        f"{name}: up to {verdicts[name]:g} % of the features can be left out within one point of all features' "
        f"top-1 ({float(mean[s, 0]):.1f} %)."
        for s, name in enumerate(study.selections)
        if verdicts[name] is not None
    ]
    if noise > 1:
        findings.append(
            f"How many features can be left out within one point of all features' top-1 ({float(mean[0, 0]):.1f} %) "
            "cannot be said: the standard error is larger than a point."
        )
    findings.append(
        f"{len(queries.labels)} test samples: a top-1 has a standard error of at most {noise:.2f} points, beside the "
        "deviation over seeds."
    )
    if study.converged < 1:
        findings.append(
            f"{100 * (1 - study.converged):.3g} % of the probes were stopped before their loss was within {tolerance:g} "
            f"of the least possible (max_iterations {max_iterations}): their accuracies may be too low."
        )
    summary: dict[str, float | int | str | None] = {
        f"lossless_{name.replace(' ', '_')}": value for name, value in verdicts.items()
    }
    classes = len(bank.labels.unique())
    findings += small_data(train=len(bank.labels), features=study.kept[0], test=len(queries.labels), classes=classes)
    findings += unlike_classes(first, second)
    plain = linear_probe(bank.features, bank.labels, queries.features, queries.labels, device=device or "cpu")
    low, _ = accuracy_interval(int(plain.correct.sum()), len(plain.correct))
    if 100 * low > float(mean[0, 0]) and study.reductions[0] == 0:
        findings.append(
            f"The probe on all features ({float(mean[0, 0]):.1f} %) lies under the plain linear probe "
            f"({100 * plain.top1:.1f} %) by more than its interval: another l2 is needed."
        )
    summary |= {"linear_probe_top1": plain.top1}
    summary |= {"top1_all_features": float(mean[0, 0]) / 100, "probes": study.top1.numel() * len(l2),
                "converged": study.converged, "eps": found.eps}  # fmt: skip
    data = {"left out [%]": [r[0] for r in rows], "features": [r[1] for r in rows]}
    data |= {column: [row[2 + c] for row in rows] for c, column in enumerate(columns[2:])}
    picture = save_figure(
        study_figures.compression_curves(study), folder, "compression", "Accuracy of feature subsets (figure 2)",
        "Top-1 over the share of features left out, for five selections.", data,
    )  # fmt: skip
    run = {"command": "compression", "train": described(first), "test": described(second), "seeds": seeds, "l2": l2,
           "eps": found.eps, "lower": lower, "upper": upper, "tolerance": tolerance}  # fmt: skip
    Run("compression", "Representation compression", findings, provenance(run), summary,
        [RunTable(f"Top-1 on subsets, over {seeds} seeds", columns, rows)], [picture]).save(folder)  # fmt: skip
    print_fields({**summary, "folder": out}, json)


def thresholds(
    train: str,
    test: str,
    outputs: str,
    out: str,
    eps: list[float] = [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0],  # noqa: B006
    bands: list[str] = ["50-95", "0-95", "50-100", "25-75"],  # noqa: B006
    two_sided: bool | None = None,
    device: str = "cpu",
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Sweep eps and the percentiles between which features are discriminative: AUROC of Q-Score at each.

    Examples:
        $ sslk ablation thresholds --train runs/sample-train --test runs/sample-test --outputs runs/linear --bands 50-95 0-100 --out runs/sweep

    Args:
        train: feature store the discriminative features are found on.
        test: feature store whose samples are scored.
        outputs: a probe's run, or its outputs.safetensors, for the test samples.
        out: folder of the run.
        eps: thresholds in standard deviations.
        bands: percentiles as LOWER-UPPER.
        two_sided: count large negative deviations too; where the features are signed by default.
        device: where the kernels run.
        json: print one JSON object.
        quiet: no progress bar.
    """  # noqa: E501
    folder, first, second = Path(out), FeatureStore(train).require(), FeatureStore(test).require()
    answers = ProbeOutputs.load(outputs)
    check_same_model(first, second)
    require_same_rows(second, answers)
    with progress_bar("sweeping", quiet) as update:
        points = sweep_thresholds(
            first, second, answers.correct, eps=eps, bands=[_band(text) for text in bands], two_sided=two_sided,
            device=device, progress=update,
        )  # fmt: skip
    columns = ["eps", "lower", "upper", "|S|", "mean |L_i| (train)", "empty sets (test)", "AUROC", "AUPRC"]
    rows = [point.row() for point in points]
    known = [point for point in points if point.auroc is not None]
    best = max(known, key=lambda p: p.auroc or 0.0, default=None)
    findings = ["No setting separates correct from wrong: all scores are alike."] if best is None else [
        f"AUROC lies between {min(p.auroc or 0 for p in known):.3f} and {best.auroc:.3f}; the highest, at eps "
        f"{best.eps:g} and P{best.lower:g} to P{best.upper:g}, was chosen on the test samples and is no estimate.",
    ]  # fmt: skip
    if best is not None:
        correct = int(answers.correct.sum())
        error = auroc_standard_error(best.auroc or 0.5, correct, len(answers.correct) - correct)
        span = (best.auroc or 0.0) - min(point.auroc or 0.0 for point in known)
        findings += lost_in_noise(span, error, "an AUROC", len(answers.correct)) if len(known) > 1 else []
    findings += few_rows(len(first), first.num_features) + small_data(test=len(second), classes=len(answers.classes))
    summary = {"auroc_highest": best.auroc if best else None, "eps_highest": best.eps if best else None,
               "points": len(points)}  # fmt: skip
    picture = save_figure(
        study_figures.threshold_curves(points), folder, "thresholds", "AUROC over eps and percentiles",
        "AUROC of Q-Score and share of empty sets over eps, one line per band of percentiles.",
        {column: [row[c] for row in rows] for c, column in enumerate(columns)},
    )  # fmt: skip
    run = {
        "command": "ablation thresholds",
        "train": described(first),
        "test": described(second),
        "eps": eps,
        "bands": bands,
    }
    Run("ablation", "Thresholds of Q-Score", findings, provenance(run), dict(summary),
        [RunTable("Failure prediction over eps and percentiles", columns, rows)], [picture]).save(folder)  # fmt: skip
    print_fields({**summary, "folder": out}, json)


def _band(text: str) -> tuple[float, float]:
    lower, _, upper = text.partition("-")
    try:
        return float(lower), float(upper)
    except ValueError:
        raise ValueError(f"bands must be percentiles as LOWER-UPPER, such as 50-95, got {text!r}.") from None
