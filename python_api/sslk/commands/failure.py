"""Q-Score as a predictor of failures, from the command line: one encoder, and both sides of signed features."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from sslk.commands.console import print_fields, progress_bar
from sslk.commands.sources import described, parsed_eps
from sslk.features.store import FeatureStore
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.source import check_same_model, require_same_rows
from sslk.quality import figures, study_figures
from sslk.quality.belonging import load_set
from sslk.quality.discover import DiscriminativeFeatures
from sslk.quality.failure import FailurePrediction, failure_prediction_store
from sslk.quality.signed import compare_sides
from sslk.quality.streaming import discover_store, score_store
from sslk.results.figure import save_figure
from sslk.results.provenance import provenance
from sslk.results.run import Run, RunTable
from sslk.statistics.small_data import empty_sets, few_rows, small_data


def failure(
    test: str,
    outputs: str,
    out: str,
    train: str | None = None,
    discriminative: str | None = None,
    eps: float | str = "auto",
    lower: float = 50.0,
    upper: float = 95.0,
    two_sided: bool | None = None,
    further_trained: bool = False,
    resamples: int = 1000,
    seed: int = 0,
    device: str = "cpu",
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Judge Q-Score as a predictor of which samples a classifier gets right, beside baselines, with intervals.

    Examples:
        $ sslk failure runs/sample-test --train runs/sample-train --outputs runs/linear --out runs/failure
        $ sslk failure runs/sample-test --discriminative runs/set.safetensors --outputs runs/linear --out runs/failure

    Args:
        test: folder of the feature store whose samples are scored.
        outputs: a probe's run, or its outputs.safetensors, for the same samples; of any classifier, supervised too.
        out: folder of the run: results.json, curves, and scores.csv.
        train: feature store the discriminative features are found on.
        discriminative: file that `sslk discover` wrote for this model, in place of train; refused for another.
        eps: standard deviations above the mean at which a feature is highly activating, or auto (with train).
        lower: percentile of the activation percentages below which features are too rare.
        upper: percentile above which they are too common.
        two_sided: count large negative deviations too; where the features are signed by default.
        further_trained: the encoder was trained further since the set was found, so that its weights are others.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        device: where the kernels run.
        json: print one JSON object.
        quiet: no progress bar.
    """
    folder, store, answers = Path(out), FeatureStore(test).require(), ProbeOutputs.load(outputs)
    require_same_rows(store, answers)
    found = _discriminative(train, discriminative, store, eps, lower, upper, two_sided, further_trained, device, quiet)
    with progress_bar("scoring", quiet) as update:
        scores = score_store(store, found, further_trained=further_trained, device=device, progress=update)
    result = failure_prediction_store(store, scores.scores, answers, resamples=resamples, seed=seed)
    own = result.intervals["Q-Score"]
    rows = [
        [name, roc, result.intervals[name].auroc.low, result.intervals[name].auroc.high, pr,
         result.intervals[name].auprc.low, result.intervals[name].auprc.high]
        for name, roc, pr in result.table()[:-1]
    ]  # fmt: skip
    rows.append(["random (trivial)", 0.5, None, None, result.accuracy, None, None])
    columns = ["score", "AUROC", "AUROC low", "AUROC high", "AUPRC", "AUPRC low", "AUPRC high"]
    summary = {
        "auroc": own.auroc.value, "auroc_low": own.auroc.low, "auroc_high": own.auroc.high,
        "auprc": own.auprc.value, "auprc_low": own.auprc.low, "auprc_high": own.auprc.high,
        "accuracy": result.accuracy, "samples": len(scores.scores), "eps": scores.eps,
        "mean_active": scores.mean_active, "discriminative": scores.num_discriminative,
        "empty_share": scores.empty_share,
        "empty_share_train": None if math.isnan(found.empty_share) else found.empty_share,
    }  # fmt: skip
    picture = save_figure(
        figures.failure_curves(result), folder, "failure-curves", "ROC and precision-recall (figure 4)",
        "ROC and precision-recall curves of Q-Score and the baselines.", _curve_columns(result),
    )  # fmt: skip
    bars = save_figure(
        study_figures.auroc_bars({name: i.auroc for name, i in result.intervals.items()}, "Predicting correct answers"),
        folder, "auroc-intervals", "AUROC with intervals", "AUROC of Q-Score and the baselines with 95 % intervals.",
        {"score": list(result.intervals), "AUROC": [i.auroc.value for i in result.intervals.values()],
         "low": [i.auroc.low for i in result.intervals.values()],
         "high": [i.auroc.high for i in result.intervals.values()]},
    )  # fmt: skip
    findings = _findings(result, resamples) + empty_sets(found.empty_share, scores.empty_share)
    findings += small_data(test=len(store), classes=len(answers.classes))
    run = {"command": "failure", "seed": seed, "resamples": resamples, "test": described(store),
           "classifier": answers.source.get("probe", "unknown"), "eps": found.eps, "two_sided": found.two_sided,
           "lower": found.lower, "upper": found.upper}  # fmt: skip
    Run(
        "qscore", "Failure prediction", findings, provenance(run), dict(summary),
        [RunTable("Predicting which samples are classified correctly; 95 % bootstrap intervals", columns, rows)],
        [picture, bars],
    ).save(folder)  # fmt: skip
    print_fields({**summary, "folder": out}, json)


def sides(
    test: str,
    outputs: str,
    train: str,
    out: str,
    eps: float | str = "auto",
    lower: float = 50.0,
    upper: float = 95.0,
    resamples: int = 1000,
    seed: int = 0,
    device: str = "cpu",
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Compare one-sided and two-sided Q-Score as failure predictors, at the same mean number of active features.

    Examples:
        $ sslk sides runs/vit-test --train runs/vit-train --outputs runs/linear --out runs/sides

    Args:
        test: folder of the feature store whose samples are scored; features may be signed.
        outputs: a probe's run, or its outputs.safetensors, for the same samples.
        train: feature store the discriminative features are found on.
        out: folder of the run.
        eps: one-sided threshold, or auto; the two-sided one is matched to its mean |L_i|.
        lower: percentile of the activation percentages below which features are too rare.
        upper: percentile above which they are too common.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        device: where the kernels run.
        json: print one JSON object.
        quiet: no progress bar.
    """
    folder, store, answers = Path(out), FeatureStore(test).require(), ProbeOutputs.load(outputs)
    opened = FeatureStore(train).require()
    check_same_model(opened, store)
    require_same_rows(store, answers)
    with progress_bar("comparing", quiet) as update:
        result = compare_sides(
            opened, store, answers.correct, eps=parsed_eps(eps), lower=lower, upper=upper, resamples=resamples, seed=seed,
            device=device, progress=update,
        )  # fmt: skip
    rows = []
    for side, found in (("one-sided", result.one_sided), ("two-sided", result.two_sided)):
        roc, scores = result.auroc[side], result.scores[side]
        rows.append([side, found.eps, found.mean_active, found.num_discriminative, 100 * scores.empty_share, roc.value,
                     roc.low, roc.high, result.curves[side].auprc])  # fmt: skip
    columns = ["side", "eps", "mean |L_i| (train)", "|S|", "empty sets (test) [%]", "AUROC", "low", "high", "AUPRC"]
    verdict = "the interval holds 0: no difference is shown" if result.gain.low <= 0 <= result.gain.high else (
        "two-sided is better" if result.gain.low > 0 else "one-sided is better"
    )  # fmt: skip
    findings = [
        f"Two-sided less one-sided AUROC is {result.gain.value:+.3f} [{result.gain.low:+.3f}, {result.gain.high:+.3f}] "
        f"at equal mean |L_i| ({result.one_sided.mean_active:.1f} and {result.two_sided.mean_active:.1f}): {verdict}.",
        f"{100 * result.negative_share:.1f} % of the training features are negative.",
    ]
    for side, found in (("one-sided", result.one_sided), ("two-sided", result.two_sided)):
        said = empty_sets(found.empty_share, result.scores[side].empty_share)
        findings += [f"{side.capitalize()}: {sentence[0].lower()}{sentence[1:]}" for sentence in said]
    findings += few_rows(len(opened), opened.num_features) + small_data(test=len(store), classes=len(answers.classes))
    summary = {
        "auroc_one_sided": result.auroc["one-sided"].value, "auroc_two_sided": result.auroc["two-sided"].value,
        "gain": result.gain.value, "gain_low": result.gain.low, "gain_high": result.gain.high,
        "eps_one_sided": result.one_sided.eps, "eps_two_sided": result.two_sided.eps,
        "negative_share": result.negative_share, "accuracy": answers.accuracy,
    }  # fmt: skip
    picture = save_figure(
        study_figures.auroc_bars(result.auroc, "One-sided and two-sided sets"), folder, "sides",
        "One-sided and two-sided AUROC", "AUROC of both sides with 95 % intervals.",
        {"side": list(result.auroc), "AUROC": [i.value for i in result.auroc.values()],
         "low": [i.low for i in result.auroc.values()], "high": [i.high for i in result.auroc.values()]},
    )  # fmt: skip
    run = {"command": "sides", "seed": seed, "resamples": resamples, "train": described(opened),
           "test": described(store), "classifier": answers.source.get("probe", "unknown")}  # fmt: skip
    Run("qscore", "Sides of signed features", findings, provenance(run), dict(summary),
        [RunTable("One-sided and two-sided Q-Score at matched mean |L_i|", columns, rows)], [picture]).save(folder)  # fmt: skip
    print_fields({**summary, "folder": out}, json)


def _discriminative(
    train: str | None,
    discriminative: str | None,
    store: FeatureStore,
    eps: float | str,
    lower: float,
    upper: float,
    two_sided: bool | None,
    further_trained: bool,
    device: str,
    quiet: bool,
) -> DiscriminativeFeatures:
    if (train is None) == (discriminative is None):
        raise ValueError("give either --train, a feature store, or --discriminative, a file of `sslk discover`.")
    if discriminative is not None:
        return load_set(discriminative, store, further_trained=further_trained)
    opened = FeatureStore(str(train))
    check_same_model(opened, store)
    with progress_bar("discovering", quiet) as update:
        return discover_store(
            opened, parsed_eps(eps), lower, upper, two_sided=two_sided, device=device, progress=update
        )  # fmt: skip


def _findings(result: FailurePrediction, resamples: int) -> list[str]:
    own = result.intervals["Q-Score"]
    known = "above chance" if own.auroc.low > 0.5 else "not distinguishable from chance" if own.auroc.high >= 0.5 else (
        "below chance"
    )  # fmt: skip
    findings = [
        f"Q-Score predicts correct answers with AUROC {own.auroc}, {known}; AUPRC {own.auprc}, where the accuracy "
        f"{result.accuracy:.3f} is trivial ({resamples} bootstrap resamples).",
    ]
    for name, interval in result.intervals.items():
        if name == "Q-Score":
            continue
        gain = interval.auroc_gain
        word = "better than" if gain.low > 0 else "worse than" if gain.high < 0 else "not distinguishable from"
        findings.append(
            f"Q-Score is {word} {name}: AUROC difference {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]."
        )
    return findings


def _curve_columns(result: FailurePrediction, points: int = 200) -> dict[str, list[float]]:
    """Both curves of every score at up to `points` places."""
    columns = {}
    for name, curves in {"Q-Score": result.qscore, **result.baselines}.items():
        for kind, values in (("ROC", curves.roc), ("PR", curves.precision_recall)):
            places = np.unique(np.linspace(0, len(values[0]) - 1, points).round().astype(int))
            for axis, series in zip(("x", "y"), values, strict=True):
                columns[f"{name} {kind} {axis}"] = series[places].round(5).tolist()
    return columns
