"""The steps of the study as commands for `sslk.evaluation.run.Evaluation`, which carries them out and remembers them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from examples.reproduce.encoders import StudyEncoder
from sslk.evaluation.plan import Step
from sslk.results.run import RESULTS
from sslk.training.config import ARMS, TrainingConfig

# Steps that are no command of `sslk`.
SUBSET, SUPERVISED, UNTRAINED, CONCEPTS, REVERSE = (
    f"examples.reproduce.{target}"
    for target in (
        "subset:write_subset",
        "controls:supervised",
        "controls:untrained",
        "reverse:concepts",
        "reverse:reverse",
    )
)
CONTROLS = {"supervised": SUPERVISED, "untrained": UNTRAINED}


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


def make_steps(
    encoders: Sequence[StudyEncoder], data: Sequence[Path], out: Path, config: StudyConfig
) -> list[Step]:  # fmt: skip
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
        Step(f"data/{role}", SUBSET,
             {"source": str(data[role == "test"]), "out": str(file), "count": sizes[role], "seed": config.seed}, file)
        for role, file in files.items()
        if role != "arms" or config.arm_seeds
    ]  # fmt: skip
    table = out / "concepts.safetensors"
    steps.append(
        Step("concepts", CONCEPTS,
             {"data": f"npz:{files['test']}", "out": str(table), "imagenet": config.imagenet_concepts}, table,
             ("data/test",))
    )  # fmt: skip
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


def _encoder_steps(
    encoder: StudyEncoder, files: dict[str, Path], table: Path, folder: Path, config: StudyConfig
) -> list[Step]:
    train, test, found = folder / "train", folder / "test", folder / "discriminative.safetensors"
    pair = {"train": str(train), "test": str(test)}
    own = () if encoder.kind == "self-supervised" else (f"{encoder.name}/weights",)
    seed = config.seed

    def step(what: str, command: str, output: Path, *needs: str, **arguments: Any) -> Step:
        return Step(f"{encoder.name}/{what}", command, arguments, output, needs, (encoder.name,))

    def run(what: str, command: str, *needs: str, **arguments: Any) -> Step:
        """A step that leaves a run in a folder of its own and reads what this encoder's earlier steps left."""
        needed = (f"{encoder.name}/{name}" for name in needs)
        return step(what, command, folder / what / RESULTS, *needed, out=str(folder / what), **arguments)

    def extract(role: str, store: Path) -> Step:
        return step(role, "extract", store, f"data/{role}", *own, model=encoder.model, weights=encoder.weights,
                    data=f"npz:{files[role]}", split=role, out=str(store), workers=0)  # fmt: skip

    reverse = run("reverse", REVERSE, "test", store=str(test), table=str(table), clusters=config.clusters,
                  seed=seed)  # fmt: skip
    named = encoder.model if encoder.weights is None else f"{encoder.model}@{encoder.weights}"
    return [
        extract("train", train),
        extract("test", test),
        step("discover", "discover", found, f"{encoder.name}/train", store=str(train), out=str(found)),
        run("linear", "probe linear", "train", "test", **pair, seed=seed),
        run("knn", "probe knn", "train", "test", **pair, seed=seed),
        run("failure", "failure", "linear", "discover", test=str(test), outputs=str(folder / "linear"),
            discriminative=str(found), seed=seed),
        run("compression", "compression", "train", "test", **pair, reductions=config.reductions),
        replace(reverse, needs=(*reverse.needs, "concepts")),
        step("masked", "masked", folder / "masked" / RESULTS, "data/test", *own, models=[named],
             data=f"npz:{files['test']}", out=str(folder / "masked"),
             **{"study.images": config.masked_images, "study.umap_share": 0.0, "study.resamples": 200,
                "study.neighbor_images": 1000, "study.seed": seed}),
    ]  # fmt: skip


def _arms_step(encoder: StudyEncoder, files: dict[str, Path], out: Path, seed: int, config: StudyConfig) -> Step:
    training = TrainingConfig(
        epochs=config.arm_epochs, learning_rate=config.arm_learning_rate, view_size=20, seed=seed, channels_last=True,
        head_warmup_epochs=0 if encoder.name == "simclr-embedded" else 2, checkpoint_every=10, workers=0,
    )  # fmt: skip
    arguments = {"method": encoder.method, "out": str(out), "arms": list(ARMS), "model": encoder.model,
                 "weights": encoder.weights, "data": f"npz:{files['arms']}", "test_data": f"npz:{files['test']}",
                 **{f"training.{name}": value for name, value in asdict(training).items()}}  # fmt: skip
    if encoder.method == "simclr":  # the head the embedded encoder was trained with
        arguments["options"] = {"hidden_dim": 256, "output_dim": 128, "temperature": 0.2}
    return Step(f"arms/{encoder.name}-{seed}", "finetune", arguments, out / RESULTS, ("data/arms", "data/test"),
                (encoder.name,))  # fmt: skip
