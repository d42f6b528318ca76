"""The whole Q-Score protocol on the embedded sample with the embedded encoder: what `sslk demo` runs."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sslk.data.augment import CIFAR10_MEAN, CIFAR10_STD
from sslk.data.sample import CLASSES, load_sample
from sslk.evaluation.settings import DemoSettings
from sslk.models.embedded import load_embedded, load_embedded_projector, normalize_images
from sslk.probes.linear import LinearProbe, linear_probe
from sslk.probes.settings import LinearSettings
from sslk.progress import Progress, renamed
from sslk.quality import figures
from sslk.quality.discovery import discover, eps_sweep
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.quality.failure import FailurePrediction, failure_prediction
from sslk.quality.score import qscore
from sslk.results.figure import Picture, picture
from sslk.results.provenance import provenance
from sslk.results.run import Run, RunTable
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
        self, encoder: nn.Module, data: dict[str, tuple[Tensor, Tensor]], found: DiscriminativeFeatures | None, seed: int
    ) -> None:
        self.train, self.test = (extract_features(encoder, data[split][0]) for split in ("train", "test"))
        self.found = discover(self.train, eps="auto") if found is None else found
        self.scores = qscore(self.test, self.found)
        self.probe: LinearProbe = linear_probe(
            (self.train, data["train"][1]), (self.test, data["test"][1]), LinearSettings(seed=seed)
        )
        self.failure: FailurePrediction = failure_prediction(
            self.scores.scores, self.probe.correct, features=self.test, logits=self.probe.logits
        )

    def row(self, name: str) -> list[Any]:
        """One row of the table of arms."""
        return [
            name,
            100 * self.probe.top1,
            self.failure.qscore.auroc,
            self.failure.qscore.auprc,
            float(self.scores.scores.mean()),
            self.scores.mean_active,
            100 * self.scores.empty_share,
        ]


def _train(
    arm: Arm, images: Tensor, config: TrainingConfig, found: DiscriminativeFeatures, progress: Progress | None
) -> tuple[nn.Module, dict[str, list[float]]]:
    """The embedded encoder after one arm of further training, and the logged values by name."""
    head = {"projector": load_embedded_projector().state_dict()}
    method, _ = build_method("simclr", load_embedded()[0], found.num_features, head)
    views = TensorViews(images, config.batch_size, config.view_size or 32, CIFAR10_MEAN, CIFAR10_STD)
    with tempfile.TemporaryDirectory() as folder:  # a demo is over in minutes: it need not be resumed
        log = train(method, views, Path(folder), config, arm, found, progress=progress)
    return method.backbone.eval(), {name: [row[name] for row in log] for name in ("loss", "penalty")}


def demo_study(settings: DemoSettings = DemoSettings(), *, progress: Progress | None = None) -> Run:  # noqa: B008 (frozen)
    """Extract, discover, score, probe, predict failures, train three arms, all on the embedded images and encoder.

    Args:
        settings: of the further training.
        progress: called with what is done and to do, and the arm.
    """
    started = time.time()
    torch.manual_seed(settings.seed)
    data = {split: load_sample(split) for split in ("train", "test")}
    encoder, metadata = load_embedded()
    config = TrainingConfig(
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
        view_size=24,
        log_every=1,
        checkpoint_every=10_000,
    )
    if progress is not None:
        progress(0, 1, "embedded encoder")
    before = _Evaluation(encoder, data, None, settings.seed)
    if progress is not None:
        progress(1, 1, "embedded encoder")
    arms: dict[str, _Evaluation] = {}
    logs: dict[str, dict[str, list[float]]] = {}
    for arm in ARMS:
        told = renamed(progress, f"further training: {arm}")
        trained, logs[arm] = _train(arm, data["train"][0], config, before.found, told)
        arms[arm] = _Evaluation(trained, data, before.found, settings.seed)
    info = {
        "command": "sslk demo",
        "data": "sample",
        "model": "embedded",
        "encoder": metadata_line(metadata),
        "seed": settings.seed,
        "config": vars(config),
        "seconds": round(time.time() - started, 1),
    }
    return Run(
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
            RunTable(
                "Further training: three arms from the same checkpoint",
                _ARM_COLUMNS,
                [before.row("before"), *(evaluation.row(arm) for arm, evaluation in arms.items())],
            ),
            RunTable(
                "Predicting which samples the probe gets right (before further training)",
                ["score", "AUROC", "AUPRC"],
                [list(row) for row in before.failure.table()],
            ),
            RunTable(
                "Choice of eps: the largest with at most 5 % empty sets; AUROC is shown, not used", _EPS_COLUMNS, _sweep(before)
            ),
        ],
        figures=_figures(data["test"], before, arms["qscore"], logs),
        files={"discriminative.safetensors": before.found.save},
    )


def _sweep(evaluation: _Evaluation) -> list[list[Any]]:
    rows = []
    for found in eps_sweep(evaluation.train, EPS_GRID):
        scores = qscore(evaluation.test, found)
        auroc = failure_prediction(scores.scores, evaluation.probe.correct).qscore.auroc
        rows.append([found.eps, scores.mean_active, found.num_discriminative, 100 * scores.empty_share, auroc])
    return rows


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
    test: tuple[Tensor, Tensor], before: _Evaluation, tuned: _Evaluation, logs: dict[str, dict[str, list[float]]]
) -> list[Picture]:
    images, labels = test
    found, scores = before.found, before.scores.scores
    panels = {
        name: (nn.functional.normalize(evaluation.test), labels, evaluation.probe.correct)
        for name, evaluation in (("before", before), ("after", tuned))
    }
    percent = found.activation_percent
    return [
        picture(
            "activation",
            "Discriminative features",
            "Sorted share of training images that highly activate each feature. The middle band is discriminative, the "
            "shaded tails are not; no label was used.",
            lambda: figures.activation_percentages(found),
            {"feature": percent.argsort().tolist(), "activation_percent": percent.sort().values.tolist()},
        ),
        picture(
            "extremes",
            "Best and worst samples by Q-Score",
            "Twelve test images with the highest and twelve with the lowest Q-Scores, with class and score.",
            lambda: figures.extreme_samples(images, scores, labels, CLASSES),
            {"test_image": list(range(len(scores))), "qscore": scores.tolist(), "correct": before.probe.correct.int().tolist()},
            kind="png",
        ),
        picture(
            "failure",
            "Failure prediction",
            "ROC and precision-recall curves for predicting that the probe is right. Feature norm and max feature use no "
            "labels; confidence, entropy and energy come from the probe, which was trained on labels.",
            lambda: figures.failure_curves(before.failure),
            {
                "false_positive_rate": before.failure.qscore.roc[0].tolist(),
                "true_positive_rate": before.failure.qscore.roc[1].tolist(),
            },
        ),
        picture(
            "losses",
            "Further training",
            "SSL loss and penalty over the steps for the three arms, which see the same batches and views.",
            lambda: figures.loss_curves(logs),
            {f"{arm} {name}": log[name] for arm, log in logs.items() for name in ("loss", "penalty")},
        ),
        picture(
            "classes",
            "Discriminative features by class",
            "Class means of the discriminative features, correct and misclassified, before and after Q-Score-regularised "
            "training, on one colour scale.",
            lambda: figures.class_heatmaps(panels, found, CLASSES),
            kind="png",
        ),
    ]


def metadata_line(metadata: dict[str, str]) -> str:
    """The embedded encoder in one line."""
    return (
        f"{metadata['method']}, {metadata['epochs']} epochs on {metadata['dataset']}; linear probe on all 50,000 labels "
        f"{100 * float(metadata['probe_top1']):.1f} % top-1"
    )
