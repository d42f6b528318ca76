"""Experts by name, as the command line gives them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sslk.concepts.classifier import backbone_classifier
from sslk.concepts.color import Colors
from sslk.concepts.detector import Detector
from sslk.concepts.expert import Expert
from sslk.concepts.labels import ClassAttributes, ClassLabels, LabelMaps
from sslk.concepts.prompts import clip_prompts
from sslk.concepts.segmenter import Segmenter
from sslk.concepts.text import TextPresence
from sslk.data.dataset import Dataset
from sslk.files.text import read_json, read_text

EXPERTS = (
    "labels",
    "attributes:CSV",
    "colour",
    "label-maps",
    "classifier:MODEL[@WEIGHTS[@NAMES]]",
    "detector:NAME",
    "segmenter:NAME",
    "clip:PROMPTS.json",
    "text",
)


def expert_by_name(name: str, dataset: Dataset, *, threshold: float | None = None, device: str = "cpu") -> Expert:
    """An expert from `[GROUP=]KIND[:WHAT]`.

    Args:
        name: `labels`; `attributes:CSV`; `colour`; `label-maps`; `text`; `classifier:MODEL` with packaged weights, or
            `classifier:MODEL@WEIGHTS@NAMES` with a checkpoint (or `pretrained`) and a file of one class name a line;
            `detector:NAME` and `segmenter:NAME` of torchvision with its published weights; `clip:FILE` with a JSON
            object of concept -> prompt. `GROUP=` in front sets the group of the columns.
        dataset: whose classes the labels are.
        threshold: of classifiers, in place of the arg-max; of the others, in place of 0.5; of colour and
            label maps, the share of pixels.
        device: of classifiers.

    Raises:
        ValueError: no such kind.

    >>> from sslk.data import load_dataset
    >>> expert_by_name("animals=labels", load_dataset("sample", "test")).group
    'animals'
    """
    front, equals, rest = name.partition("=")
    group, spec = (front, rest) if equals and ":" not in front else ("", name)
    kind, _, what = spec.partition(":")
    makers: dict[str, Callable[[], Expert]] = {
        "labels": lambda: ClassLabels(dataset.classes),
        "attributes": lambda: ClassAttributes(what, dataset.classes),
        "colour": lambda: Colors() if threshold is None else Colors(threshold),
        "label-maps": lambda: _label_maps(dataset, threshold or 0.0),
        "classifier": lambda: _classifier(what, threshold, device),
        "detector": lambda: _detector(what, threshold),
        "segmenter": lambda: _segmenter(what),
        "clip": lambda: clip_prompts(read_prompts(what), threshold=0.5 if threshold is None else threshold),
        "text": lambda: TextPresence(),
    }
    if kind not in makers:
        raise ValueError(f"experts must be some of {', '.join(EXPERTS)}, got {name!r}.")
    expert = makers[kind]()
    if group:
        expert.group = group
    return expert


def read_prompts(path: str | Path) -> dict[str, str]:
    """A JSON object of concept -> prompt."""
    prompts = read_json(path, "the prompts")
    if not isinstance(prompts, dict) or not prompts or not all(isinstance(text, str) for text in prompts.values()):
        raise ValueError(f"{path} must hold a JSON object of concept -> prompt, at least one.")
    return prompts


def read_names(path: str | Path) -> list[str]:
    """One name a line, empty lines left out."""
    return [line.strip() for line in read_text(path, "the class names").split("\n") if line.strip()]


def _label_maps(dataset: Dataset, min_share: float) -> LabelMaps:
    ignore = [value for value, name in enumerate(dataset.classes) if name in ("unlabelled", "void", "background")]
    return LabelMaps(dataset.classes, ignore, min_share)


def _classifier(what: str, threshold: float | None, device: str) -> Expert:
    model, _, rest = what.partition("@")
    weights, _, names = rest.partition("@")
    classes = read_names(names) if names else None
    return backbone_classifier(model, classes, weights=weights or None, threshold=threshold, device=device)


def _detector(what: str, threshold: float | None) -> Detector:
    from torchvision import models

    weights = models.get_model_weights(what).DEFAULT
    network = models.get_model(what, weights=weights)
    return Detector(network, weights.meta["categories"], 0.5 if threshold is None else threshold, title=what)


def _segmenter(what: str) -> Segmenter:
    from torchvision import models

    weights = models.get_model_weights(what).DEFAULT
    network = models.get_model(what, weights=weights).eval()
    return Segmenter(network, weights.meta["categories"], weights.transforms(), ignore=[0], title=what)
