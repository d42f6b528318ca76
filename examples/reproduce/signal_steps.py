"""The steps that ask when Q-Score tells anything: of every encoder, of a supervised ImageNet network, and over epochs.

`examples/reproduce/study.py` carries them out behind its own; `signal_page.py` writes the page.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from examples.reproduce.encoders import StudyEncoder
from sslk.data.source import DataSource
from sslk.evaluation import steps as calls
from sslk.evaluation.plan import Step
from sslk.features import FeatureStore
from sslk.features.by_name import extract_by_name
from sslk.features.settings import ExtractSettings
from sslk.models.source import ModelSource
from sslk.probes import LinearSettings, ProbeOutputs, head_study, linear_probe
from sslk.progress import Progress
from sslk.quality import (
    BootstrapSettings,
    DiscoverSettings,
    SignalSettings,
    ViewSource,
    neighbourhood_consistency,
    read_scores,
    signal_study,
    view_variance,
)
from sslk.quality.failure_sources import CONSISTENCY, OVER_VIEWS
from sslk.results.run import RESULTS, Run

IMAGENET = "efficientnet-lite0"
EPOCHS = "epochs"
EPOCH_FILE = re.compile(r"epoch-(\d+)\.safetensors")


@dataclass(frozen=True)
class SignalConfig:
    """What is asked, at which cost.

    Attributes:
        grid: thresholds in standard deviations, beside the one that is found without labels.
        draws: random subsets of the features of each size.
        views: random views of every test image, for the variance over views; 0 leaves that score out.
        imagenet: tiny_imagenet_val.zip, to ask a supervised ImageNet network too; without it that part is left out.
        epochs: NAME=FOLDER, the encoders of epochs that were kept: FOLDER/epoch-NN.safetensors of the compact network.
        epoch_count: how many of them, evenly spaced, the first and the last among them.
    """

    grid: list[float] = field(default_factory=lambda: [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0])
    draws: int = 4
    views: int = 4
    imagenet: str = ""
    epochs: list[str] = field(default_factory=list)
    epoch_count: int = 11


def signal_steps(encoders: Sequence[StudyEncoder], out: Path, config: SignalConfig, seed: int) -> list[Step]:
    """The steps, which read OUT/ENCODER/{train,test,linear} and OUT/data of the study's own.

    Args:
        encoders: the study's, controls among them.
        out: folder of the study.
        config: what is asked.
        seed: of subsets, folds, views and bootstrap.

    Raises:
        ValueError: an item of `epochs` is not NAME=FOLDER, or its folder holds no epoch.
    """
    settings = SignalSettings(grid=tuple(config.grid), draws=config.draws)
    trained = [encoder.name for encoder in encoders if encoder.kind == "self-supervised"]
    steps, shared = [], None
    if len(trained) > 1:
        shared = out / "signal" / "consistency.npz"
        steps.append(
            Step(
                "signal/consistency",
                consistency,
                {"folders": [str(out / name) for name in trained], "out": str(shared)},
                shared,
                tuple(f"{name}/{part}" for name in trained for part in ("train", "test")),
            )
        )
    steps += [_encoder_step(encoder, out, settings, config.views, seed, shared) for encoder in encoders]
    if config.imagenet:
        steps += _imagenet_steps(config.imagenet, out / IMAGENET, settings, seed)
    for item in config.epochs:
        steps += _epoch_steps(item, out, config.epoch_count, seed)
    return steps


def _encoder_step(encoder: StudyEncoder, out: Path, settings: SignalSettings, views: int, seed: int, shared: Path | None) -> Step:
    folder = out / encoder.name
    arguments = {
        "model": encoder.model if encoder.weights is None else f"{encoder.model}@{encoder.weights}",
        "folder": str(folder),
        "about": {"encoder": encoder.name, "kind": encoder.kind, "training": encoder.training},
        "settings": settings,
        "views": views,
        "scores": None if shared is None else str(shared),
        "seed": seed,
    }
    needs = [f"{encoder.name}/{part}" for part in ("train", "test", "linear")]
    needs += [] if shared is None else ["signal/consistency"]
    return Step(f"{encoder.name}/signal", encoder_signal, arguments, folder / "signal" / RESULTS, tuple(needs), (encoder.name,))


def consistency(folders: list[str], out: str, progress: Progress | None = None) -> None:
    """Neighbourhood consistency of the test images under all self-supervised encoders: one score for all of them."""
    tests, trains = ([FeatureStore(Path(folder) / part) for folder in folders] for part in ("test", "train"))
    found = neighbourhood_consistency(tests, trains, progress=progress)
    index = np.concatenate([shard.indices.numpy() for shard in tests[0].shards()])
    arrays: dict[str, Any] = {"index": index, CONSISTENCY: found.numpy()}
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(out).with_suffix(".part.npz")
    np.savez(unfinished, **arrays)
    unfinished.replace(out)


def encoder_signal(
    model: str,
    folder: str,
    about: dict[str, str],
    settings: SignalSettings,
    views: int,
    scores: str | None,
    seed: int,
    progress: Progress | None = None,
) -> None:
    """What Q-Score tells of one encoder's linear probe."""
    train, test = (FeatureStore(Path(folder) / part).require() for part in ("train", "test"))
    given = {} if scores is None else read_scores(scores, test)
    if views:
        source = ViewSource((ModelSource(model),))
        given[OVER_VIEWS] = view_variance(source.of(test, len(test), views, seed, progress))
    run = signal_study(
        train,
        test,
        ProbeOutputs.load(Path(folder) / "linear"),
        settings,
        bootstrap=BootstrapSettings(seed=seed),
        scores=given,
        progress=progress,
    )
    _leave(run, about, Path(folder) / "signal")


def _imagenet_steps(archive: str, folder: Path, settings: SignalSettings, seed: int) -> list[Step]:
    """The paper's setting: D above 512, eps = 4, a supervised network and its own classifier."""
    store = folder / "test"
    extraction = {
        "model": IMAGENET,
        "image_size": None,
        "data": DataSource(f"tiny-imagenet:{archive}", "val"),
        "out": str(store),
        "settings": ExtractSettings(workers=0),
    }
    asked = {"folder": str(folder), "settings": settings, "seed": seed}
    return [
        Step(f"{IMAGENET}/test", calls.extract, extraction, store),
        Step(f"{IMAGENET}/signal", imagenet_signal, asked, folder / "signal" / RESULTS, (f"{IMAGENET}/test",)),
    ]


def imagenet_signal(folder: str, settings: SignalSettings, seed: int, progress: Progress | None = None) -> None:
    """What Q-Score tells of a supervised network's own classifier, among the 200 classes of Tiny-ImageNet."""
    store = FeatureStore(Path(folder) / "test").require()
    head = head_study(store, ModelSource(IMAGENET).load(), classes="imagenet", restrict=True)
    head.save(Path(folder) / "head")
    about = {"encoder": IMAGENET, "kind": "supervised", "training": "ImageNet-1K, with labels; set found on the same images"}
    run = signal_study(
        store,
        store,
        ProbeOutputs.load(Path(folder) / "head"),
        settings,
        DiscoverSettings(eps=4.0),
        BootstrapSettings(seed=seed),
        progress=progress,
    )
    _leave(run, about, Path(folder) / "signal")


def _epoch_steps(item: str, out: Path, count: int, seed: int) -> list[Step]:
    name, equals, folder = item.partition("=")
    found = {int(match[1]): file for file in Path(folder).glob("epoch-*") if (match := EPOCH_FILE.fullmatch(file.name))}
    if not equals or not found:
        raise ValueError(f"epochs must be NAME=FOLDER with FOLDER/epoch-NN.safetensors, got {item!r}.")
    epochs = sorted(found)
    chosen = sorted({epochs[round(place)] for place in np.linspace(0, len(epochs) - 1, min(count, len(epochs)))})
    files = {part: out / "data" / f"{part}.npz" for part in ("train", "test")}
    steps = []
    for epoch in chosen:
        place = out / EPOCHS / name / f"{epoch:03d}"
        arguments: dict[str, Any] = {
            "model": f"cifar:compact@{found[epoch]}",
            "data": {part: f"npz:{file}" for part, file in files.items()},
            "about": {"encoder": name, "epoch": str(epoch)},
            "out": str(place),
            "seed": seed,
        }
        steps.append(Step(f"{EPOCHS}/{name}-{epoch}", epoch_signal, arguments, place / RESULTS, ("data/train", "data/test")))
    return steps


def epoch_signal(
    model: str, data: dict[str, str], about: dict[str, str], out: str, seed: int, progress: Progress | None = None
) -> None:
    """What Q-Score tells of a linear probe on one epoch's encoder; its features are not kept."""
    folder = Path(out) / "features"
    train, test = (
        extract_by_name(
            ModelSource(model), DataSource(data[part], part), folder / part, ExtractSettings(workers=0), progress=progress
        )
        for part in ("train", "test")
    )
    outputs = linear_probe(train, test, LinearSettings(seed=seed), progress=progress).outputs
    settings = SignalSettings(grid=(), shares=())
    _leave(signal_study(train, test, outputs, settings, bootstrap=BootstrapSettings(seed=seed)), about, Path(out))
    shutil.rmtree(folder)


def _leave(run: Run, about: dict[str, str], folder: Path) -> None:
    title = " ".join(part for name, part in about.items() if name in ("encoder", "epoch"))
    replace(run, title=f"{title}: {run.title}", provenance={**run.provenance, **about}).save(folder)
