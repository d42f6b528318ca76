"""The whole Q-Score protocol on the embedded sample with the embedded encoder: what `sslk demo` runs."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table as ConsoleTable
from torch import Tensor, nn

from sslk.data.sample import CLASSES, load_sample
from sslk.models.embedded import load_embedded, load_embedded_projector, normalize_images
from sslk.probes.linear import LinearProbe, linear_probe
from sslk.provenance import provenance
from sslk.quality.discover import DiscriminativeFeatures, discover, eps_sweep
from sslk.quality.failure import FailurePrediction, failure_prediction
from sslk.quality.finetune import ARMS, FinetuneConfig, further_train
from sslk.quality.score import qscore
from sslk.report import figures
from sslk.report.page import Section, Table, write_page

EPS_GRID = [1.0, 1.5, 2.0, 2.5, 3.0, 4.0]


@torch.inference_mode()
def extract_features(encoder: nn.Module, images: Tensor, batch_size: int = 250) -> Tensor:
    """Representations `[N, D]` of uint8 images `[N, 3, H, W]`."""
    return torch.cat([encoder(normalize_images(batch)) for batch in images.split(batch_size)])


class _Evaluation:
    """Features, probe and failure prediction of one encoder on the sample."""

    def __init__(
        self,
        encoder: nn.Module,
        data: dict[str, tuple[Tensor, Tensor]],
        found: DiscriminativeFeatures | None,
        seed: int,
    ) -> None:
        self.train, self.test = (extract_features(encoder, data[split][0]) for split in ("train", "test"))
        self.found = discover(self.train, eps="auto") if found is None else found
        self.scores = qscore(self.test, self.found)
        self.probe: LinearProbe = linear_probe(self.train, data["train"][1], self.test, data["test"][1], seed=seed)
        self.failure: FailurePrediction = failure_prediction(
            self.scores.scores, self.probe.correct, features=self.test, logits=self.probe.logits
        )

    def numbers(self) -> dict[str, float]:
        return {
            "top1": self.probe.top1,
            "validation_top1": self.probe.validation_top1,
            "auroc": self.failure.qscore.auroc,
            "auprc": self.failure.qscore.auprc,
            "mean_q": float(self.scores.scores.mean()),
            "mean_active": self.scores.mean_active,
            "empty_share": self.scores.empty_share,
        }


def run(out: str = "runs/demo", epochs: int = 4, learning_rate: float = 0.3, seed: int = 0) -> dict[str, Any]:
    """Run Q-Score end to end on real images: extract, discover, score, probe, predict failures, train three arms, report.

    Uses the embedded encoder (SimCLR on CIFAR-10) and the embedded sample (2,000 training and 1,000 test images), no
    download. The further training is far shorter and its learning rate far larger than the paper's 50 epochs at 1e-5.

    Args:
        out: Folder for results.json, index.html, the figures and the discriminative features.
        epochs: Passes of further training per arm.
        learning_rate: Peak learning rate of LARS in the further training.
        seed: Of everything random; the same seed gives the same numbers on the same machine.
    """
    started = time.time()
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    console = Console()
    torch.manual_seed(seed)
    data = {split: load_sample(split) for split in ("train", "test")}
    encoder, metadata = load_embedded()
    config = FinetuneConfig(epochs=epochs, learning_rate=learning_rate, seed=seed)

    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("embedded encoder", total=1)
        before = _Evaluation(encoder, data, None, seed)
        progress.advance(task)
        before.found.save(folder / "discriminative.safetensors")
        console.print(f"discriminative features: {before.found.summary()}")
        sweep = _sweep(before)

        arms: dict[str, _Evaluation] = {}
        logs: dict[str, dict[str, list[float]]] = {}
        for arm in ARMS:
            total = epochs * (len(data["train"][0]) // config.batch_size)
            task = progress.add_task(f"further training: {arm}", total=total)

            def advance(step: int, total: int, loss: float, task: TaskID = task) -> None:
                progress.update(task, completed=step)

            projector = load_embedded_projector()
            trained = further_train(encoder, projector, data["train"][0], arm, config, before.found, advance)
            arms[arm], logs[arm] = _Evaluation(trained.encoder, data, before.found, seed), trained.log

    results = {
        "before": before.numbers(),
        "baselines": {name: {"auroc": roc, "auprc": pr} for name, roc, pr in before.failure.table()},
        "eps": before.found.eps,
        "num_discriminative": before.found.num_discriminative,
        "eps_sweep": sweep,
        "arms": {arm: evaluation.numbers() for arm, evaluation in arms.items()},
        "seconds": round(time.time() - started, 1),
        "encoder": metadata,
        "provenance": provenance({"command": "sslk demo", "seed": seed, "config": vars(config)}),
    }
    temporary = folder / "results.json.tmp"
    temporary.write_text(json.dumps(results, indent=2))
    os.replace(temporary, folder / "results.json")
    _write_report(folder, results, data, before, arms, logs)
    _print_table(console, results)
    console.print(f"{results['seconds']} s; page: {folder / 'index.html'}")
    return results


def _sweep(evaluation: _Evaluation) -> list[dict[str, float]]:
    rows = []
    for found in eps_sweep(evaluation.train, EPS_GRID):
        scores = qscore(evaluation.test, found)
        result = failure_prediction(scores.scores, evaluation.probe.correct)
        rows.append({"eps": found.eps, "mean_active": scores.mean_active, "num_discriminative": found.num_discriminative,
                     "empty_share": scores.empty_share, "auroc": result.qscore.auroc})  # fmt: skip
    return rows


def _arm_rows(results: dict[str, Any]) -> list[list[str]]:
    rows = [("before", results["before"]), *results["arms"].items()]
    return [
        [name, f"{100 * r['top1']:.1f}", f"{r['auroc']:.3f}", f"{r['auprc']:.3f}", f"{r['mean_q']:.4f}",
         f"{r['mean_active']:.1f}", f"{100 * r['empty_share']:.1f}"]
        for name, r in rows
    ]  # fmt: skip


_ARM_COLUMNS = ["arm", "probe top-1 [%]", "AUROC", "AUPRC", "mean Q", "mean |L_i|", "empty sets [%]"]


def _print_table(console: Console, results: dict[str, Any]) -> None:
    table = ConsoleTable(title="Q-Score on 1,000 CIFAR-10 test images")
    for i, name in enumerate(_ARM_COLUMNS):
        table.add_column(name, justify="left" if i == 0 else "right")
    for row in _arm_rows(results):
        table.add_row(*row)
    console.print(table)
    table = ConsoleTable(title="Predicting which samples the probe gets right (before further training)")
    for name in ("score", "AUROC", "AUPRC"):
        table.add_column(name, justify="left" if name == "score" else "right")
    for name, r in results["baselines"].items():
        table.add_row(name, f"{r['auroc']:.3f}", f"{r['auprc']:.3f}")
    console.print(table)


def _write_report(
    folder: Path,
    results: dict[str, Any],
    data: dict[str, tuple[Tensor, Tensor]],
    before: _Evaluation,
    arms: dict[str, _Evaluation],
    logs: dict[str, dict[str, list[float]]],
) -> None:
    images, labels = data["test"]
    found, tuned = before.found, arms["qscore"]
    gain = 100 * (results["arms"]["qscore"]["top1"] - results["arms"]["baseline"]["top1"])
    standard_error = 100 * (2 * before.probe.top1 * (1 - before.probe.top1) / len(labels)) ** 0.5
    summary = [
        f"The linear probe classifies {100 * before.probe.top1:.1f} % of 1,000 test images correctly "
        "(trained on 2,000 labels).",
        f"Q-Score predicts which ones with AUROC {before.failure.qscore.auroc:.3f}; 0.5 is chance. It uses no label; "
        f"the probe's own confidence, which does, reaches {before.failure.baselines['confidence'].auroc:.3f}.",
        f"After a short further training the Q-Score arm's probe is {gain:+.1f} points from the baseline arm's; the "
        f"standard error of such a difference is about {standard_error:.1f} points, so one run proves nothing.",
        f"Setting: {found.summary()}.",
    ]
    sections = [
        Section(
            "Discriminative features",
            "How often every feature is highly activating on the training images. The middle band is discriminative; "
            "no label was used.",
            figures=[(figures.activation_percentages(found), "Sorted activation percentages with both tails shaded.")],
        ),
        Section(
            "Best and worst samples by Q-Score",
            "Test images with the highest and the lowest scores.",
            figures=[
                (
                    figures.extreme_samples(images, before.scores.scores, labels, CLASSES),
                    "Twelve images with the highest and twelve with the lowest Q-Scores.",
                )
            ],
        ),
        Section(
            "Failure prediction",
            "Positive class: the probe classified the sample correctly. Feature norm and max feature use no labels; "
            "confidence, entropy and energy come from the probe, which was trained on labels.",
            Table(
                ["score", "AUROC", "AUPRC"],
                [[name, f"{r['auroc']:.3f}", f"{r['auprc']:.3f}"] for name, r in results["baselines"].items()],
            ),
            [(figures.failure_curves(before.failure), "ROC and precision-recall curves of Q-Score and baselines.")],
        ),
        Section(
            "Choice of eps",
            "The threshold in standard deviations; eps = auto is the largest for which at most 5 % of the training "
            "samples have an empty set. AUROC is shown, not used for the choice.",
            Table(
                ["eps", "mean |L_i|", "|S|", "empty sets [%]", "AUROC"],
                [
                    [
                        f"{r['eps']:g}",
                        f"{r['mean_active']:.1f}",
                        str(r["num_discriminative"]),
                        f"{100 * r['empty_share']:.1f}",
                        f"{r['auroc']:.3f}",
                    ]
                    for r in results["eps_sweep"]
                ],
            ),
        ),
        Section(
            "Further training: three arms from the same checkpoint",
            f"{results['provenance']['config']['epochs']} epochs of SimCLR on 2,000 images: without penalty (baseline), "
            "with an L1 penalty on the features (lasso), and with the Q-Score regulariser. Same batches and views.",
            Table(_ARM_COLUMNS, _arm_rows(results)),
            [(figures.loss_curves(logs), "SSL loss and penalty over the steps for the three arms.")],
        ),
        Section(
            "Discriminative features by class",
            "Class means before and after Q-Score-regularised training, on one colour scale.",
            figures=[
                (
                    figures.class_heatmaps(
                        {
                            "before": (nn.functional.normalize(before.test), labels, before.probe.correct),
                            "after": (nn.functional.normalize(tuned.test), labels, tuned.probe.correct),
                        },
                        found,
                        CLASSES,
                    ),
                    "Heat maps of class-mean discriminative features, correct and misclassified, before and after.",
                )
            ],
        ),
    ]
    info = {key: value if isinstance(value, str) else json.dumps(value) for key, value in results["provenance"].items()}
    info["encoder"] = f"{metadata_line(results['encoder'])}"
    write_page(folder / "index.html", "Q-Score on the embedded sample", summary, sections, info)


def metadata_line(metadata: dict[str, str]) -> str:
    """The embedded encoder in one line."""
    return (
        f"{metadata['method']}, {metadata['epochs']} epochs on {metadata['dataset']}; linear probe on all 50,000 labels "
        f"{100 * float(metadata['probe_top1']):.1f} % top-1"
    )
