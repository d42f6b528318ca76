"""Further training as studies: an encoder and images in, a `Run` out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

from sslk.data import Dataset
from sslk.progress import Progress
from sslk.quality.ablation import Train, search_lambdas
from sslk.quality.settings import LambdaSettings
from sslk.quality.studies.lambdas import lambda_run
from sslk.results.provenance import provenance
from sslk.results.run import Measure, Run, RunTable
from sslk.training.config import ARMS, Arm, TrainingConfig
from sslk.training.differences import ArmDifference, arm_difference
from sslk.training.evaluate import ArmResult
from sslk.training.finetune import finetune
from sslk.training.run import claim
from sslk.training.samples import SAMPLES, ArmSamples
from sslk.training.search import lambda_trainer
from sslk.training.start import TrainingStart

COLUMNS = [
    "arm",
    "probe top-1 [%]",
    "Q-Score AUROC",
    "mean Q",
    "mean |L_i|",
    "empty sets [%]",
    "column-L1 tail [%]",
    "final SSL loss",
]

PAPER_NAMES = {
    "simclr": "SimCLR",
    "swav": "SwAV",
    "moco": "MoCo",
    "byol": "BYOL",
    "dino": "DINO",
    "simsiam": "SimSiam",
    "vicreg": "VICReg",
    "barlow-twins": "Barlow Twins",
}


def finetune_study(
    start: TrainingStart,
    out: str | PathLike[str],
    config: TrainingConfig = TrainingConfig(),  # noqa: B008 (frozen)
    *,
    arms: Sequence[Arm] = ARMS,
    test: Dataset | None = None,
    progress: Progress | None = None,
) -> Run:
    """Train an encoder further, with and without the Q-Score regulariser, and compare the arms, see `finetune`.

    Args:
        start: the encoder, the method and the images.
        out: folder for checkpoints, logs and models; the same call goes on with what it holds.
        config: settings of the training.
        arms: which penalties.
        test: images for the evaluation.
        progress: called with the steps done, all steps, and the stage.

    Raises:
        ValueError, NonFiniteError: as for `finetune`.
    """
    results = finetune(start, out, config, arms=arms, test=test, progress=progress)
    settings = {
        "method": start.method,
        "model": start.backbone.name,
        "weights_hash": start.backbone.weights_hash,
        "data": start.images.name,
        "options": dict(start.options),
        "training": asdict(config),
    }
    samples = {arm: [ArmSamples.load(Path(out) / arm / SAMPLES)] for arm in arms}
    differences: dict[str, ArmDifference] = {
        arm: arm_difference(samples[arm], samples["baseline"]) for arm in arms if arm != "baseline" and "baseline" in arms
    }
    tables = [
        RunTable("Arms from the same start", COLUMNS, [_row(arm, result) for arm, result in results.items()]),
        *_paper_table(start.method, start.images.name, results),
        *_difference_table(differences),
    ]
    return Run(
        "finetune",
        f"Further training of {start.backbone.name} with {start.method}",
        _findings(results, differences, len(start.images)),
        provenance({"command": "sslk train finetune", "seed": config.seed, "config": settings}),
        {f"{arm}_top1": result.top1 for arm, result in results.items()},
        tables,
        measures=[
            Measure(start.images.name, f"{start.backbone.name}, {arm}", f"further training with {start.method}", metric, value)
            for arm, result in results.items()
            for metric, value in _measured(result)
        ],
    )


def _measured(result: ArmResult) -> list[tuple[str, float]]:
    """Numbers of one arm."""
    known = [("linear probe top-1 [%]", None if result.top1 is None else 100 * result.top1), ("Q-Score AUROC", result.auroc)]
    return [("mean Q-Score", result.mean_q), *((name, value) for name, value in known if value is not None)]


def lambda_study(
    start: TrainingStart | Train,
    out: str | PathLike[str],
    config: TrainingConfig = TrainingConfig(),  # noqa: B008
    search: LambdaSettings = LambdaSettings(),  # noqa: B008
    *,
    validation_share: float = 0.2,
    progress: Progress | None = None,
) -> Run:
    """The two-stage search for the regulariser's weights, see `search_lambdas`.

    Args:
        start: encoder, method and labelled images, of which a share is held out to judge by, none are test images; or a
            function `train(lambda1, lambda2, seed)` that trains further and returns an accuracy on validation data.
        out: folder; finished trainings are kept in `journal.json`, an interrupted search goes on.
        config: settings of the training; lambda1, lambda2 and seed are those of each training instead.
        search: what is tried.
        validation_share: share of the images held out.
        progress: called with what is done, what is to do, and which training it is.

    Raises:
        ValueError: as for `search_lambdas` and `lambda_trainer`, or the folder holds a search with other settings.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any]
    if isinstance(start, TrainingStart):
        found, images = start.discriminative, start.images
        held_out = round(len(images) * validation_share)
        training = {k: v for k, v in asdict(config).items() if k not in ("lambda1", "lambda2", "seed")}
        settings = {
            "method": start.method,
            "model": start.backbone.name,
            "weights": start.backbone.weights_hash,
            "data": images.name,
            "images": images.fingerprint,
            "validation_share": validation_share,
            "options": dict(start.options),
            "training": training,
            "discriminative": None if found is None else found.summary(),
        }
        train: Train = lambda_trainer(start, folder / "trainings", config, validation_share=validation_share, progress=progress)
        told = None
    else:
        train, held_out, told = start, 0, progress
        settings = {"train": f"{getattr(start, '__module__', '')}:{getattr(start, '__name__', start)}"}
    claim(folder, settings, True)  # the journal counts for these settings alone
    result = search_lambdas(train, **vars(search), journal=folder / "journal.json", progress=told)
    return lambda_run(result, search, settings, held_out)


def _row(arm: str, r: ArmResult) -> list[Any]:
    top1 = None if r.top1 is None else 100 * r.top1
    last = r.log[-1]["loss"] if r.log else None
    return [arm, top1, r.auroc, r.mean_q, r.mean_active, 100 * r.empty_share, 100 * r.column_tail, last]


def _paper_table(method: str, data: str, results: dict[str, ArmResult]) -> list[RunTable]:
    """The probe's accuracy in the layout of the paper's tables, where all three arms have one."""
    top1 = [results[arm].top1 if arm in results else None for arm in ARMS]
    if any(value is None for value in top1):
        return []
    row = [PAPER_NAMES[method], data.partition("/")[0], *(100 * value for value in top1 if value is not None)]
    return [RunTable("Probe top-1 [%] by arm", ["model", "dataset", *ARMS], [row], "tableA1")]


def _difference_table(differences: dict[str, ArmDifference]) -> list[RunTable]:
    """Every arm less the baseline arm, in the units of the table of arms."""
    rows = [
        [arm, name, factor * interval.value, factor * interval.low, factor * interval.high]
        for arm, found in differences.items()
        for name, (interval, factor) in found.quantities.items()
    ]
    title = "Arms less baseline, paired over the evaluation samples; 95 % bootstrap intervals"
    return [RunTable(title, ["arm", "quantity", "difference", "low", "high"], rows)] if rows else []


def _findings(results: dict[str, ArmResult], differences: dict[str, ArmDifference], images: int) -> list[str]:
    before = results["before"]
    findings = [f"Before, mean Q is {before.mean_q:.4f} and {100 * before.empty_share:.1f} % of the sets are empty."]
    for arm, found in differences.items():
        q = found.mean_q
        findings.append(
            f"After training on {images:,} images mean Q of the arm {arm} is {q.value:+.4f} [{q.low:+.4f}, {q.high:+.4f}] "
            f"from the baseline arm's {results['baseline'].mean_q:.4f}."
        )
        if found.top1 is not None:
            value, low, high = (100 * part for part in (found.top1.value, found.top1.low, found.top1.high))
            findings.append(
                f"Its linear probe is {value:+.2f} points [{low:+.2f}, {high:+.2f}] from the baseline arm's; the interval "
                "covers the choice of test samples, not of the seed."
            )
    return findings
