"""What all arms share: encoder and heads at the start, the set S, and the views; and the training of one arm from there."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sslk.data import Dataset
from sslk.distributed import wait_for_all, world
from sslk.models.backbone import Backbone
from sslk.progress import Progress, renamed
from sslk.quality.belonging import check_set, load_set
from sslk.quality.discovery import discover
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.training.checkpoints import load_method, save_method
from sslk.training.config import Arm, TrainingConfig
from sslk.training.evaluate import features
from sslk.training.heads import build_method
from sslk.training.methods import METHODS, Method, MomentumMethod
from sslk.training.refind import FindSetAgain
from sslk.training.run import Carrying, train
from sslk.training.start import TrainingStart
from sslk.training.transforms import image_transform
from sslk.training.views import SMALL_IMAGE, Batches, ImageViews, TensorViews, UnequalImages, images_in_memory

START, SET, MODEL = "start.safetensors", "discriminative.safetensors", "model.safetensors"


@dataclass(frozen=True, eq=False)
class Prepared:
    """A start that arms can be trained from.

    Attributes:
        start: encoder, method and images.
        discriminative: the set S.
        views: the images' views.
        file: encoder and all heads, warmed up where that was asked for.
        build: makes the method around a copy of the encoder.
        identity: what has to be equal for a resumed run, besides its settings.
        trainer_options: further arguments of `pytorch_lightning.Trainer`.
    """

    start: TrainingStart
    discriminative: DiscriminativeFeatures
    views: TensorViews | ImageViews
    file: Path
    build: Callable[[], Method]
    identity: dict[str, Any]
    trainer_options: dict[str, Any]

    def train(
        self,
        folder: Path,
        config: TrainingConfig,
        arm: Arm,
        *,
        discriminative: DiscriminativeFeatures | None = None,
        progress: Progress | None = None,
    ) -> tuple[Backbone, list[dict[str, float]]]:
        """Train one arm in `folder`, resumably, and leave `model.safetensors` there.

        Args:
            folder: of the arm.
            config: settings.
            arm: which penalty.
            discriminative: another set for the penalty than that of the start.
            progress: called with the steps done and to do.

        Returns:
            The trained encoder and the log.

        Raises:
            ValueError, NonFiniteError: as for `train`.
        """
        found = discriminative or self.discriminative
        model = self.build()
        load_method(model, self.file)
        options = dict(self.trainer_options)
        if config.refind_every and arm == "qscore":
            images = self.start.images
            every = config.refind_every * max(1, len(images) // config.batch_size // config.accumulate)
            again = FindSetAgain(images, self.start.backbone, found, every, config.workers if _large(images) else 0)
            options["callbacks"] = [*options.get("callbacks", ()), again]
        log = train(
            model, self.views, folder, config, arm, found, Carrying(self.identity, None, False, options), progress=progress
        )
        if world()[0] == 0:
            about = {"method": self.start.method, "arm": arm, "config": asdict(config), **self.identity}
            save_method(model, folder / MODEL, about)
        trained = copy.deepcopy(self.start.backbone)
        trained.net.load_state_dict(model.backbone.state_dict())
        return trained, log


def prepare(
    start: TrainingStart,
    out: Path,
    config: TrainingConfig,
    *,
    progress: Progress | None = None,
    trainer_options: dict[str, Any] | None = None,
) -> Prepared:
    """Find the set S, build the heads and, where fresh ones are to be warmed up, train them; what `out` holds is read.

    Args:
        start: encoder, method, images and set.
        out: folder: `discriminative.safetensors`, `start.safetensors`, `before/train` where S was found.
        config: settings.
        progress: called with the steps of the warming up.
        trainer_options: further arguments of `pytorch_lightning.Trainer`.

    Raises:
        ValueError: an unknown method, settings that do not fit, a set of another model, or another run in `out`.
    """
    method, backbone, data, found = start.method, start.backbone, start.images, start.discriminative
    out.mkdir(parents=True, exist_ok=True)
    if found is not None:
        check_set(found, backbone, further_trained=start.further_trained)
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
    if found is None:
        found = found_set(start, out / SET, config)
    if world()[0] == 0:
        found.save(out / SET)
    wait_for_all()
    prepared = Prepared(start, found, views, out / START, build, identity, trainer_options or {})
    if not prepared.file.exists():
        begun = build()
        if config.head_warmup_epochs and fresh:
            warm = replace(config, epochs=config.head_warmup_epochs, learning_rate=config.head_learning_rate)
            carrying = Carrying(identity, None, True, prepared.trainer_options)
            train(begun, views, out / "heads", warm, carrying=carrying, progress=renamed(progress, "warming up heads"))
            if isinstance(begun, MomentumMethod):
                begun.reset_momentum()
        if world()[0] == 0:
            save_method(begun, prepared.file, {"method": method, "config": asdict(config)})
    wait_for_all()
    return prepared


def found_set(start: TrainingStart, file: Path, config: TrainingConfig) -> DiscriminativeFeatures:
    """The set S of the encoder at the start, at `config.eps`; read from `file` where it is there."""
    if file.exists():
        return load_set(file, start.backbone, further_trained=start.further_trained)
    store = features(copy.deepcopy(start.backbone), start.images, file.parent / "before" / "train", config.workers)
    return discover(store, config.eps)


def make_views(method: str, data: Dataset, backbone: Backbone, config: TrainingConfig) -> TensorViews | ImageViews:
    """Batched augmentation in memory where all images are small and of one size; else lightly's transforms in processes."""
    if config.local_views and not METHODS[method].multi_crop:
        raise ValueError(f"local_views must be 0 for {method}: only swav and dino use local crops.")
    size = config.view_size or backbone.input_size[0]
    if not _large(data):
        with contextlib.suppress(UnequalImages):
            images = images_in_memory(data)
            return TensorViews(images, config.batch_size, size, backbone.mean, backbone.std, config.local_views)
    transform = image_transform(method, size, backbone.mean, backbone.std, config.local_views)
    return ImageViews(data, transform, config.workers)


def _large(data: Dataset) -> bool:
    return max(data[0][0].size) > SMALL_IMAGE


def _builder(start: TrainingStart, seed: int) -> tuple[Callable[[], Method], list[str]]:
    """What makes a method around a copy of the encoder, and which of its heads are fresh (said once)."""
    backbone = start.backbone
    fixed = (start.options, seed)
    _, fresh = build_method(start.method, copy.deepcopy(backbone.net), backbone.num_features, start.parts or {}, *fixed)

    def build() -> Method:
        net = copy.deepcopy(backbone.net)
        return build_method(start.method, net, backbone.num_features, start.parts, *fixed, False)[0]

    return build, fresh
