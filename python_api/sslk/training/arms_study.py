"""Further training in several arms, each with settings chosen by as many trials, as a run with paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from sslk.data import Dataset
from sslk.progress import Progress
from sslk.results.atomic import write_table
from sslk.results.figure import picture
from sslk.results.provenance import provenance
from sslk.results.run import Measure, Run, RunTable
from sslk.results.style import SERIES, new_axes
from sslk.statistics.selective import Ranking
from sslk.statistics.small_data import lost_in_noise
from sslk.training.arms import BEFORE, Arms, ArmTrial, described
from sslk.training.config import TrainingConfig
from sslk.training.differences import ArmDifference, arm_difference
from sslk.training.run import claim
from sslk.training.samples import ArmSamples
from sslk.training.settings import ARM_VARIANTS, ArmSearch, Variant
from sslk.training.start import TrainingStart

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RUN_COLUMNS = ["arm", "seed", "probe top-1 [%]", "Q-Score AUROC", "mean Q", "mean |L_i|", "empty sets [%]"]
MEAN_COLUMNS = ["arm", "seeds", *RUN_COLUMNS[2:], "top-1 deviation"]
DIFFERENCE_COLUMNS = ["arm", "reference", "quantity", "difference", "low", "high", "seeds"]
TRIAL_COLUMNS = ["arm", "trial", "learning rate", "lambda1", "lambda2", "lasso", "validation top-1 [%]"]


def arms_study(
    start: TrainingStart,
    out: str | PathLike[str],
    config: TrainingConfig = TrainingConfig(epochs=20),  # noqa: B008 (frozen)
    search: ArmSearch = ArmSearch(),  # noqa: B008
    *,
    test: Dataset,
    validation: Dataset | None = None,
    variants: Sequence[Variant] = ARM_VARIANTS,
    progress: Progress | None = None,
) -> Run:
    """Compare arms of further training fairly: chosen by as many trials each, long, over several seeds, in pairs.

    Every arm's learning rate and lambdas are chosen by short trainings, judged by a logistic regression on `validation` or,
    without it, on a share of the training images that was held out of them. Then every arm is trained with its choice on
    all training images, once a seed, and evaluated once by the linear probe on the test images, which choose nothing. Arms
    of one seed see the same batches; differences are paired over seeds and images, and their intervals cover both.

    Args:
        start: encoder with its heads, method and labelled training images.
        out: folder; the same call goes on with the pieces it holds, and does no training where all are there.
        config: settings of the final trainings, at least 20 epochs to say anything; learning rate, lambdas and seed are
            those of each training instead.
        search: trials, ranges and seeds.
        test: labelled test images.
        validation: labelled images that judge the trials, none of them test images. The more there are, the less the choice
            is one of noise: of 1,000 images an accuracy of 70 % has an error of 1.4 points.
        variants: arms; `baseline` among them, which all others of its kind are compared with.
        progress: called with the trainings done and to do, and which it is.

    Raises:
        ValueError: no labels, no class in common, validation images that are the training or test images, no baseline, arms
            of one name, one seed alone, or another study in `out`.
        NonFiniteError: every trial of an arm, or a final training, diverged.
    """
    _check(variants, search, start.images, test, validation)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    about = described(start, config, search, test, validation)
    claim(folder, about, True)
    names = {"model": start.backbone.name, "images": start.images.name, "test_images": test.name, "seeds": list(search.seeds)}
    arms = Arms(start, folder, config, search, test, validation, progress)
    trials, chosen, samples = arms.run(variants)
    runs = [row for arm, found in samples.items() for row in _runs(arm, search.seeds, found)]
    differences = {
        pair: arm_difference(*(samples[name] for name in pair), resamples=search.resamples, seed=search.seed)
        for pair in compared(variants)
    }
    tried: list[list[Any]] = [
        [trial.arm, trial.number, *(trial.settings.get(name) for name in ("learning_rate", "lambda1", "lambda2", "lasso")), top1]
        for trial in trials
        for top1 in [None if trial.accuracy is None else 100 * trial.accuracy]
    ]
    told: list[list[Any]] = [
        [*pair, name, *(factor * number for number in interval[:3]), len(search.seeds)]
        for pair, found in differences.items()
        for name, (interval, factor) in found.quantities.items()
    ]
    means = _means(runs)
    settings = [
        [arm, *(values.get(name) for name in ("learning_rate", "lambda1", "lambda2", "lasso"))] for arm, values in chosen.items()
    ]
    task = f"further training with {start.method}"
    return Run(
        "finetune",
        f"Arms of further training of {start.backbone.name} with {start.method}",
        _findings(start, config, search, trials, differences, arms.validation, len(test)),
        provenance({"command": "sslk train arms", "seed": search.seed, "config": {**about, **names}}),
        {f"{row[0]}_top1": row[2] / 100 for row in means},
        [
            RunTable("Arms, mean over seeds", MEAN_COLUMNS, means),
            RunTable("Differences of arms, 95 % over seeds and test images", DIFFERENCE_COLUMNS, told),
            RunTable("Chosen settings", ["arm", "learning rate", "lambda1", "lambda2", "lasso"], settings),
            RunTable("All trials", TRIAL_COLUMNS, tried, fold=True),
            RunTable("Every run", RUN_COLUMNS, runs, fold=True),
        ],
        [
            picture(
                "trials",
                "Validation accuracy of every trial",
                "Accuracy on validation images over the learning rate, one series an arm.",
                lambda: trial_points(tried),
                {column: [row[c] for row in tried] for c, column in enumerate(TRIAL_COLUMNS)},
            )
        ],
        [
            Measure(test.name, f"{start.backbone.name}, {arm} less {reference}", task, name, value, low, high, len(test))
            for arm, reference, name, value, low, high, _ in told
        ],
        {
            "trials.csv": lambda path: write_table(path, [TRIAL_COLUMNS, *tried]),
            "runs.csv": lambda path: write_table(path, [RUN_COLUMNS, *runs]),
            "differences.csv": lambda path: write_table(path, [DIFFERENCE_COLUMNS, *told]),
        },
    )


def compared(variants: Sequence[Variant]) -> list[tuple[str, str]]:
    """Which arm is compared with which: all with the baseline, and `qscore` arms with lasso; those not searched among themselves.

    >>> from sslk.training.settings import PAPER_VARIANTS
    >>> for arm, other in compared([*ARM_VARIANTS, PAPER_VARIANTS[0], PAPER_VARIANTS[2]]):
    ...     print(arm, "less", other)
    lasso less baseline
    qscore less baseline
    qscore less lasso
    paper-qscore less paper-baseline
    baseline less before
    """
    pairs = []
    for variant in variants:
        others = [other for other in variants if other.searched == variant.searched]
        if variant.arm != "baseline":
            pairs += [(variant.name, other.name) for other in others if other.arm == "baseline"]
        if variant.arm == "qscore":
            pairs += [(variant.name, other.name) for other in others if other.arm == "lasso"]
    return [*pairs, (variants[0].name, BEFORE)]


def _check(variants: Sequence[Variant], search: ArmSearch, images: Dataset, test: Dataset, validation: Dataset | None) -> None:
    names = [variant.name for variant in variants]
    if len(set(names)) < len(names) or BEFORE in names:
        raise ValueError(f"variants must have different names, none of them {BEFORE}, got {', '.join(names)}.")
    if not variants or variants[0].arm != "baseline":
        raise ValueError(f"variants must begin with the baseline arm, got {names[:1]}.")
    if len(search.seeds) < 2:
        raise ValueError("seeds must be two at least: from one run nothing follows about others.")
    for role, judged in (("test", test), ("validation", validation)):
        if judged is None:
            continue
        if judged.labels is None:
            raise ValueError(f"{role} must have labels, by which the arms are compared; {judged.name} has none.")
        if set(images.classes or ()).isdisjoint(judged.classes or ()):  # labels are joined by the classes' names
            raise ValueError(f"{role} must share classes with the training images, but {judged.name} has none of theirs.")
    for role, other in (("training", images), ("test", test)):
        if validation is not None and validation.fingerprint == other.fingerprint:
            raise ValueError(f"validation must be other images than the {role} images, both are {other.name}.")


def _runs(arm: str, seeds: Sequence[int], samples: Sequence[ArmSamples]) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for seed, found in zip(seeds, samples, strict=True):
        assert found.correct is not None
        auroc = float(Ranking(found.scores, found.correct).measures(areas_only=True)[0, 0])
        top1 = 100 * float(found.correct.double().mean())
        empty = 100 * float((found.scores == 0).double().mean())
        rows.append([arm, seed, top1, auroc, float(found.scores.double().mean()), float(found.active.double().mean()), empty])
    return rows


def _means(runs: Sequence[list[Any]]) -> list[list[Any]]:
    """Rows of `RUN_COLUMNS`, means over the seeds, and the deviation of top-1 between seeds in points."""
    rows = []
    for arm in dict.fromkeys(row[0] for row in runs):
        mine = [row for row in runs if row[0] == arm]
        means = [fmean(row[c] for row in mine) for c in range(2, len(RUN_COLUMNS))]
        rows.append([arm, len(mine), *means, stdev(row[2] for row in mine)])
    return rows


def _findings(
    start: TrainingStart,
    config: TrainingConfig,
    search: ArmSearch,
    trials: Sequence[ArmTrial],
    differences: Mapping[tuple[str, str], ArmDifference],
    validation: Dataset,
    test: int,
) -> list[str]:
    images = len(start.images)
    steps = config.epochs * (images // config.batch_size) // config.accumulate
    said = [
        f"{config.epochs} epochs of {images:,} images ({steps} steps), {len(search.seeds)} seeds, {test:,} test images; settings "
        f"chosen by {search.trials} trials of {search.epochs} epochs an arm on {len(validation):,} validation images."
    ]
    for (arm, reference), found in differences.items():
        for name in ("probe top-1 [points]", "mean Q"):
            interval, factor = found.quantities[name]
            value, low, high = (factor * number for number in interval[:3])
            digits = 2 if factor == 100 else 4
            verdict = "more" if low > 0 else "less" if high < 0 else "no difference shown"
            said.append(
                f"{name} of {arm} less {reference}: {value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}], {verdict}."
            )
    known = [trial.accuracy for trial in trials if trial.accuracy is not None]
    if known:
        error = (max(max(known) * (1 - max(known)), 0.0) / len(validation)) ** 0.5
        said += lost_in_noise(100 * (max(known) - min(known)), 100 * error, "a validation top-1", len(validation), 2)
    diverged = sum(trial.accuracy is None for trial in trials)
    return [*said, *([f"{diverged} of {len(trials)} trials diverged and were not chosen."] if diverged else [])]


def trial_points(rows: Sequence[list[Any]]) -> Figure:
    """Validation accuracy over the learning rate, one series an arm, from the rows of the table."""
    figure, (axes,) = new_axes(6.4, 4.0)
    for number, arm in enumerate(dict.fromkeys(row[0] for row in rows)):
        mine = [row for row in rows if row[0] == arm and row[6] is not None]
        color = SERIES[number % len(SERIES)]
        axes.plot([row[2] for row in mine], [row[6] for row in mine], color=color, marker="o", ms=4, lw=0.8, label=arm)
    axes.set(xscale="log", xlabel="learning rate", ylabel="validation top-1 [%]")
    axes.legend(frameon=False)
    return figure
