"""The steps of the study for `sslk.evaluation.run.Evaluation`, which carries them out and remembers them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from examples.reproduce.controls import supervised, untrained
from examples.reproduce.encoders import StudyEncoder
from examples.reproduce.reverse import concepts, reverse
from examples.reproduce.subset import write_subset
from sslk.data.source import DataSource
from sslk.evaluation import steps as calls
from sslk.evaluation.plan import Step
from sslk.features import FeatureStore
from sslk.features.settings import ExtractSettings
from sslk.masked import StudySettings, masked_study
from sslk.models.source import ModelSource
from sslk.progress import Progress
from sslk.quality import CompressionSettings, compression_study
from sslk.results.run import RESULTS
from sslk.training import finetune_study, load_start
from sslk.training.config import MethodName, TrainingConfig

CONTROLS = {"supervised": supervised, "untrained": untrained}


@dataclass(frozen=True)
class StudyConfig:
    """What the study costs; every result says at which of these it was obtained.

    Attributes:
        train_images, test_images: drawn from the official splits, class-balanced.
        supervised_epochs: of the supervised control.
        masked_images: of the test images, for the masked study.
        clusters: K of reverse probing; the sets of concepts are compared at the first.
        imagenet_concepts: ask an ImageNet classifier about every test image.
        arm_images: of the training split, for further training; the test images are the same.
        arm_epochs, arm_learning_rate: of further training.
        arm_seeds: how many; 0 leaves the three arms out.
        arm_encoders: names of the encoders that are trained further.
        reductions: percent of the features left out in the compression study.
        seed: of the draws, the controls and every step.
    """

    train_images: int = 10_000
    test_images: int = 5_000
    supervised_epochs: int = 4
    masked_images: int = 2_000
    clusters: list[int] = field(default_factory=lambda: [50, 100])
    imagenet_concepts: bool = True
    arm_images: int = 3_000
    arm_epochs: int = 2
    arm_learning_rate: float = 0.1
    arm_seeds: int = 3
    arm_encoders: list[str] = field(default_factory=lambda: ["simclr-embedded"])
    reductions: list[float] = field(default_factory=lambda: [0.0, 20.0, 40.0, 60.0, 80.0])
    seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def make_steps(encoders: Sequence[StudyEncoder], data: Sequence[Path], out: Path, config: StudyConfig) -> list[Step]:
    """Every step, each behind those it needs.

    Args:
        encoders: the study's, controls among them.
        data: the .npz of the official training and test split.
        out: folder of the study.
        config: sizes and seeds.
    """
    files = {role: out / "data" / f"{role}.npz" for role in ("train", "test", "arms")}
    sizes = {"train": config.train_images, "test": config.test_images, "arms": config.arm_images}
    steps = [
        Step(
            f"data/{role}",
            write_subset,
            {"source": str(data[role == "test"]), "out": str(file), "count": sizes[role], "seed": config.seed},
            file,
        )
        for role, file in files.items()
        if role != "arms" or config.arm_seeds
    ]
    table = out / "concepts.safetensors"
    steps.append(
        Step(
            "concepts",
            concepts,
            {"data": f"npz:{files['test']}", "out": str(table), "imagenet": config.imagenet_concepts},
            table,
            ("data/test",),
        )
    )
    for encoder in encoders:
        if encoder.kind != "self-supervised":
            steps.append(_control(encoder, files["train"], config))
        steps += _encoder_steps(encoder, files, table, out / encoder.name, config)
    for encoder in encoders:
        if encoder.name in config.arm_encoders:
            for seed in range(config.seed, config.seed + config.arm_seeds):
                steps.append(_arms_step(encoder, files, out / "arms" / f"{encoder.name}-{seed}", seed, config))
    return steps


def _control(encoder: StudyEncoder, train: Path, config: StudyConfig) -> Step:
    assert encoder.weights is not None
    arguments: dict[str, Any] = {"out": encoder.weights, "seed": config.seed}
    if encoder.kind == "supervised":
        arguments |= {"data": str(train), "epochs": config.supervised_epochs}
    return Step(f"{encoder.name}/weights", CONTROLS[encoder.kind], arguments, Path(encoder.weights), ("data/train",))


def _encoder_steps(encoder: StudyEncoder, files: dict[str, Path], table: Path, folder: Path, config: StudyConfig) -> list[Step]:
    train, test, found = folder / "train", folder / "test", folder / "discriminative.safetensors"
    pair = {"train": str(train), "test": str(test)}
    own = () if encoder.kind == "self-supervised" else (f"{encoder.name}/weights",)
    seed = config.seed

    def step(what: str, call: Callable[..., None], output: Path, *needs: str, **arguments: Any) -> Step:
        return Step(f"{encoder.name}/{what}", call, arguments, output, needs, (encoder.name,))

    def run(what: str, call: Callable[..., None], *needs: str, **arguments: Any) -> Step:
        """A step that leaves a run in a folder of its own and reads what this encoder's earlier steps left."""
        needed = (f"{encoder.name}/{name}" for name in needs)
        return step(what, call, folder / what / RESULTS, *needed, out=str(folder / what), **arguments)

    named = encoder.model if encoder.weights is None else f"{encoder.model}@{encoder.weights}"

    def extract(role: str, store: Path) -> Step:
        data = DataSource(f"npz:{files[role]}", role)
        arguments = {"model": named, "image_size": None, "data": data, "out": str(store), "settings": ExtractSettings(workers=0)}
        return step(role, calls.extract, store, f"data/{role}", *own, **arguments)

    reversed_ = run("reverse", reverse, "test", store=str(test), table=str(table), clusters=config.clusters, seed=seed)
    return [
        extract("train", train),
        extract("test", test),
        step("discover", calls.discover, found, f"{encoder.name}/train", store=str(train), out=str(found)),
        run("linear", calls.linear, "train", "test", label=encoder.name, **pair, seed=seed, device=None),
        run("knn", calls.knn, "train", "test", label=encoder.name, **pair, seed=seed, device=None),
        run(
            "failure",
            calls.failure,
            "linear",
            "discover",
            label=encoder.name,
            test=str(test),
            outputs=str(folder / "linear"),
            discriminative=str(found),
            seed=seed,
        ),
        run("compression", compression, "train", "test", **pair, reductions=config.reductions),
        replace(reversed_, needs=(*reversed_.needs, "concepts")),
        step(
            "masked",
            masked,
            folder / "masked" / RESULTS,
            "data/test",
            *own,
            model=named,
            data=f"npz:{files['test']}",
            out=str(folder / "masked"),
            images=config.masked_images,
            seed=seed,
        ),
    ]


def compression(train: str, test: str, reductions: list[float], out: str, progress: Progress | None = None) -> None:
    """Compression at fewer sizes than the paper's."""
    settings = CompressionSettings(reductions=tuple(reductions))
    compression_study(FeatureStore(train), FeatureStore(test), settings, progress=progress).save(out)


def masked(model: str, data: str, out: str, images: int, seed: int, progress: Progress | None = None) -> None:
    """The masked-input study of one encoder."""
    settings = StudySettings(images=images, umap_share=0.0, resamples=200, neighbor_images=1000, seed=seed)
    masked_study([ModelSource(model)], DataSource(data), out, settings, progress=progress).save(out)


def arms(
    method: MethodName,
    model: str,
    options: dict[str, Any],
    data: str,
    test: str,
    training: TrainingConfig,
    out: str,
    progress: Progress | None = None,
) -> None:
    """Further training in three arms."""
    start = load_start(method, ModelSource(model), DataSource(data, "train").load(), options=options)
    finetune_study(start, out, training, test=DataSource(test, "test").load(), progress=progress).save(out)


def _arms_step(encoder: StudyEncoder, files: dict[str, Path], out: Path, seed: int, config: StudyConfig) -> Step:
    training = TrainingConfig(
        epochs=config.arm_epochs,
        learning_rate=config.arm_learning_rate,
        view_size=20,
        seed=seed,
        channels_last=True,
        head_warmup_epochs=0 if encoder.name == "simclr-embedded" else 2,
        checkpoint_every=10,
        workers=0,
    )
    named = encoder.model if encoder.weights is None else f"{encoder.model}@{encoder.weights}"
    # The head of SimCLR is the one that the embedded encoder was trained with.
    options = {"hidden_dim": 256, "output_dim": 128, "temperature": 0.2} if encoder.method == "simclr" else {}
    arguments = {
        "method": encoder.method,
        "model": named,
        "options": options,
        "data": f"npz:{files['arms']}",
        "test": f"npz:{files['test']}",
        "training": training,
        "out": str(out),
    }
    return Step(f"arms/{encoder.name}-{seed}", arms, arguments, out / RESULTS, ("data/arms", "data/test"), (encoder.name,))
