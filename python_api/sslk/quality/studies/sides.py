"""One-sided and two-sided Q-Score as failure predictors of signed features."""

from __future__ import annotations

from sslk.features.store import FeatureStore
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.source import answered_rows, check_same_model, described
from sslk.progress import Progress
from sslk.quality.settings import BootstrapSettings, DiscoverSettings
from sslk.quality.signed import compare_sides
from sslk.quality.studies.failure import without_answer
from sslk.quality.studies.figures import auroc_bars, interval_columns
from sslk.results.figure import picture
from sslk.results.provenance import provenance
from sslk.results.run import Measure, Run, RunTable
from sslk.statistics.small_data import empty_sets, few_rows, small_data


def sides_study(
    train: FeatureStore,
    test: FeatureStore,
    outputs: ProbeOutputs,
    settings: DiscoverSettings = DiscoverSettings(),  # noqa: B008 (frozen)
    bootstrap: BootstrapSettings = BootstrapSettings(),  # noqa: B008
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Run:
    """Compare one-sided and two-sided sets at the same mean number of active features, see `compare_sides`.

    Args:
        train: store the discriminative features are found on.
        test: the samples that are scored; features may be signed.
        outputs: a classifier's answers for them.
        settings: of the one-sided set, `two_sided` not given; the two-sided threshold is matched to its mean `|L_i|`.
        bootstrap: of the intervals.
        device: where the kernels run.
        progress: called after each of the four passes.

    Raises:
        StoreError, ValueError: as for `compare_sides`.
    """
    check_same_model(train.require(), test.require())
    answered = answered_rows(test, outputs)
    result = compare_sides(train, test, outputs, settings, bootstrap, device=device, progress=progress)
    sides = {"one-sided": result.one_sided, "two-sided": result.two_sided}
    rows = [
        [
            side,
            found.eps,
            found.mean_active,
            found.num_discriminative,
            100 * result.scores[side].empty_share,
            *result.auroc[side][:3],
            result.curves[side].auprc,
        ]
        for side, found in sides.items()
    ]
    columns = ["side", "eps", "mean |L_i| (train)", "|S|", "empty sets (test) [%]", "AUROC", "low", "high", "AUPRC"]
    gain = result.gain
    verdict = "two-sided is better" if gain.low > 0 else "one-sided is better"
    if gain.low <= 0 <= gain.high:
        verdict = "the interval holds 0: no difference is shown"
    findings = [
        f"Two-sided less one-sided AUROC is {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] "
        f"at equal mean |L_i| ({result.one_sided.mean_active:.1f} and {result.two_sided.mean_active:.1f}): {verdict}.",
        f"{100 * result.negative_share:.1f} % of the training features are negative.",
    ]
    for side, found in sides.items():
        said = empty_sets(found.empty_share, result.scores[side].empty_share)
        findings += [f"{side.capitalize()}: {sentence[0].lower()}{sentence[1:]}" for sentence in said]
    findings += few_rows(result.one_sided.num_samples, train.num_features)
    findings += small_data(test=len(answered), classes=len(outputs.classes))
    findings += [*without_answer(len(test) - len(answered), len(test)), *result.one_sided.said()]
    summary = {
        "auroc_one_sided": result.auroc["one-sided"].value,
        "auroc_two_sided": result.auroc["two-sided"].value,
        "gain": gain.value,
        "gain_low": gain.low,
        "gain_high": gain.high,
        "eps_one_sided": result.one_sided.eps,
        "eps_two_sided": result.two_sided.eps,
        "negative_share": result.negative_share,
        "accuracy": outputs.accuracy,
    }
    drawn = picture(
        "sides",
        "One-sided and two-sided AUROC",
        "AUROC of both sides with 95 % intervals.",
        lambda: auroc_bars(result.auroc, "One-sided and two-sided sets"),
        interval_columns("side", result.auroc),
    )
    origin = {
        "command": "sides",
        **vars(bootstrap),
        "train": described(train),
        "test": described(test),
        "classifier": outputs.source.get("probe", "unknown"),
    }
    table = RunTable("One-sided and two-sided Q-Score at matched mean |L_i|", columns, rows)
    data, model, count = test.spec.dataset, test.spec.model, len(answered)
    measures = [
        Measure(data, model, f"failure prediction by {side} Q-Score", "AUROC", i.value, i.low, i.high, count)
        for side, i in result.auroc.items()
    ]
    title = "Sides of signed features"
    return Run("qscore", title, findings, provenance(origin), summary, [table], [drawn], measures=measures)
