"""What an evaluation of several models consists of: calls of studies, their arguments, and what each waits for."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslk.data.source import DataSource
from sslk.evaluation import steps
from sslk.evaluation.settings import EvaluationSettings
from sslk.features.settings import ExtractSettings
from sslk.models.source import ModelSource
from sslk.results.run import RESULTS


@dataclass(frozen=True)
class EvaluatedModel:
    """A model to evaluate: as `ModelSource` writes it, and a label unique in the evaluation, which names its folder."""

    model: str
    label: str


@dataclass(frozen=True)
class Step:
    """One call of the evaluation.

    Attributes:
        name: unique, `LABEL/WHAT`, or `WHAT` for a step over all models.
        call: of `evaluation.steps` or someone else's; called with the arguments, and `progress`.
        arguments: which decide whether a step that was done is done still.
        output: file or folder that exists when the step is done.
        needs: steps whose output it reads; if one fails, this step is left out.
        models: labels of the models it is about.
    """

    name: str
    call: Callable[..., None]
    arguments: dict[str, Any]
    output: Path
    needs: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


def labelled_models(models: Sequence[str]) -> list[EvaluatedModel]:
    """The models with their labels: one's own, `LABEL=MODEL`, or the model's name, and the checkpoint's where it has one.

    Raises:
        ValueError: there are none, or two have one label of their own.

    >>> [model.label for model in labelled_models(["timm:vit@a/dino.pth", "timm:vit@a/mae.pth", "ours=embedded"])]
    ['timm-vit-dino', 'timm-vit-mae', 'ours']
    """
    if not models:
        raise ValueError("models is empty: name at least one model.")
    made: list[EvaluatedModel] = []
    for text in models:
        own, equals, model = text.partition("=")
        source = ModelSource(model if equals else text)
        label = _as_folder(own if equals else source.name)
        if not equals and source.weights is not None:
            label += f"-{_as_folder(Path(source.weights).name.partition('.')[0])}"
        taken = [model.label for model in made]
        if equals and label in taken:
            raise ValueError(f"models must have different labels, got {label!r} twice.")
        unique = next(text for text in (label, *(f"{label}-{i}" for i in range(2, 999))) if text not in taken)
        made.append(EvaluatedModel(source.model, unique))
    return made


def _as_folder(name: str) -> str:
    return re.sub(r"[^\w.]+", "-", name).strip("-.") or "model"


def make_plan(
    models: Sequence[EvaluatedModel],
    settings: EvaluationSettings,
    out: Path,
    failing: Collection[str] = (),
    *,
    folds: int | None = None,
) -> list[Step]:
    """The steps in an order in which each comes after those it needs.

    Args:
        models: what is evaluated.
        settings: on what, and how.
        out: folder of the evaluation.
        failing: labels of models that cannot be loaded: steps over all models are made without them.
        folds: of the masked study's linear evaluation; its own by default.
    """
    plan: list[Step] = []
    for model in models:
        plan += _model_steps(settings, model, out / model.label)
    working = [model for model in models if model.label not in failing]
    if "reverse" in settings.systems and settings.concepts and working:
        plan.append(_reverse_step(settings, settings.concepts, working, out))
    if "masked" in settings.systems and working:
        plan.append(_masked_step(settings, working, out / "masked", folds))
    return plan


def _model_steps(settings: EvaluationSettings, model: EvaluatedModel, folder: Path) -> list[Step]:
    def step(what: str, call: Callable[..., None], output: Path, *needs: str, **arguments: Any) -> Step:
        needed = tuple(f"{model.label}/{name}" for name in needs)
        return Step(f"{model.label}/{what}", call, arguments, output, needed, (model.label,))

    train, test, found = folder / "train", folder / "test", folder / "discriminative.safetensors"
    extraction = ExtractSettings(
        settings.batch_size, workers=settings.workers, device=settings.device, on_corrupt=settings.on_corrupt
    )
    data = {
        role: DataSource(settings.data, split, settings.root)
        for role, split in (("train", settings.train_split), ("test", settings.test_split))
    }
    plan = [
        step(
            f"extract {role}",
            steps.extract,
            store,
            model=model.model,
            image_size=settings.image_size,
            data=data[role],
            out=str(store),
            settings=extraction,
        )
        for role, store in (("train", train), ("test", test))
    ]
    probed = {"label": model.label, "train": str(train), "test": str(test), "seed": settings.seed, "device": settings.device}
    both = "extract train", "extract test"
    if "qscore" in settings.systems:
        plan += [
            step("discover", steps.discover, found, "extract train", store=str(train), out=str(found)),
            step(
                "qscore",
                steps.score,
                folder / "qscore" / RESULTS,
                "discover",
                "extract test",
                label=model.label,
                store=str(test),
                discriminative=str(found),
                data=data["test"],
                out=str(folder / "qscore"),
            ),
        ]
    if "qscore" in settings.systems and settings.probes:
        plan += [
            step("probe", steps.linear, folder / "probe" / RESULTS, *both, out=str(folder / "probe"), **probed),
            step("knn", steps.knn, folder / "knn" / RESULTS, *both, out=str(folder / "knn"), **probed),
            step(
                "failure",
                steps.failure,
                folder / "failure" / RESULTS,
                "discover",
                "probe",
                label=model.label,
                train=str(train),
                test=str(test),
                outputs=str(folder / "probe"),
                discriminative=str(found),
                out=str(folder / "failure"),
                seed=settings.seed,
            ),
        ]
    return plan


def _reverse_step(settings: EvaluationSettings, concepts: str, models: Sequence[EvaluatedModel], out: Path) -> Step:
    folder = out / "reverse"
    arguments = {
        "stores": {model.label: str(out / model.label / "train") for model in models},
        "concepts": concepts,
        "clusters": settings.clusters,
        "out": str(folder),
        "seed": settings.seed,
    }
    labels = tuple(model.label for model in models)
    needs = tuple(f"{label}/extract train" for label in labels)
    return Step("reverse", steps.reverse, arguments, folder / RESULTS, needs, labels)


def _masked_step(settings: EvaluationSettings, models: Sequence[EvaluatedModel], folder: Path, folds: int | None) -> Step:
    data = DataSource(settings.data, settings.test_split, settings.root)
    extraction = ExtractSettings(128, 1024, settings.workers, device=settings.device, on_corrupt=settings.on_corrupt)
    arguments: dict[str, Any] = {
        "models": [model.model for model in models],
        "image_size": settings.image_size,
        "data": data,
        "out": str(folder),
        "segmenter": settings.segmenter,
        "seed": settings.seed,
        "settings": extraction,
    }
    if folds is not None:
        arguments["folds"] = folds
    return Step("masked", steps.masked, arguments, folder / RESULTS, (), tuple(model.label for model in models))
