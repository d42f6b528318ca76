"""Which encoders a study is about: the package's own or those that `examples/pretrain.py` left in a folder, and controls."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError, safe_open

from sslk.models.embedded import load_embedded
from sslk.models.project import load_project, project_encoders

METHODS = ("simclr", "swav", "moco", "byol", "dino", "simsiam", "vicreg", "barlow-twins")
Kind = Literal["self-supervised", "supervised", "untrained"]


@dataclass(frozen=True)
class StudyEncoder:
    """An encoder of the study.

    Attributes:
        name: of its folder and its rows.
        model, weights: for `load_backbone`.
        kind: what was trained, and which claims it can answer.
        method: the self-supervised one, or "" for a control.
        training: how it was trained, in words.
        features: D.
    """

    name: str
    model: str
    weights: str | None
    kind: Kind
    method: str = ""
    training: str = ""
    features: int = 256


def find_encoders(folder: Path | None) -> list[StudyEncoder]:
    """The embedded SimCLR encoder, and every `METHOD/model.safetensors` of the folder or, without one, the packaged encoders.

    A packaged encoder brings its weights, so `weights` is None; one trained with labels is of the kind `supervised`.

    Raises:
        ValueError: the folder holds no encoder, or a damaged one.
    """
    found = [StudyEncoder("simclr-embedded", "embedded", None, "self-supervised", "simclr", _embedded_training())]
    if folder is None:
        order = {method: place for place, method in enumerate((*METHODS, ""))}  # controls last
        return found + sorted(map(_packaged, project_encoders()), key=lambda encoder: (order[encoder.method], encoder.features))
    for method in METHODS:
        path = folder / method / "model.safetensors"
        if path.is_file():
            found.append(_of_folder(method, path))
    if len(found) == 1:
        raise ValueError(f"encoders: {folder} holds no METHOD/model.safetensors, as examples/pretrain.py leaves them.")
    return found


def controls(folder: Path, encoders: Sequence[StudyEncoder] = ()) -> list[StudyEncoder]:
    """The supervised and the untrained control, whose files the study writes into the folder, where `encoders` lack them."""
    present = {encoder.kind for encoder in encoders}
    kinds: tuple[Kind, ...] = ("supervised", "untrained")
    return [
        StudyEncoder(kind, "cifar:compact", str(folder / f"{kind}.safetensors"), kind) for kind in kinds if kind not in present
    ]


def missing_methods(encoders: list[StudyEncoder]) -> list[str]:
    """Those of the eight methods that no encoder was trained with."""
    present = {encoder.method for encoder in encoders}
    return [method for method in METHODS if method not in present]


def _packaged(name: str) -> StudyEncoder:
    """The encoder `project:NAME`; it is called as its method's run would be: `simclr-cifar10` is `simclr`."""
    entry, about = project_encoders()[name], load_project(name)[1]
    supervised = entry.method == "supervised"
    kind: Kind = "supervised" if supervised else "self-supervised"
    training = f"{entry.epochs:g} epochs on {about['dataset']}"
    short = name.rpartition("-")[0]
    return StudyEncoder(short, f"project:{name}", None, kind, "" if supervised else entry.method, training, entry.features)


def _of_folder(method: str, path: Path) -> StudyEncoder:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"encoders: {path} is damaged ({error}).") from None
    dataset = json.loads(metadata["dataset"]) if metadata.get("dataset", "").startswith('"') else metadata.get("dataset")
    training = f"{str(metadata.get('epochs', 'an unknown number of')).strip(chr(34))} epochs on {Path(str(dataset)).name}"
    width = json.loads(metadata.get("architecture", "{}")).get("channels", [256])[-1]
    network = "cifar:compact" if width == 256 else f"cifar:compact{width}"
    return StudyEncoder(method, network, str(path), "self-supervised", method, training, width)


def _embedded_training() -> str:
    metadata = load_embedded()[1]
    return f"{metadata['epochs']} epochs on {metadata['dataset']}"
