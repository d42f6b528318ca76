"""The steps of further training: of an encoder of each method the gradients of the penalties, and the arms.

What the trainings left is committed (`docs/results/reproduction/arms/ENCODER.zip`: every trial's accuracy and, of every final
encoder, whether the probe was right on each test image and its Q-Score), so that the study goes on from there and trains only
what differs. `retrain` trains all of it. `python examples/reproduce/arms.py RUN` packs the arms of a study's folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.pretrain import SETTINGS
from examples.reproduce.encoders import StudyEncoder
from examples.reproduce.subset import write_subset
from sslk.data.source import DataSource
from sslk.evaluation.plan import Step
from sslk.models.source import ModelSource
from sslk.progress import Progress
from sslk.results.run import RESULTS
from sslk.training import arms_study, gradients_study, load_start
from sslk.training.arms import described
from sslk.training.config import MethodName, TrainingConfig
from sslk.training.settings import ArmSearch, GradientSettings, variants_by_name
from sslk.training.start import TrainingStart

COMMITTED = Path(__file__).resolve().parents[2] / "docs" / "results" / "reproduction" / "arms"
READ = "trainings read from the committed results"  # in a run's summary
_THEN = (1980, 1, 1, 0, 0, 0)  # the same pieces give the same bytes


@dataclass(frozen=True)
class ArmsConfig:
    """What further training costs.

    Attributes:
        images: training images, class-balanced; the test images are the study's.
        validation_images: other images of the training split, which judge the trials.
        epochs: of every final training.
        trials: trainings that choose an arm's learning rate and lambdas.
        trial_epochs: of each.
        seeds: final trainings of every arm; 0 leaves the arms out.
        variants: further arms: paper, the three at the paper's own setting; open, what the paper leaves open.
        variants_of: names of the encoders that have them.
        encoders: names of the encoders that are trained further; by default, of each method, the one that has its name.
        precision: of the trainings.
        batches: on which the penalties' gradients are measured; 0 leaves them out.
        retrain: train everything here, and read nothing that was committed.
    """

    images: int = 5_000
    validation_images: int = 5_000
    epochs: int = 20
    trials: int = 6
    trial_epochs: int = 4
    seeds: int = 5
    variants: list[str] = field(default_factory=lambda: ["open", "paper"])
    variants_of: list[str] = field(default_factory=lambda: ["simclr"])
    encoders: list[str] = field(default_factory=list)
    precision: Literal["32-true", "bf16-mixed"] = "bf16-mixed"
    batches: int = 16
    retrain: bool = False


def arms_steps(encoders: Sequence[StudyEncoder], data: Sequence[Path], out: Path, config: ArmsConfig, seed: int) -> list[Step]:
    """The steps: `data/arms`, `data/arms-validation`, then of every encoder that is trained further `gradients` and `arms`.

    Args:
        encoders: the study's, controls among them.
        data: the .npz of the official training and test split; the test images are those of the study's step `data/test`.
        out: folder of the study; the runs go to `OUT/ENCODER/gradients` and `OUT/ENCODER/arms`.
        config: sizes.
        seed: of the draw, the split, the trials and, counted up, the final trainings.
    """
    images, judges, test = (out / "data" / f"{name}.npz" for name in ("arms", "arms-validation", "test"))
    trained = [e for e in encoders if e.kind == "self-supervised" and e.name in (config.encoders or [e.method])]
    if not trained or not (config.seeds or config.batches):
        return []
    drawn: dict[str, Any] = {"source": str(data[0]), "seed": seed}
    trains = {"out": str(images), "count": config.images}
    judging = {"out": str(judges), "count": config.validation_images, "skip": config.images}
    steps = [Step("data/arms", write_subset, {**drawn, **trains}, images)]
    if config.seeds:
        steps.append(Step("data/arms-validation", write_subset, {**drawn, **judging}, judges))
    for encoder in trained:
        named = encoder.model if encoder.weights is None else f"{encoder.model}@{encoder.weights}"
        own_arms = config.variants if encoder.name in config.variants_of else []
        given = {
            "method": encoder.method,
            "model": named,
            "options": options_of(encoder),
            "data": str(images),
            "config": replace(config, variants=own_arms),
            "seed": seed,
        }
        folder = out / encoder.name
        more = {"validation": str(judges), "test": str(test), "committed": str(COMMITTED / f"{encoder.name}.zip")}
        for name, call, wanted, own in (("gradients", gradients, config.batches, {}), ("arms", arms, config.seeds, more)):
            if wanted:
                arguments = {**given, **own, "out": str(folder / name)}
                needs = ("data/arms", *(["data/arms-validation", "data/test"] if own else []))
                steps.append(Step(f"{encoder.name}/{name}", call, arguments, folder / name / RESULTS, needs, (encoder.name,)))
    return steps


def options_of(encoder: StudyEncoder) -> dict[str, Any]:
    """Arguments of the encoder's method: those that it was trained with, and widths of fresh heads where it has none."""
    left_out = {"frozen_steps"}  # DINO's last layer is frozen at the start of a pre-training alone
    return {key: value for key, value in SETTINGS[encoder.method][1].items() if key not in left_out}


def training_of(config: ArmsConfig) -> TrainingConfig:
    """Settings of every training; the embedded encoder has no heads but SimCLR's projector, so fresh ones are warmed up."""
    return TrainingConfig(
        epochs=config.epochs,
        view_size=20,
        precision=config.precision,
        channels_last=True,
        head_warmup_epochs=2,
        checkpoint_every=100,
        log_every=50,
        workers=0,
    )


def gradients(
    method: MethodName,
    model: str,
    options: dict[str, Any],
    data: str,
    config: ArmsConfig,
    seed: int,
    out: str,
    progress: Progress | None = None,
) -> None:
    """Sizes of the penalties' gradients for one encoder."""
    start = _start(method, model, options, data)
    training = replace(training_of(config), precision="32-true", seed=seed)
    gradients_study(start, training, GradientSettings(config.batches), progress=progress).save(out)


def arms(
    method: MethodName,
    model: str,
    options: dict[str, Any],
    data: str,
    validation: str,
    test: str,
    committed: str,
    config: ArmsConfig,
    seed: int,
    out: str,
    progress: Progress | None = None,
) -> None:
    """The arms of one encoder, from the committed pieces where they are of the same encoder, images and settings."""
    start, training = _start(method, model, options, data), training_of(config)
    judges, judged = DataSource(f"npz:{validation}", "val").load(), DataSource(f"npz:{test}", "test").load()
    seeds = tuple(range(seed, seed + config.seeds))
    search = ArmSearch(trials=config.trials, epochs=config.trial_epochs, seeds=seeds, seed=seed)
    read = 0
    if not config.retrain:
        about = json.loads(json.dumps(described(start, training, search, judged, judges)))
        read = unpack_pieces(Path(committed), Path(out), about)
    variants = variants_by_name(config.variants)
    run = arms_study(start, out, training, search, test=judged, validation=judges, variants=variants, progress=progress)
    replace(run, summary={**run.summary, READ: read}).save(out)


def _start(method: MethodName, model: str, options: dict[str, Any], data: str) -> TrainingStart:
    return load_start(method, ModelSource(model), DataSource(f"npz:{data}", "train").load(), options=options)


def pack_pieces(folder: Path, file: Path) -> int:
    """Write the finished pieces of an encoder's arms into a zip; returns how many there are."""
    found = sorted([*folder.glob("trials/*/*.json"), *folder.glob("final/*/*.safetensors")])
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".tmp")
    with zipfile.ZipFile(temporary, "w") as archive:
        for path in [folder / "config.json", *found]:
            name = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _THEN)
            archive.writestr(name, path.read_bytes(), zipfile.ZIP_DEFLATED, compresslevel=9)
    temporary.replace(file)
    return len(found)


def unpack_pieces(file: Path, folder: Path, about: dict[str, Any]) -> int:
    """Put the pieces that `pack_pieces` wrote where the study looks for them; pieces that are there stay.

    Args:
        file: the zip; absent ones hold nothing.
        folder: of the encoder's arms.
        about: what the study is of; pieces of another one are left where they are.

    Returns:
        How many there are.
    """
    if not file.is_file():
        return 0
    with zipfile.ZipFile(file) as archive:
        if json.loads(archive.read("config.json")) != about:
            return 0
        names = [name for name in archive.namelist() if name != "config.json"]
        for name in names:
            if not (folder / name).exists():
                archive.extract(name, folder)
    return len(names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a study")
    parser.add_argument("--out", type=Path, default=COMMITTED, help="folder of the zips")
    args = parser.parse_args()
    for config in sorted(args.run.glob("*/arms/config.json")):
        file = args.out / f"{config.parents[1].name}.zip"
        print(f"{file}: {pack_pieces(config.parent, file)} pieces, {file.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
