"""Which encoders a study is about: those that `examples/pretrain.py` left in a folder, the embedded one, the controls."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError, safe_open

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
    """

    name: str
    model: str
    weights: str | None
    kind: Kind
    method: str = ""
    training: str = ""


def find_encoders(folder: Path | None) -> list[StudyEncoder]:
    """The embedded SimCLR encoder and every `METHOD/model.safetensors` of the folder.

    Raises:
        ValueError: the folder holds no encoder, or a damaged one.
    """
    found = [StudyEncoder("simclr-embedded", "embedded", None, "self-supervised", "simclr", _embedded_training())]
    if folder is None:
        return found
    for method in METHODS:
        path = folder / method / "model.safetensors"
        if path.is_file():
            found.append(StudyEncoder(method, "cifar:compact", str(path), "self-supervised", method, _training_of(path)))
    if len(found) == 1:
        raise ValueError(f"encoders: {folder} holds no METHOD/model.safetensors, as examples/pretrain.py leaves them.")
    return found


def controls(folder: Path) -> list[StudyEncoder]:
    """The supervised and the untrained control, whose files the study writes into the folder."""
    return [
        StudyEncoder(kind, "cifar:compact", str(folder / f"{kind}.safetensors"), kind) for kind in ("supervised", "untrained")
    ]


def missing_methods(encoders: list[StudyEncoder]) -> list[str]:
    """Those of the eight methods that no encoder was trained with."""
    present = {encoder.method for encoder in encoders}
    return [method for method in METHODS if method not in present]


def _training_of(path: Path) -> str:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"encoders: {path} is damaged ({error}).") from None
    dataset = json.loads(metadata["dataset"]) if metadata.get("dataset", "").startswith('"') else metadata.get("dataset")
    return f"{str(metadata.get('epochs', 'an unknown number of')).strip(chr(34))} epochs on {Path(str(dataset)).name}"


def _embedded_training() -> str:
    from sslk.models.embedded import load_embedded

    metadata = load_embedded()[1]
    return f"{metadata['epochs']} epochs on {metadata['dataset']}"
