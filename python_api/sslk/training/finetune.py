"""Further training of one encoder in three arms from the same start, and what it does to representations and scores."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslk.data import Dataset
from sslk.distributed import join_processes, wait_for_all, world
from sslk.features import FeatureStore, extract
from sslk.features.settings import ExtractSettings
from sslk.models import evaluation_transform
from sslk.models.backbone import Backbone
from sslk.probes.linear import linear_probe
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.settings import LinearSettings
from sslk.probes.source import answered_rows
from sslk.progress import Progress, renamed
from sslk.quality.belonging import check_set, load_set
from sslk.quality.discovery import discover
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.quality.failure import failure_prediction
from sslk.quality.score import qscore
from sslk.training.checkpoints import load_method, save_method
from sslk.training.config import ARMS, Arm, TrainingConfig
from sslk.training.heads import build_method
from sslk.training.methods import METHODS, Method, MomentumMethod
from sslk.training.run import Carrying, train
from sslk.training.start import TrainingStart
from sslk.training.transforms import image_transform
from sslk.training.views import Batches, ImageViews, TensorViews, UnequalImages, images_in_memory

SMALL_IMAGE = 64  # pixels; sets of such images are kept in memory and augmented a batch at a time
START, SET, MODEL = "start.safetensors", "discriminative.safetensors", "model.safetensors"
OUTPUTS = "outputs.safetensors"


@dataclass(frozen=True)
class ArmResult:
    """One encoder after (or before) further training.

    Attributes:
        mean_q, mean_active, empty_share: over the evaluation images, with the set S of the start.
        column_tail: share of the columns' L1 norms, over the same images, that lies in columns above their mean.
        top1, auroc: of a linear probe on them, and of Q-Score as its failure predictor; None without labels.
        log: the logged steps; empty before training.
    """

    mean_q: float
    mean_active: float
    empty_share: float
    column_tail: float
    top1: float | None
    auroc: float | None
    log: list[dict[str, float]]


def finetune(
    start: TrainingStart,
    out: str | PathLike[str],
    config: TrainingConfig,
    *,
    arms: Sequence[Arm] = ARMS,
    test: Dataset | None = None,
    evaluate_start: bool = True,
    progress: Progress | None = None,
    trainer_options: dict[str, Any] | None = None,
) -> dict[str, ArmResult]:
    """Train copies of an encoder further, one per arm, with the same batches and budget, and evaluate them.

    Interrupted at any moment, the same call goes on. The start (encoder and heads, warmed up where asked for) is
    written once and shared by the arms.

    Args:
        start: encoder, method, training images and set.
        out: folder: `start.safetensors`, `discriminative.safetensors` and, per arm, checkpoints, logs,
            `model.safetensors`, feature stores and, with labels, the probe's `outputs.safetensors`.
        config: settings.
        arms: which penalties.
        test: evaluation images; with labels in both sets a linear probe is trained on the training images and tested here.
        evaluate_start: also evaluate the encoder before training.
        progress: called with the steps done, all steps, and the stage: an arm, or the warming up of heads.
        trainer_options: further arguments of `pytorch_lightning.Trainer`.

    Returns:
        Results by arm; `before` is the encoder at the start.

    Raises:
        ValueError: settings that do not fit, a set of another model, or another run in `out`; each named.
        NonFiniteError: the loss became NaN.
    """
    join_processes()
    method, backbone, data, discriminative = start.method, start.backbone, start.images, start.discriminative
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for arm in arms:
        if arm not in ARMS:
            raise ValueError(f"arms must be among {', '.join(ARMS)}, got {arm!r}.")
    if discriminative is not None:
        check_set(discriminative, backbone, further_trained=start.further_trained)
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
    views = make_views(method, data, backbone, config)
    Batches(len(data), config.batch_size, config.epochs, config.seed, views, *world())  # refuses before any work
    build, fresh = _builder(start, config.seed)
    identity = {
        "method": method,
        "options": dict(start.options),
        "weights": backbone.weights_hash,
        "data": [data.name, data.fingerprint],
    }

    def run(
        model: Method, folder: Path, stage: str, config: TrainingConfig, arm: Arm = "baseline", frozen: bool = False
    ) -> list[dict[str, float]]:
        carrying = Carrying(identity, None, frozen, trainer_options or {})
        found = None if frozen else discriminative
        return train(model, views, folder, config, arm, found, carrying, progress=renamed(progress, stage))

    before = copy.deepcopy(backbone)
    if discriminative is None:
        if (out / SET).exists():
            discriminative = load_set(out / SET, backbone, further_trained=start.further_trained)
        else:
            discriminative = discover(_features(before, data, out / "before" / "train", config), "auto")
    if world()[0] == 0:
        discriminative.save(out / SET)
    wait_for_all()
    if not (out / START).exists():
        begun = build()
        if config.head_warmup_epochs and fresh:
            warm = replace(config, epochs=config.head_warmup_epochs, learning_rate=config.head_learning_rate)
            run(begun, out / "heads", "warming up heads", warm, frozen=True)
            if isinstance(begun, MomentumMethod):
                begun.reset_momentum()
        if world()[0] == 0:
            save_method(begun, out / START, {"method": method, "config": asdict(config)})
    wait_for_all()
    results = {}
    if evaluate_start:
        results["before"] = _evaluate(before, data, test, out / "before", discriminative, config, [])
    for arm in arms:
        model = build()
        load_method(model, out / START)
        log = run(model, out / arm, arm, config, arm)
        if world()[0] == 0:
            save_method(model, out / arm / MODEL, {"method": method, "arm": arm, "config": asdict(config), **identity})
        trained = copy.deepcopy(backbone)
        trained.net.load_state_dict(model.backbone.state_dict())
        results[arm] = _evaluate(trained, data, test, out / arm, discriminative, config, log)
    return results


def make_views(method: str, data: Dataset, backbone: Backbone, config: TrainingConfig) -> TensorViews | ImageViews:
    """Batched augmentation in memory where all images are small and of one size; else lightly's transforms in processes."""
    if config.local_views and not METHODS[method].multi_crop:
        raise ValueError(f"local_views must be 0 for {method}: only swav and dino use local crops.")
    size = config.view_size or backbone.input_size[0]
    if max(data[0][0].size) <= SMALL_IMAGE:
        with contextlib.suppress(UnequalImages):
            images = images_in_memory(data)
            return TensorViews(images, config.batch_size, size, backbone.mean, backbone.std, config.local_views)
    transform = image_transform(method, size, backbone.mean, backbone.std, config.local_views)
    return ImageViews(data, transform, config.workers)


def _builder(start: TrainingStart, seed: int) -> tuple[Callable[[], Method], list[str]]:
    """What makes a method around a copy of the encoder, and which of its heads are fresh (said once)."""
    backbone = start.backbone
    fixed = (start.options, seed)
    _, fresh = build_method(start.method, copy.deepcopy(backbone.net), backbone.num_features, start.parts or {}, *fixed)

    def build() -> Method:
        net = copy.deepcopy(backbone.net)
        return build_method(start.method, net, backbone.num_features, start.parts, *fixed, False)[0]

    return build, fresh


def _features(backbone: Backbone, data: Dataset, out: Path, config: TrainingConfig) -> FeatureStore:
    images = copy.copy(data)
    images.transform = evaluation_transform(backbone)
    workers = 0 if max(data[0][0].size) <= SMALL_IMAGE else config.workers
    device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    return extract(backbone, images, out, ExtractSettings(workers=workers, device=device))


def _evaluate(
    backbone: Backbone,
    data: Dataset,
    test: Dataset | None,
    out: Path,
    found: DiscriminativeFeatures,
    config: TrainingConfig,
    log: list[dict[str, float]],
) -> ArmResult:
    train = _features(backbone, data, out / "train", config)
    shown = train if test is None else _features(backbone, test, out / "test", config)
    rows = shown.load().features
    scores = qscore(rows, found)
    columns = torch.ops.sslk.column_l1(rows).double()
    tail = columns[columns > columns.mean()].sum() / columns.sum()
    top1 = auroc = None
    if test is not None and train.has_labels and shown.has_labels:
        outputs = _probe(train, shown, out / OUTPUTS, config.seed)
        top1 = outputs.accuracy
        auroc = failure_prediction(scores.scores[answered_rows(shown, outputs)], outputs.correct).qscore.auroc
    return ArmResult(_mean(scores.scores), scores.mean_active, scores.empty_share, float(tail), top1, auroc, log)


def _probe(train: FeatureStore, test: FeatureStore, file: Path, seed: int) -> ProbeOutputs:
    """Outputs of the linear probe, from their file where an interrupted run of these weights has left them."""
    if file.exists():
        outputs = ProbeOutputs.load(file)
        if outputs.source.get("weights_hash") == test.spec.weights_hash:
            return outputs
    outputs = linear_probe(train, test, LinearSettings(seed=seed)).outputs
    if world()[0] == 0:
        outputs.save(file)
    return outputs


def _mean(values: Tensor) -> float:
    return float(values.double().nanmean())
