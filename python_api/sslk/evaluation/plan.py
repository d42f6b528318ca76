"""What an evaluation of several models consists of: the commands, their arguments, and what each waits for."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from sslk.results.run import RESULTS

System = Literal["qscore", "reverse", "masked"]
SYSTEMS: tuple[System, ...] = get_args(System)


@dataclass(frozen=True)
class EvaluatedModel:
    """A model to evaluate: its name for `load_backbone`, its checkpoint, and a folder name unique in the evaluation."""

    name: str
    weights: str | None
    label: str


@dataclass(frozen=True)
class Step:
    """One command of the evaluation.

    Attributes:
        name: unique, `LABEL/WHAT`, or `WHAT` for a step over all models.
        command: as in `sslk.cli.COMMANDS`, or `module:function`.
        arguments: of the command's function.
        output: file or folder that exists when the step is done.
        needs: steps whose output it reads; if one fails, this step is left out.
        models: labels of the models it is about.
    """

    name: str
    command: str
    arguments: dict[str, Any]
    output: Path
    needs: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvaluationConfig:
    """What is evaluated on what.

    Attributes:
        models: names for `load_backbone`.
        data: name for `load_dataset`.
        weights: a checkpoint per model, "none" for a model without; none at all by default.
        segmenter: of the masked study, as for `sslk masked`.
        clusters: K of reverse probing.
        concepts: table that `sslk concepts build` wrote for the train split; without it there is no reverse probing.
        systems: which of the three protocols.
        train_split, test_split: of the data set.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        image_size: side of the crop, each model's own by default.
        batch_size: images per forward pass.
        workers: loading processes.
        device: where to compute; a GPU where there is one.
        seed: of everything random.
    """

    models: list[str]
    data: str
    weights: list[str] = field(default_factory=list)
    concepts: str | None = None
    segmenter: str = "grabcut"
    clusters: int = 1000
    systems: list[System] = field(default_factory=lambda: list(SYSTEMS))
    train_split: str = "train"
    test_split: str = "test"
    root: str | None = None
    image_size: int | None = None
    batch_size: int = 256
    workers: int = 4
    device: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("models is empty: name at least one model.")
        if self.weights and len(self.weights) != len(self.models):
            raise ValueError(
                f"weights must name one checkpoint per model ('none' for a model without), got {len(self.weights)} for "
                f"{len(self.models)} models."
            )
        if self.train_split == self.test_split:
            raise ValueError(
                f"train_split and test_split are both {self.test_split!r}: what is fitted on the first is judged on the "
                "second."
            )
        if self.systems == ["reverse"] and not self.concepts:
            raise ValueError(
                "systems asks for reverse, which needs concepts: a table that `sslk concepts build` wrote."
            )
        if unknown := [system for system in self.systems if system not in SYSTEMS]:
            raise ValueError(f"systems must be among {', '.join(SYSTEMS)}, got {', '.join(unknown)}.")


def labelled_models(config: EvaluationConfig) -> list[EvaluatedModel]:
    """The models with folder names: the model's name, and the checkpoint's where names repeat.

    >>> config = EvaluationConfig(["timm:vit", "timm:vit"], "sample", weights=["a/dino.pth", "a/mae.pth"])
    >>> [model.label for model in labelled_models(config)]
    ['timm-vit-dino', 'timm-vit-mae']
    """
    weights = [None if file == "none" else file for file in config.weights] or [None] * len(config.models)
    made: list[EvaluatedModel] = []
    for name, file in zip(config.models, weights, strict=True):
        label = _as_folder(name)
        if file is not None:
            label += f"-{_as_folder(Path(file).name.partition('.')[0])}"
        taken = [model.label for model in made]
        unique = next(text for text in (label, *(f"{label}-{i}" for i in range(2, 999))) if text not in taken)
        made.append(EvaluatedModel(name, file, unique))
    return made


def _as_folder(name: str) -> str:
    return re.sub(r"[^\w.]+", "-", name).strip("-.") or "model"


def make_plan(config: EvaluationConfig, out: Path, failing: Collection[str] = ()) -> list[Step]:
    """The steps in an order in which each comes after those it needs.

    Args:
        config: what is evaluated.
        out: folder of the evaluation.
        failing: labels of models that cannot be loaded: steps over all models are made without them.
    """
    steps: list[Step] = []
    models = labelled_models(config)
    for model in models:
        steps += _model_steps(config, model, out / model.label)
    working = [model for model in models if model.label not in failing]
    if "reverse" in config.systems and config.concepts and working:
        steps.append(_reverse_step(config, config.concepts, working, out))
    if "masked" in config.systems and working:
        steps.append(_masked_step(config, working, out / "masked"))
    return steps


def _model_steps(config: EvaluationConfig, model: EvaluatedModel, folder: Path) -> list[Step]:
    def step(what: str, command: str, output: Path, *needs: str, **arguments: Any) -> Step:
        needed = tuple(f"{model.label}/{name}" for name in needs)
        return Step(f"{model.label}/{what}", command, arguments, output, needed, (model.label,))

    train, test, found = folder / "train", folder / "test", folder / "discriminative.safetensors"
    steps = [
        step(f"extract {name}", "extract", store, model=model.name, weights=model.weights, data=config.data, split=split,
             out=str(store), root=config.root, image_size=config.image_size, batch_size=config.batch_size,
             workers=config.workers, device=config.device)
        for name, split, store in (("train", config.train_split, train), ("test", config.test_split, test))
    ]  # fmt: skip
    if "qscore" in config.systems:
        scores = folder / "scores.csv"
        steps += [
            step("discover", "discover", found, "extract train", store=str(train), out=str(found)),
            step("qscore", "qscore", scores, "discover", "extract test", store=str(test), discriminative=str(found),
                 out=str(scores), data=config.data, split=config.test_split, root=config.root),
            step("probe", "probe linear", folder / "probe" / RESULTS, "extract train", "extract test", train=str(train),
                 test=str(test), out=str(folder / "probe"), seed=config.seed, device=config.device),
            step("failure", "failure", folder / "failure" / RESULTS, "discover", "probe", test=str(test),
                 outputs=str(folder / "probe"), discriminative=str(found), out=str(folder / "failure"), seed=config.seed),
        ]  # fmt: skip
    return steps


def _reverse_step(config: EvaluationConfig, concepts: str, models: Sequence[EvaluatedModel], out: Path) -> Step:
    folder = out / "reverse"
    stores = [f"{model.label}={out / model.label / 'train'}" for model in models]
    arguments = {"stores": stores, "concepts": concepts, "out": str(folder), "kmeans.clusters": config.clusters,
                 "kmeans.seed": config.seed,
                 "probe.seed": config.seed}  # fmt: skip
    labels = tuple(model.label for model in models)
    needs = tuple(f"{label}/extract train" for label in labels)
    return Step("reverse-probe", "reverse-probe run", arguments, folder / RESULTS, needs, labels)


def _masked_step(config: EvaluationConfig, models: Sequence[EvaluatedModel], out: Path) -> Step:
    named = [model.name if model.weights is None else f"{model.name}@{model.weights}" for model in models]
    sizes = None if config.image_size is None else [config.image_size] * len(models)
    arguments = {"models": named, "data": config.data, "split": config.test_split, "out": str(out), "root": config.root,
                 "image_sizes": sizes, "segmenter": config.segmenter, "study.seed": config.seed, "workers": config.workers,
                 "device": config.device}  # fmt: skip
    return Step("masked", "masked", arguments, out / RESULTS, (), tuple(model.label for model in models))
