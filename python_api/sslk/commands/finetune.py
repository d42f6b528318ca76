"""Q-Score-regularised further training from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from sslk.commands.console import progress_bar
from sslk.data import load_dataset
from sslk.quality.belonging import load_set
from sslk.results.provenance import provenance
from sslk.results.run import Run, RunTable
from sslk.training.config import ARMS, Arm, MethodName, TrainingConfig
from sslk.training.differences import ArmDifference, arm_difference
from sslk.training.finetune import ArmResult, finetune
from sslk.training.run import world
from sslk.training.start import load_start

_COLUMNS = ["arm", "probe top-1 [%]", "Q-Score AUROC", "mean Q", "mean |L_i|", "empty sets [%]", "column-L1 tail [%]",
            "final SSL loss"]  # fmt: skip

_PAPER_NAMES = {"simclr": "SimCLR", "swav": "SwAV", "moco": "MoCo", "byol": "BYOL", "dino": "DINO", "simsiam": "SimSiam",
                "vicreg": "VICReg", "barlow-twins": "Barlow Twins"}  # fmt: skip


def run(
    method: MethodName,
    out: str,
    arms: list[Arm | Literal["all"]] | None = None,
    model: str = "embedded",
    weights: str | None = None,
    checkpoint_format: str | None = None,
    data: str = "sample",
    split: str = "train",
    test_data: str | None = None,
    test_split: str | None = "test",
    root: str | None = None,
    discriminative: str | None = None,
    further_trained: bool = False,
    options: dict[str, Any] | None = None,
    training: TrainingConfig = TrainingConfig(),  # noqa: B008 (frozen)
    quiet: bool = False,
) -> None:
    """Train an encoder further with a self-supervised method, with and without the Q-Score regulariser.

    Examples:
        $ sslk finetune --method simclr --out runs/simclr --training.epochs 2 --training.learning_rate 0.3
        $ sslk finetune --method byol --weights byol.safetensors --model cifar:compact --arms qscore --out runs/byol
        $ torchrun --nproc-per-node 8 -m sslk.cli finetune --method dino --model timm:resnet50 --data imagenet --out runs/dino

    Args:
        method: simclr, swav, moco, byol, dino, simsiam, vicreg or barlow-twins.
        out: folder for checkpoints, logs, models and results; the same command goes on with what it holds.
        arms: baseline (no penalty), lasso, qscore, or all (default), one after the other from the same start.
        model: the encoder: embedded, torchvision:NAME, timm:NAME, cifar:NAME, lightly:NAME.
        weights: its checkpoint; the method's heads are taken from it where they are in it.
        checkpoint_format: layout of the checkpoint, detected by default.
        data: training images: sample, npz:PATH, folder:PATH, cifar10, imagenet, ...
        split: of these.
        test_data: images for the evaluation, the same set by default.
        test_split: of these; none for no test set.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        discriminative: file of `sslk discover` for the encoder that training starts from, refused for another; found on
            the training images by default.
        further_trained: the encoder was trained further since the set was found, so that its weights are others.
        options: settings of the method, such as --options.hidden_dim 512.
        training: settings of the training.
        quiet: no progress bars.
    """
    chosen = _arms(arms)
    backbone, parts = load_start(method, model, weights, checkpoint_format)
    found = None if discriminative is None else load_set(discriminative, backbone, further_trained=further_trained)
    images = load_dataset(data, split, root=root)
    test = None if test_split is None else load_dataset(test_data or data, test_split, root=root)
    with progress_bar("starting", quiet) as update:
        results = finetune(
            method, backbone, parts, images, out, training, arms=chosen, test=test, discriminative=found,
            further_trained=further_trained, options=options, report=lambda stage, done, total: update(done, total, stage),
        )  # fmt: skip
    if world()[0] != 0:
        return
    settings = {"method": method, "model": model, "weights": weights, "weights_hash": backbone.weights_hash,
                "data": images.name, "options": options or {}, "training": vars(training)}  # fmt: skip
    rows = [_row(arm, result) for arm, result in results.items()]
    differences: dict[str, ArmDifference] = {
        arm: arm_difference([Path(out)], arm) for arm in chosen if arm != "baseline" and "baseline" in chosen
    }
    Run(
        "finetune",
        f"Further training of {model} with {method}",
        _findings(results, differences, len(images)),
        provenance({"command": "sslk finetune", "seed": training.seed, "config": settings}),
        {f"{arm}_top1": result.top1 for arm, result in results.items()},
        [
            RunTable("Arms from the same start", _COLUMNS, rows),
            *_paper_table(method, images.name, results),
            *_difference_table(differences),
        ],
    ).save(out)
    print(f"{'  '.join(_COLUMNS)}")
    for row in rows:
        print("  ".join("-" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in row))
    print(f"results: {Path(out) / 'results.json'}")


def _arms(arms: list[Arm | Literal["all"]] | None) -> list[Arm]:
    if not arms or "all" in arms:
        return list(ARMS)
    return [arm for arm in ARMS if arm in arms]


def _row(arm: str, r: ArmResult) -> list[Any]:
    top1 = None if r.top1 is None else 100 * r.top1
    last = r.log[-1]["loss"] if r.log else None
    return [arm, top1, r.auroc, r.mean_q, r.mean_active, 100 * r.empty_share, 100 * r.column_tail, last]


def _paper_table(method: str, data: str, results: dict[str, ArmResult]) -> list[RunTable]:
    """The probe's accuracy in the layout of the paper's tables, where all three arms have one."""
    top1 = [results[arm].top1 if arm in results else None for arm in ARMS]
    if any(value is None for value in top1):
        return []
    row = [_PAPER_NAMES[method], data.partition("/")[0], *(100 * value for value in top1 if value is not None)]
    return [RunTable("Probe top-1 [%] by arm", ["model", "dataset", *ARMS], [row], "tableA1")]


def _difference_table(differences: dict[str, ArmDifference]) -> list[RunTable]:
    """Every arm less the baseline arm, in the units of the table of arms."""
    rows: list[list[Any]] = []
    for arm, found in differences.items():
        for name, interval, scale in (
            ("probe top-1 [points]", found.top1, 100), ("Q-Score AUROC", found.auroc, 1), ("mean Q", found.mean_q, 1),
            ("mean |L_i|", found.mean_active, 1),
        ):  # fmt: skip
            if interval is not None:
                rows.append([arm, name, scale * interval.value, scale * interval.low, scale * interval.high])
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
