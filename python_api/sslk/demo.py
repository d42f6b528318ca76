"""The whole Q-Score protocol on the embedded sample with the embedded encoder: what `sslk demo` runs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
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

from sslk.data.augment import CIFAR10_MEAN, CIFAR10_STD
from sslk.data.sample import CLASSES, load_sample
from sslk.models.embedded import load_embedded, load_embedded_projector, normalize_images
from sslk.probes.linear import LinearProbe, linear_probe
from sslk.quality import figures
from sslk.quality.discover import DiscriminativeFeatures, discover, eps_sweep
from sslk.quality.failure import FailurePrediction, failure_prediction
from sslk.quality.score import qscore
from sslk.report.page import render_page, write_page
from sslk.results.figure import save_figure
from sslk.results.numbers import column_texts
from sslk.results.provenance import provenance
from sslk.results.run import Run, RunFigure, RunTable
from sslk.training.config import ARMS, Arm, TrainingConfig
from sslk.training.heads import build_method
from sslk.training.run import train
from sslk.training.views import TensorViews

EPS_GRID = [1.0, 1.5, 2.0, 2.5, 3.0, 4.0]
_ARM_COLUMNS = ["arm", "probe top-1 [%]", "AUROC", "AUPRC", "mean Q", "mean |L_i|", "empty sets [%]"]
_EPS_COLUMNS = ["eps", "mean |L_i|", "|S|", "empty sets [%]", "AUROC"]


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

    def row(self, name: str) -> list[Any]:
        """One row of the table of arms."""
        return [name, 100 * self.probe.top1, self.failure.qscore.auroc, self.failure.qscore.auprc,
                float(self.scores.scores.mean()), self.scores.mean_active, 100 * self.scores.empty_share]  # fmt: skip


def _train(
    arm: Arm,
    images: Tensor,
    config: TrainingConfig,
    found: DiscriminativeFeatures,
    on_step: Callable[[int, int], None],
) -> tuple[nn.Module, dict[str, list[float]]]:
    """The embedded encoder after one arm of further training, and the logged values by name."""
    head = {"projector": load_embedded_projector().state_dict()}
    method, _ = build_method("simclr", load_embedded()[0], found.num_features, head)
    views = TensorViews(images, config.batch_size, config.view_size or 32, CIFAR10_MEAN, CIFAR10_STD)
    with tempfile.TemporaryDirectory() as folder:  # a demo is over in minutes: it need not be resumed
        log = train(method, views, len(images), Path(folder), config, arm, found, on_step=on_step)
    return method.backbone.eval(), {name: [row[name] for row in log] for name in ("loss", "penalty")}


def run(out: str = "runs/demo", epochs: int = 4, learning_rate: float = 0.3, seed: int = 0, quiet: bool = False) -> Run:
    """Extract, discover, score, probe, predict failures, train three arms; leaves a run and its page `index.html`.

    Args:
        out: folder for results.json, index.html, the figures and the discriminative features.
        epochs: passes of further training per arm.
        learning_rate: peak learning rate of LARS in the further training.
        seed: of everything random; the same seed gives the same numbers on the same machine.
        quiet: no progress bar and no tables.
    """
    started = time.time()
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(quiet=quiet)
    torch.manual_seed(seed)
    data = {split: load_sample(split) for split in ("train", "test")}
    encoder, metadata = load_embedded()
    config = TrainingConfig(
        epochs=epochs, learning_rate=learning_rate, seed=seed, view_size=24, log_every=1, checkpoint_every=10_000
    )

    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("embedded encoder", total=1)
        before = _Evaluation(encoder, data, None, seed)
        progress.advance(task)
        before.found.save(folder / "discriminative.safetensors")
        console.print(f"discriminative features: {before.found.summary()}")

        arms: dict[str, _Evaluation] = {}
        logs: dict[str, dict[str, list[float]]] = {}
        for arm in ARMS:
            total = epochs * (len(data["train"][0]) // config.batch_size)
            task = progress.add_task(f"further training: {arm}", total=total)

            def advance(step: int, total: int, task: TaskID = task) -> None:
                progress.update(task, completed=step)

            trained, logs[arm] = _train(arm, data["train"][0], config, before.found, advance)
            arms[arm] = _Evaluation(trained, data, before.found, seed)

    info = {"command": "sslk demo", "data": "sample", "model": "embedded", "encoder": metadata_line(metadata),
            "seed": seed, "config": vars(config), "seconds": round(time.time() - started, 1)}  # fmt: skip
    result = Run(
        kind="qscore",
        title="Q-Score on the embedded sample",
        findings=_findings(before, arms),
        provenance=provenance(info),
        summary={
            "probe_top1_percent": 100 * before.probe.top1,
            "qscore_auroc": before.failure.qscore.auroc,
            "qscore_auprc": before.failure.qscore.auprc,
            "eps": before.found.eps,
            "discriminative_features": before.found.num_discriminative,
            "mean_active": before.scores.mean_active,
            "empty_share": before.scores.empty_share,
        },
        tables=[
            RunTable("Further training: three arms from the same checkpoint", _ARM_COLUMNS,
                     [before.row("before"), *(evaluation.row(arm) for arm, evaluation in arms.items())]),
            RunTable("Predicting which samples the probe gets right (before further training)",
                     ["score", "AUROC", "AUPRC"], [list(row) for row in before.failure.table()]),
            RunTable("Choice of eps: the largest with at most 5 % empty sets; AUROC is shown, not used", _EPS_COLUMNS,
                     _sweep(before)),
        ],
        figures=_figures(folder, data["test"], before, arms["qscore"], logs),
    )  # fmt: skip
    result.save(folder)
    write_page(folder / "index.html", render_page([folder]))
    for table in result.tables[:2]:
        _print_table(console, table)
    console.print(f"{time.time() - started:.0f} s; page: {folder / 'index.html'}")
    return result


def _sweep(evaluation: _Evaluation) -> list[list[Any]]:
    rows = []
    for found in eps_sweep(evaluation.train, EPS_GRID):
        scores = qscore(evaluation.test, found)
        auroc = failure_prediction(scores.scores, evaluation.probe.correct).qscore.auroc
        rows.append([found.eps, scores.mean_active, found.num_discriminative, 100 * scores.empty_share, auroc])
    return rows


def _print_table(console: Console, table: RunTable) -> None:
    shown = ConsoleTable(title=table.title)
    for i, name in enumerate(table.columns):
        shown.add_column(name, justify="left" if i == 0 else "right")
    for row in zip(*(column_texts(column) for column in zip(*table.rows, strict=True)), strict=True):
        shown.add_row(*row)
    console.print(shown)


def _findings(before: _Evaluation, arms: dict[str, _Evaluation]) -> list[str]:
    samples = len(before.probe.correct)
    gain = 100 * (arms["qscore"].probe.top1 - arms["baseline"].probe.top1)
    standard_error = 100 * (2 * before.probe.top1 * (1 - before.probe.top1) / samples) ** 0.5
    return [
        f"The linear probe classifies {100 * before.probe.top1:.1f} % of {samples:,} test images correctly "
        "(trained on 2,000 labels).",
        f"Q-Score predicts which ones with AUROC {before.failure.qscore.auroc:.3f}; 0.5 is chance. It uses no label; "
        f"the probe's own confidence, which does, reaches {before.failure.baselines['confidence'].auroc:.3f}.",
        f"After a short further training the Q-Score arm's probe is {gain:+.1f} points from the baseline arm's; the "
        f"standard error of such a difference is about {standard_error:.1f} points, so one run proves nothing.",
        f"Setting: {before.found.summary()}.",
    ]


def _figures(
    folder: Path,
    test: tuple[Tensor, Tensor],
    before: _Evaluation,
    tuned: _Evaluation,
    logs: dict[str, dict[str, list[float]]],
) -> list[RunFigure]:
    images, labels = test
    found, scores = before.found, before.scores.scores
    panels = {
        name: (nn.functional.normalize(evaluation.test), labels, evaluation.probe.correct)
        for name, evaluation in (("before", before), ("after", tuned))
    }
    percent = found.activation_percent
    return [
        save_figure(
            figures.activation_percentages(found), folder, "activation", "Discriminative features",
            "Sorted share of training images that highly activate each feature. The middle band is discriminative, the "
            "shaded tails are not; no label was used.",
            {"feature": percent.argsort().tolist(), "activation_percent": percent.sort().values.tolist()},
        ),
        save_figure(
            figures.extreme_samples(images, scores, labels, CLASSES), folder, "extremes",
            "Best and worst samples by Q-Score",
            "Twelve test images with the highest and twelve with the lowest Q-Scores, with class and score.",
            {"test_image": list(range(len(scores))), "qscore": scores.tolist(),
             "correct": before.probe.correct.int().tolist()},
            picture="png",
        ),
        save_figure(
            figures.failure_curves(before.failure), folder, "failure", "Failure prediction",
            "ROC and precision-recall curves for predicting that the probe is right. Feature norm and max feature use no "
            "labels; confidence, entropy and energy come from the probe, which was trained on labels.",
            {"false_positive_rate": before.failure.qscore.roc[0].tolist(),
             "true_positive_rate": before.failure.qscore.roc[1].tolist()},
        ),
        save_figure(
            figures.loss_curves(logs), folder, "losses", "Further training",
            "SSL loss and penalty over the steps for the three arms, which see the same batches and views.",
            {f"{arm} {name}": log[name] for arm, log in logs.items() for name in ("loss", "penalty")},
        ),
        save_figure(
            figures.class_heatmaps(panels, found, CLASSES), folder, "classes", "Discriminative features by class",
            "Class means of the discriminative features, correct and misclassified, before and after Q-Score-regularised "
            "training, on one colour scale.",
            picture="png",
        ),
    ]  # fmt: skip


def metadata_line(metadata: dict[str, str]) -> str:
    """The embedded encoder in one line."""
    return (
        f"{metadata['method']}, {metadata['epochs']} epochs on {metadata['dataset']}; linear probe on all 50,000 labels "
        f"{100 * float(metadata['probe_top1']):.1f} % top-1"
    )
