"""The steps of the study for `sslk.evaluation.run.Evaluation`, which carries them out and remembers them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.reproduce.arms import arms_steps
from examples.reproduce.compression import compression
from examples.reproduce.config import StudyConfig
from examples.reproduce.controls import supervised_control, untrained
from examples.reproduce.elsewhere import TINY, agreement, transfer, write_splits
from examples.reproduce.encoders import StudyEncoder
from examples.reproduce.masked import foregrounds, masked
from examples.reproduce.reverse import concepts, reverse
from examples.reproduce.signal_steps import signal_steps
from examples.reproduce.subset import write_subset
from sslk.data.source import DataSource
from sslk.evaluation import steps as calls
from sslk.evaluation.plan import Step
from sslk.features.settings import ExtractSettings
from sslk.results.run import RESULTS

CONTROLS = {"supervised": supervised_control, "untrained": untrained}


@dataclass(frozen=True)
class Shared:
    """What all encoders are measured on.

    Attributes:
        train, test: .npz of CIFAR-10's images.
        concepts: table of the training images.
        masks: folder of the foregrounds of the test images.
        splits: of other data sets, by name, without `-train.npz`.
        zips: of other data sets, by name.
    """

    train: Path
    test: Path
    concepts: Path
    masks: Path
    splits: Mapping[str, Path]
    zips: Mapping[str, Path]

    @classmethod
    def below(cls, out: Path, zips: Mapping[str, Path]) -> Shared:
        """The places in a study's folder."""
        data = out / "data"
        splits = {name: data / name for name in zips}
        return cls(data / "train.npz", data / "test.npz", out / "concepts.safetensors", out / "masks", splits, zips)


def make_steps(
    encoders: Sequence[StudyEncoder], data: Sequence[Path], zips: Mapping[str, Path], out: Path, config: StudyConfig
) -> list[Step]:
    """Every step, each behind those it needs; long ones that all wait for come first.

    Args:
        encoders: the study's, controls among them.
        data: the .npz of the official training and test split.
        zips: of other data sets, by name; their steps are left out where there are none.
        out: folder of the study.
        config: sizes and seeds.
    """
    shared = Shared.below(out, zips)
    steps = _shared_steps(shared, data, config)
    for encoder in encoders:
        if encoder.weights is not None and encoder.kind in CONTROLS:
            steps.append(_control(encoder, shared.train, config))
        steps += _encoder_steps(encoder, shared, out / encoder.name, config)
    steps += arms_steps(encoders, data, out, config.arms, config.seed)
    return steps + signal_steps(encoders, out, config.signal, config.seed)


def named(encoder: StudyEncoder) -> str:
    """The encoder as `ModelSource` writes it."""
    return encoder.model if encoder.weights is None else f"{encoder.model}@{encoder.weights}"


def _shared_steps(shared: Shared, data: Sequence[Path], config: StudyConfig) -> list[Step]:
    seed = config.seed
    sizes = ((shared.train, data[0], config.train_images), (shared.test, data[1], config.test_images))
    steps = [
        Step(f"data/{file.stem}", write_subset, {"source": str(source), "out": str(file), "count": count, "seed": seed}, file)
        for file, source, count in sizes
    ]
    table = {"data": f"npz:{shared.train}", "out": str(shared.concepts), "imagenet": config.imagenet_concepts}
    found = {"data": f"npz:{shared.test}", "out": str(shared.masks), "images": config.masked_images, "seed": seed}
    steps += [
        Step("concepts", concepts, table, shared.concepts, ("data/train",)),
        Step("foregrounds", foregrounds, found, shared.masks, ("data/test",)),
    ]
    for name, path in shared.splits.items():
        arguments = {"name": name, "source": str(shared.zips[name]), "out": str(path), "seed": seed}
        steps.append(Step(f"data/{name}", write_splits, arguments, path.with_name(f"{path.name}-test.npz")))
    return steps


def _control(encoder: StudyEncoder, train: Path, config: StudyConfig) -> Step:
    assert encoder.weights is not None
    arguments: dict[str, Any] = {"out": encoder.weights, "seed": config.seed}
    if encoder.kind == "supervised":
        arguments |= {"data": str(train), "epochs": config.supervised_epochs}
    return Step(f"{encoder.name}/weights", CONTROLS[encoder.kind], arguments, Path(encoder.weights), ("data/train",))


def _encoder_steps(encoder: StudyEncoder, shared: Shared, folder: Path, config: StudyConfig) -> list[Step]:
    name, model, seed = encoder.name, named(encoder), config.seed
    train, test, found = folder / "train", folder / "test", folder / "discriminative.safetensors"
    pair, label = {"train": str(train), "test": str(test)}, {"label": name}
    own = (f"{name}/weights",) if encoder.weights is not None and encoder.kind in CONTROLS else ()

    def step(what: str, call: Callable[..., None], output: Path, needs: Sequence[str], **arguments: Any) -> Step:
        return Step(f"{name}/{what}", call, arguments, output, tuple(needs), (name,))

    def run(what: str, call: Callable[..., None], needs: Sequence[str], **arguments: Any) -> Step:
        """A step that leaves a run in a folder of its own."""
        return step(what, call, folder / what / RESULTS, needs, out=str(folder / what), **arguments)

    def mine(*parts: str) -> list[str]:
        return [f"{name}/{part}" for part in parts]

    def extract(file: Path, store: Path) -> Step:
        arguments = {"data": DataSource(f"npz:{file}", file.stem), "settings": ExtractSettings(workers=0)}
        needs = (f"data/{file.stem}", *own)
        return step(file.stem, calls.extract, store, needs, model=model, image_size=None, out=str(store), **arguments)

    quantized = {"clusters": config.clusters, "clusterings": config.clusterings, "iterations": config.kmeans_iterations}
    images = {"data": f"npz:{shared.test}", "masks": str(shared.masks), "images": config.masked_images}
    failure = {"outputs": str(folder / "linear"), "discriminative": str(found)}
    steps = [
        extract(shared.train, train),
        extract(shared.test, test),
        step("discover", calls.discover, found, mine("train"), store=str(train), out=str(found)),
        run("linear", calls.linear, mine("train", "test"), **label, **pair, seed=seed, device=None),
        run("knn", calls.knn, mine("train", "test"), **label, **pair, seed=seed, device=None),
        run("failure", calls.failure, mine("linear", "discover"), **label, **pair, **failure, seed=seed),
        run(
            "compression",
            compression,
            mine("train", "test"),
            **pair,
            reductions=config.reductions,
            draws=config.random_draws,
            seed=seed,
        ),
        run(
            "reverse",
            reverse,
            ("concepts", *mine("train")),
            store=str(train),
            table=str(shared.concepts),
            **quantized,
            epochs=config.concept_epochs,
            seed=seed,
        ),
        run("masked", masked, ("foregrounds", *own), model=model, **images, resamples=config.resamples, seed=seed),
    ]
    if shared.splits:
        splits = {known: str(path) for known, path in shared.splits.items()}
        needs = [f"data/{known}" for known in splits]
        steps.append(run("transfer", transfer, (*needs, *own), model=model, **label, splits=splits, seed=seed))
    if TINY in shared.zips:
        asked = {"source": str(shared.zips[TINY]), "discriminative": str(found)}
        steps.append(run("agreement", agreement, mine("discover"), model=model, **asked, seed=seed))
    return steps
