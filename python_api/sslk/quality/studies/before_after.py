"""What further training changed: one encoder before and after, sample by sample."""

from __future__ import annotations

from sslk.features.store import FeatureStore
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.source import described
from sslk.quality.before_after import before_after
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.quality.settings import BootstrapSettings
from sslk.quality.studies.failure import without_answer
from sslk.quality.studies.figures import before_after_panels
from sslk.results.figure import picture
from sslk.results.provenance import provenance
from sslk.results.run import Run, RunTable
from sslk.statistics.small_data import empty_sets, small_data

_SAMPLE = ("active", "qscore", "confidence")


def before_after_study(
    before: FeatureStore,
    after: FeatureStore,
    before_outputs: ProbeOutputs,
    after_outputs: ProbeOutputs,
    discriminative: DiscriminativeFeatures,
    bootstrap: BootstrapSettings = BootstrapSettings(),  # noqa: B008 (frozen)
    *,
    device: str = "cpu",
) -> Run:
    """`|L_i|`, Q-Score and the probe's confidence per sample, before and after further training (figure A.10).

    Args:
        before, after: stores of the same samples.
        before_outputs, after_outputs: answers of a probe on each.
        discriminative: found on the encoder before further training.
        bootstrap: of the intervals.
        device: where the kernels run.

    Raises:
        StoreError, ValueError: as for `before_after`.
    """
    change = before_after(
        before.require(), after.require(), before_outputs, after_outputs, discriminative, **vars(bootstrap), device=device
    )
    named = {
        "mean |L_i|": change.active,
        "mean Q-Score": change.qscore,
        "mean confidence": change.confidence,
        "accuracy": change.accuracy,
    }
    sides = {"before": change.before, "after": change.after}
    means = [[float(getattr(side, name).double().mean()) for name in (*_SAMPLE, "correct")] for side in sides.values()]
    rows = [[name, first, second, *interval[:3]] for (name, interval), first, second in zip(named.items(), *means, strict=True)]
    findings = [
        f"{name} changes by {i.value:+.4g} [{i.low:+.4g}, {i.high:+.4g}]"
        + (", which may be nothing." if i.low <= 0 <= i.high else ".")
        for name, i in named.items()
    ]
    findings += empty_sets(discriminative.empty_share, float((change.before.qscore == 0).double().mean()))
    samples = len(change.before.correct)
    findings += small_data(test=samples, classes=len(before_outputs.classes))
    findings += without_answer(len(before) - samples, len(before))
    findings.append(f"{change.repaired} samples became correct and {change.broken} wrong.")
    summary = {
        "active_change": change.active.value,
        "qscore_change": change.qscore.value,
        "confidence_change": change.confidence.value,
        "accuracy_change": change.accuracy.value,
        "repaired": change.repaired,
        "broken": change.broken,
    }
    drawn = picture(
        "before-after",
        "Before and after (figure A.10)",
        "Histograms of |L_i|, Q-Score and confidence before and after further training.",
        lambda: before_after_panels(change),
        {f"{name} {when}": getattr(side, name).tolist() for name in _SAMPLE for when, side in sides.items()},
    )
    origin = {
        "command": "before-after",
        **vars(bootstrap),
        "before": described(before),
        "after": described(after),
        "eps": discriminative.eps,
    }
    columns = ["quantity", "before", "after", "change", "low", "high"]
    table = RunTable("Means, and intervals of the change", columns, rows)
    title = "Before and after further training"
    return Run("qscore", title, findings, provenance(origin), summary, [table], [drawn])
