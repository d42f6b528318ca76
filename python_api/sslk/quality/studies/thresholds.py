"""The sweep of eps and the percentiles between which features are discriminative."""

from __future__ import annotations

from sslk.features.store import FeatureStore
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.source import answered_rows, check_same_model, described
from sslk.progress import Progress
from sslk.quality.ablation import sweep_thresholds
from sslk.quality.settings import ThresholdSettings
from sslk.quality.studies.failure import without_answer
from sslk.quality.studies.figures import threshold_curves
from sslk.results.figure import picture
from sslk.results.provenance import provenance
from sslk.results.run import Run, RunTable
from sslk.statistics.small_data import auroc_standard_error, few_rows, lost_in_noise, small_data


def thresholds_study(
    train: FeatureStore,
    test: FeatureStore,
    outputs: ProbeOutputs,
    settings: ThresholdSettings = ThresholdSettings(),  # noqa: B008 (frozen)
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Run:
    """AUROC of Q-Score at every eps and band of percentiles, see `sweep_thresholds`.

    Args:
        train: store the discriminative features are found on.
        test: the samples that are scored.
        outputs: a classifier's answers for them.
        settings: the points of the sweep.
        device: where the kernels run.
        progress: called with the points done and to do.

    Raises:
        StoreError: the stores are of two models, or the outputs of other samples.
        ValueError: a band is not LOWER-UPPER, or as for `sweep_thresholds`.
    """
    check_same_model(train.require(), test.require())
    answered = answered_rows(test, outputs)
    points = sweep_thresholds(
        train,
        test,
        outputs,
        eps=settings.eps,
        bands=[_band(text) for text in settings.bands],
        two_sided=settings.two_sided,
        device=device,
        progress=progress,
    )
    columns = ["eps", "lower", "upper", "|S|", "mean |L_i| (train)", "empty sets (test)", "AUROC", "AUPRC"]
    rows = [point.row() for point in points]
    known = [(point.auroc, point) for point in points if point.auroc is not None]
    auroc, best = max(known, key=lambda pair: pair[0], default=(None, None))
    findings = ["No setting separates correct from wrong: all scores are alike."]
    if best is not None and auroc is not None:
        lowest = min(value for value, _ in known)
        findings = [
            f"AUROC lies between {lowest:.3f} and {auroc:.3f}; the highest, at eps {best.eps:g} and P{best.lower:g} to "
            f"P{best.upper:g}, was chosen on the test samples and is no estimate."
        ]
        correct = int(outputs.correct.sum())
        error = auroc_standard_error(auroc or 0.5, correct, len(outputs.correct) - correct)
        noise = lost_in_noise(auroc - lowest, error, "an AUROC", len(outputs.correct))
        findings += noise if len(known) > 1 else []
    findings += few_rows(len(train), train.num_features) + small_data(test=len(answered), classes=len(outputs.classes))
    findings += without_answer(len(test) - len(answered), len(test))
    summary = {"auroc_highest": auroc, "eps_highest": best.eps if best else None, "points": len(points)}
    drawn = picture(
        "thresholds",
        "AUROC over eps and percentiles",
        "AUROC of Q-Score and share of empty sets over eps, one line per band of percentiles.",
        lambda: threshold_curves(points),
        {column: [row[c] for row in rows] for c, column in enumerate(columns)},
    )
    origin = {
        "command": "ablation thresholds",
        "train": described(train),
        "test": described(test),
        "eps": settings.eps,
        "bands": settings.bands,
    }
    table = RunTable("Failure prediction over eps and percentiles", columns, rows)
    return Run("ablation", "Thresholds of Q-Score", findings, provenance(origin), summary, [table], [drawn])


def _band(text: str) -> tuple[float, float]:
    lower, _, upper = text.partition("-")
    try:
        return float(lower), float(upper)
    except ValueError:
        raise ValueError(f"bands must be percentiles as LOWER-UPPER, such as 50-95, got {text!r}.") from None
