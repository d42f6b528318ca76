"""The project's own encoders, by name: `project:NAME`; their files, and the registry that says which there are.

Weights lie in the package. Heads, momentum copies and the optimiser's momentum, for further training, lie in the source tree
alone: wheels leave them out. `examples/pack_encoders.py` writes all of them, and the registry.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sslk.files.tensors import read_tensors
from sslk.files.text import from_fields, read_json
from sslk.models.architectures import Architecture, unknown_name
from sslk.models.checkpoint_files import CheckpointError
from sslk.models.checkpoints import read_checkpoint
from sslk.models.cifar_resnet import CifarResNet
from sslk.models.source import PROJECT

WEIGHTS = Path(__file__).parent / "weights"
STATES = Path(__file__).parent / "states"
REGISTRY = "registry.json"
ABOUT = "about"  # the one entry of a file's metadata, JSON: safetensors writes several in no fixed order
BUFFER = "momentum_buffer."  # in front of a parameter's name: the optimiser's momentum of it


@dataclass(frozen=True)
class ProjectEncoder:
    """An encoder of the registry.

    Attributes:
        sha256: of its weights, `weights/NAME.safetensors`.
        method: one of `sslk.training.config.MethodName`, or supervised.
        epochs: it was trained for.
        features: D.
        state_sha256: of what further training takes up, `states/NAME.safetensors`.
    """

    sha256: str
    method: str
    epochs: float
    features: int
    state_sha256: str


def project_encoders() -> dict[str, ProjectEncoder]:
    """The encoders that this package brings, by name; `load_backbone("project:NAME")` loads one.

    Raises:
        ValueError: the registry is damaged.

    >>> {entry.features for entry in project_encoders().values()} <= {256, 512}
    True
    """
    entries = read_json(WEIGHTS / REGISTRY, "the registry of encoders")
    if not isinstance(entries, dict):
        raise ValueError(f"the registry of encoders {WEIGHTS / REGISTRY} is damaged: it must hold an entry per name.")
    return {name: from_fields(ProjectEncoder, entry, f"the registry's entry {name!r}") for name, entry in entries.items()}


def load_project(name: str) -> tuple[CifarResNet, dict[str, Any]]:
    """An encoder by the name in the registry, in evaluation mode and float32, and how it was trained.

    Raises:
        ValueError: there is no such encoder; near names are listed.
        CheckpointError: its file is damaged.
        FileNotFoundError: its file is missing.
    """
    entry = _entry(name)
    tensors, about = _read(WEIGHTS / f"{name}.safetensors", entry.sha256, f"the weights of project:{name}")
    architecture = about["architecture"]
    encoder = CifarResNet(architecture["channels"], architecture["blocks"])
    encoder.load_state_dict(tensors)
    return encoder.eval(), about


def build_project(name: str, pretrained: bool, image_size: int | None) -> Architecture:
    """For `load_backbone`; the weights are always the registry's."""
    encoder, about = load_project(name)
    size = (image_size or 32, image_size or 32)
    return Architecture(encoder, size, tuple(about["mean"]), tuple(about["std"]))


def load_project_state(name: str) -> dict[str, Tensor] | None:
    """What training an encoder further takes up, float32: all of the method's tensors but the encoder's, by their names
    there, and behind `momentum_buffer.` the optimiser's momentum of every parameter. None where the file is not there.

    Raises:
        ValueError, CheckpointError: as for `load_project`.
    """
    entry, path = _entry(name), STATES / f"{name}.safetensors"
    return _read(path, entry.state_sha256, f"the heads of project:{name}")[0] if path.exists() else None


def load_project_parts(name: str) -> dict[str, dict[str, Tensor]]:
    """The heads, momentum copies, queue or centre of an encoder, as `Checkpoint.parts`; none, after a warning, without its file.

    Raises:
        ValueError, CheckpointError: as for `load_project`.
    """
    if load_project_state(name) is None:
        warnings.warn(
            f"the heads of project:{name} are in the source tree alone ({STATES.name}/{name}.safetensors): they begin fresh.",
            stacklevel=3,
        )
        return {}
    return read_checkpoint(STATES / f"{name}.safetensors", "lightly").parts


def same_network(name: str) -> str:
    """The name of a packaged encoder's network, for weights of one's own.

    >>> same_network("embedded"), same_network("efficientnet-lite0"), same_network("timm:resnet18")
    ('cifar:compact', 'timm:tf_efficientnet_lite0', 'timm:resnet18')
    """
    if name.startswith(PROJECT):
        width = _entry(name.removeprefix(PROJECT)).features
        return "cifar:compact" if width == 256 else f"cifar:compact{width}"
    return {"embedded": "cifar:compact", "efficientnet-lite0": "timm:tf_efficientnet_lite0"}.get(name, name)


def _entry(name: str) -> ProjectEncoder:
    entries = project_encoders()
    if name not in entries:
        raise unknown_name("model", name, entries, prefix=PROJECT)
    return entries[name]


def _read(path: Path, sha256: str, what: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors in float32, and the metadata, of a file that must be the one that was packed."""
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise FileNotFoundError(f"{what} are missing: {path} must come with the package, install it again.") from None
    if found != sha256:
        raise CheckpointError(f"{what} are damaged: {path} has the SHA-256 {found[:12]}..., the registry has {sha256[:12]}...")
    tensors, metadata = read_tensors(path, what, CheckpointError)
    wide = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    return wide, json.loads(metadata[ABOUT])
