"""One-sided sets, two-sided sets and sparse codes of the same features: failure prediction and compression, as a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from tempfile import TemporaryDirectory

from torch import Tensor

from sslk.codes.encoding import encode_store
from sslk.codes.figures import accuracy_curves
from sslk.codes.fitted import Codes
from sslk.codes.settings import CodesComparison
from sslk.features.store import FeatureStore
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.source import answered_rows, check_same_model, described, joined
from sslk.progress import Progress, renamed
from sslk.quality.discovery import discover
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.quality.score import QScores, qscore
from sslk.quality.settings import CompressionSettings, DiscoverSettings
from sslk.quality.signed import matching_eps
from sslk.quality.studies.failure import without_answer
from sslk.quality.studies.figures import auroc_bars, interval_columns
from sslk.quality.subsets import compression
from sslk.results.figure import picture
from sslk.results.provenance import provenance
from sslk.results.run import Measure, Run, RunTable
from sslk.statistics.bootstrap import Interval, bootstrap_areas, percentile_interval
from sslk.statistics.small_data import empty_sets, few_rows, small_data, standard_error

ONE, TWO, CODES = "one-sided sets", "two-sided sets", "sparse codes"


@dataclass(frozen=True)
class Kept:
    """Top-1 of linear probes on some of the features: the name of the side, how many were kept, mean and deviation over seeds."""

    side: str
    percent: float
    features: int
    top1: float
    std: float


def codes_study(
    train: FeatureStore,
    test: FeatureStore,
    outputs: ProbeOutputs,
    codes: Codes,
    settings: DiscoverSettings = DiscoverSettings(),  # noqa: B008 (frozen)
    comparison: CodesComparison = CodesComparison(),  # noqa: B008
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Run:
    """Compare three ways of applying Q-Score to signed features: one-sided sets, two-sided sets, and sparse codes of them.

    Failure prediction: the same samples and the same probe's answers, which is a probe on the features, for all three; the
    two-sided threshold is matched to the one-sided mean `|L_i|` (see `compare_sides`); intervals of differences are in pairs.
    Compression: linear probes on the discriminative features that are left at equal number and at equal share; for codes the
    probe is on the codes.

    Args:
        train: labelled store the discriminative features are found on.
        test: labelled store whose samples are scored.
        outputs: answers of a classifier of the features for them.
        codes: fitted on features of the same model, of the training images and never of the test images.
        settings: of all sets; `two_sided` not given.
        comparison: resamples, and what is kept.
        device: where to compute.
        progress: called at every stage.

    Raises:
        StoreError: a store is incomplete, unlabelled, or of another model; the answers are of other samples.
        ValueError: `two_sided` is given, the codes are of another model, all answers are right, or all wrong.
    """
    if settings.two_sided is not None:
        raise ValueError(f"two_sided must not be given, as both sides are compared, got {settings.two_sided}.")
    check_same_model(train.require(labels=True), test.require(labels=True))
    rows = answered_rows(test, outputs)
    with TemporaryDirectory() as folder:
        encoded_train, encoded_test = (
            encode_store(store, codes, f"{folder}/{name}", dtype="float32", device=device, progress=renamed(progress, stage))
            for store, name, stage in ((train, "train", "encoding training rows"), (test, "test", "encoding test rows"))
        )
        sets = _sets(train, encoded_train, settings, device)
        scores = {side: qscore(encoded_test if side == CODES else test, found, device=device) for side, found in sets.items()}
        auroc, gains = _failure(scores, rows, outputs.correct, comparison)
        kept: list[Kept] = []
        for side, found in sets.items():
            pair = (encoded_train, encoded_test) if side == CODES else (train, test)
            counts = _counts(comparison, train.num_features, pair[0].num_features)
            kept += _compressed(side, pair, found, counts, comparison, device, renamed(progress, f"probing {side}"))
    samples = len(rows)
    findings = [*_auroc_findings(auroc, gains, comparison.resamples), *_top1_findings(kept, train.num_features, len(test))]
    last = codes.history[-1]
    findings.append(
        f"The codes, {codes.autoencoder.k} of {codes.autoencoder.latents}, explain {100 * last.explained_variance:.1f} % of the "
        f"variance of rows held out ({100 * codes.train_explained_variance:.1f} % of those they were fitted on); "
        f"{int(codes.dead.sum())} are dead. Failures are those of one probe on the features; compression probes the codes."
    )
    for side, found in sets.items():
        said = empty_sets(found.empty_share, scores[side].empty_share)
        findings += [f"{side.capitalize()}: {sentence[0].lower()}{sentence[1:]}" for sentence in said]
    findings += few_rows(sets[ONE].num_samples, codes.autoencoder.latents)
    findings += small_data(test=samples, classes=len(outputs.classes))
    findings += [*without_answer(len(test) - samples, len(test)), *sets[ONE].said()]
    model = f"{train.spec.model}, {train.spec.feature}" if train.spec.feature else train.spec.model
    measures = [
        Measure(test.spec.dataset, model, f"failure prediction, Q-Score of {side}", "AUROC", *value[:3], samples)
        for side, value in auroc.items()
    ]
    measures += [
        Measure(test.spec.dataset, model, f"compression, {k.side}", f"top-1 on {k.features} features [%]", 100 * k.top1)
        for k in kept
    ]
    origin = {
        "command": "codes compare",
        "codes": codes.hash[:12],
        "fitted_on": codes.source.dataset,
        **{name: list(value) if isinstance(value, tuple) else value for name, value in vars(comparison).items()},
        "train": described(train),
        "test": described(test),
        "classifier": outputs.source.get("probe", "unknown"),
    }
    summary = {
        **{f"auroc_{_key(side)}": value.value for side, value in auroc.items()},
        **{
            f"gain_{_key(b)}_over_{_key(a)}{end}": value
            for (a, b), gain in gains.items()
            for end, value in (("", gain.value), ("_low", gain.low), ("_high", gain.high))
        },
        "explained_variance": last.explained_variance,
        "accuracy": outputs.accuracy,
    }
    return Run(
        "qscore",
        "One-sided sets, two-sided sets and sparse codes",
        findings,
        provenance(origin),
        summary,
        [_failure_table(sets, scores, auroc), _top1_table(kept)],
        [
            picture(
                "auroc",
                "AUROC of one-sided sets, two-sided sets and codes",
                "AUROC of the three with 95 % intervals.",
                lambda: auroc_bars(auroc, "Predicting correct answers"),
                interval_columns("side", auroc),
            ),
            picture(
                "compression",
                "Accuracy on the features that are kept",
                "Top-1 of linear probes over the number of features kept, for the three.",
                lambda: accuracy_curves(kept),
                {name: [getattr(k, name) for k in kept] for name in ("side", "percent", "features", "top1", "std")},
            ),
        ],
        measures=measures,
    )


def _key(side: str) -> str:
    return side.removesuffix(" sets").removeprefix("sparse ").replace("-", "_")


def _sets(
    train: FeatureStore, encoded: FeatureStore, settings: DiscoverSettings, device: str
) -> dict[str, DiscriminativeFeatures]:
    band = (settings.lower, settings.upper)
    one = discover(train, settings.eps, *band, two_sided=False, device=device)
    matched = matching_eps((batch.features for batch in train.batches(4096)), one.mean_active)
    return {
        ONE: one,
        TWO: discover(train, matched, *band, two_sided=True, device=device),
        CODES: discover(encoded, settings.eps, *band, two_sided=False, device=device),
    }


def _failure(
    scores: Mapping[str, QScores], rows: Tensor, correct: Tensor, comparison: CodesComparison
) -> tuple[dict[str, Interval], dict[tuple[str, str], Interval]]:
    """AUROC by side, and of every pair the second's less the first's on the same resamples."""
    from sklearn.metrics import roc_auc_score

    answered = {side: found.scores[rows] for side, found in scores.items()}
    known = ~answered[ONE].isnan()  # a row that is not finite has no score on any side
    answered, right = {side: values[known] for side, values in answered.items()}, correct[known]
    if bool(right.all()) or not bool(right.any()):
        raise ValueError(f"outputs must hold right and wrong answers, got {int(right.sum())} right of {len(right)}.")
    areas = bootstrap_areas(answered, right, comparison.resamples, comparison.seed)
    values = {side: float(roc_auc_score(right.numpy(), part.numpy())) for side, part in answered.items()}
    auroc = {side: percentile_interval(value, areas[side][:, 0]) for side, value in values.items()}
    gains = {
        (a, b): percentile_interval(values[b] - values[a], areas[b][:, 0] - areas[a][:, 0]) for a, b in combinations(scores, 2)
    }
    return auroc, gains


def _counts(comparison: CodesComparison, num_features: int, size: int) -> list[int]:
    """How many of `size` are kept: the shares of them, and as many as these shares are of D."""
    counts = {max(1, round(of * share / 100)) for share in comparison.kept for of in (size, num_features)}
    return sorted((count for count in counts if count <= size), reverse=True)


def _compressed(
    side: str,
    pair: tuple[FeatureStore, FeatureStore],
    found: DiscriminativeFeatures,
    counts: list[int],
    comparison: CodesComparison,
    device: str,
    progress: Progress | None,
) -> list[Kept]:
    """Probes on the discriminative part that is left."""
    train, test = pair
    size = train.num_features
    plan = CompressionSettings(
        selections=("discriminative",),
        reductions=tuple(100 * (1 - count / size) for count in counts),
        seeds=comparison.seeds,
        l2=comparison.l2,
        validation_share=comparison.validation_share,
        tolerance=comparison.tolerance,
        max_iterations=comparison.max_iterations,
    )
    band = (found.lower, found.upper)
    labelled = joined(train, test)
    result = compression(train, labelled, found.activation_percent, plan, band=band, device=device, progress=progress)
    return [
        Kept(side, 100 * count / size, count, float(values.mean()), float(values.std(correction=0)))
        for count, values in zip(result.kept, result.top1[0], strict=True)
    ]


def _auroc_findings(auroc: Mapping[str, Interval], gains: Mapping[tuple[str, str], Interval], resamples: int) -> list[str]:
    listed = "; ".join(f"{side} {value}" for side, value in auroc.items())
    findings = [f"AUROC of Q-Score as a predictor of correct answers: {listed} ({resamples} bootstrap resamples)."]
    for (a, b), gain in gains.items():
        verdict = f"{b} are better" if gain.low > 0 else f"{b} are worse" if gain.high < 0 else "no difference is shown"
        findings.append(
            f"{b.capitalize()} less {a}: {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] on the same samples: {verdict}."
        )
    return findings


def _top1_findings(kept: list[Kept], num_features: int, samples: int) -> list[str]:
    """What the probes reach at the numbers of features that all three have."""
    by_count = {side: {k.features: k for k in kept if k.side == side} for side in (ONE, TWO, CODES)}
    shared = sorted(set.intersection(*(set(found) for found in by_count.values())), reverse=True)
    noise = standard_error(samples)
    findings = [
        f"On {count} features of {num_features}, or as many codes, top-1 is "
        + ", ".join(f"{100 * found[count].top1:.1f} % ({side})" for side, found in by_count.items())
        + "."
        for count in shared
    ]
    findings.append(f"A top-1 on {samples} test samples has a standard error of at most {noise:.2f} points.")
    return findings


def _failure_table(
    sets: Mapping[str, DiscriminativeFeatures], scores: Mapping[str, QScores], auroc: Mapping[str, Interval]
) -> RunTable:
    rows = [
        [side, found.eps, found.mean_active, found.num_discriminative, 100 * scores[side].empty_share, *auroc[side][:3]]
        for side, found in sets.items()
    ]
    columns = ["side", "eps", "mean |L_i| (train)", "|S|", "empty sets (test) [%]", "AUROC", "low", "high"]
    return RunTable("Failure prediction, the same answers of a probe on the features", columns, rows)


def _top1_table(kept: list[Kept]) -> RunTable:
    rows = [[k.side, k.features, k.percent, 100 * k.top1, 100 * k.std] for k in kept]
    columns = ["side", "kept", "kept [%]", "top-1 [%]", "std over seeds"]
    return RunTable("Linear probes on the discriminative features that are kept; for codes, on the codes", columns, rows)
