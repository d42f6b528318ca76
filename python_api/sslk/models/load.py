"""`load_backbone`: a network by name, its weights from a checkpoint, a package or the library that publishes them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import torch
from torch import nn

from sslk.distributed import require_device
from sslk.models.architectures import Architecture, build_cifar, build_lightly, build_timm, build_torchvision, unknown_name
from sslk.models.backbone import Backbone
from sslk.models.checkpoints import load_checkpoint
from sslk.models.custom import build_hub, build_python
from sslk.models.describe import loading_line
from sslk.models.efficientnet_lite import build_efficientnet_lite0
from sslk.models.embedded import load_embedded
from sslk.models.huggingface import build_huggingface
from sslk.models.project import build_project, project_encoders, same_network
from sslk.models.settings import AS_BUILT, Preprocessing, Token
from sslk.models.source import PACKAGED, PROJECT, is_packaged, named, needs_weights, random_seed

_BUILDERS = {
    "torchvision": build_torchvision,
    "timm": build_timm,
    "hf": build_huggingface,
    "lightly": build_lightly,
    "cifar": build_cifar,
    "python": build_python,
    "hub": build_hub,
    "project": build_project,
}
_log = logging.getLogger(__name__)


def load_backbone(
    name: str,
    weights: str | Path | None = None,
    *,
    checkpoint_format: str | None = None,
    device: str | torch.device = "cpu",
    image_size: int | None = None,
    layer: str | None = None,
    token: Token | None = None,
    preprocessing: Preprocessing = AS_BUILT,
) -> Backbone:
    """Load an encoder by name, its head replaced by the identity. One line of log says what was loaded.

    Args:
        name: `torchvision:NAME`, `timm:NAME`, `hf:HUB-ID-OR-FOLDER`, `cifar:NAME` (torchvision's ResNets with a CIFAR
            stem, `compact`, or `compact512` with D = 512), `lightly:NAME`; `python:PACKAGE.MODULE:FACTORY` or
            `python:FILE.py:FACTORY` (a function of your own that returns an `nn.Module` or a `Backbone`);
            `hub:OWNER/REPO:ENTRY` (a torch.hub repository on this machine); `project:NAME` (one of
            `sslk.models.project_encoders()`), `embedded` and `efficientnet-lite0` bring their weights.
        weights: Path of a checkpoint (see `checkpoint_format`), `"pretrained"` for the weights that the library
            publishes, downloaded by it, or `"random"`, `"random:SEED"` for random ones, the same in every process. Needed
            but for networks that bring theirs: the packaged ones and `python:`.
        checkpoint_format: Name of the checkpoint's layout, detected by default; see `sslk.models.LAYOUT_NAMES`. `ema` or
            `LAYOUT+ema` for its averaged weights.
        device: Where the backbone goes.
        image_size: Side of the images, in pixels, where it is not the network's own: position embeddings are then
            resampled as timm does.
        layer, token: Which representation; see `Backbone`.
        preprocessing: Where it is not the family's own.

    Returns:
        The backbone in eval mode; `backbone.checkpoint` reports how the checkpoint's tensors fit.

    Raises:
        ValueError: The name is unknown (near ones are listed), weights are not named, or the arguments contradict each
            other.
        CheckpointError: The checkpoint cannot be read, or matches fewer than 95 % of the network's tensors.
        FileNotFoundError: There is no file at the path.
        ImportError: An optional package is missing.
        OSError: Pretrained weights cannot be downloaded.

    >>> backbone = load_backbone("cifar:resnet18", "random")
    >>> backbone.num_features, backbone.feature_layer, backbone.signed, backbone.input_size
    (512, 'net.layer4', False, (32, 32))
    """
    _require_weights(name, weights)
    device = require_device(device)
    pretrained, seed = weights == "pretrained", random_seed(weights)
    path = None if weights is None or pretrained or seed is not None else Path(weights)
    if checkpoint_format is not None and path is None:
        raise ValueError(f"checkpoint_format={checkpoint_format!r} needs weights=PATH, got weights={weights!r}")
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay; what a checkpoint lacks is drawn alike too
        torch.manual_seed(seed or 0)
        architecture = _build(name, pretrained, image_size)
    report = architecture.report
    brings_head = pretrained or name == "efficientnet-lite0" or (name.startswith("python:") and weights is None)
    classifier = architecture.classifier if brings_head else None
    if path is not None:
        checkpoint, report = load_checkpoint(architecture.net, path, checkpoint_format, head=architecture.head)
        classifier = _linear(checkpoint.parts.get("classifier", {}))
        if report.layout == "solo-learn" and name.startswith("cifar:"):
            # solo-learn pads its CIFAR stem by two pixels; the weights mean nothing else than that network.
            architecture.net.get_submodule("conv1").padding = (2, 2)  # type: ignore[assignment]
    backbone = Backbone(
        architecture.net.to(device),
        name=named(name, seed),
        input_size=architecture.input_size,
        mean=preprocessing.mean or architecture.mean,
        std=preprocessing.std or architecture.std,
        interpolation=preprocessing.interpolation or architecture.interpolation,
        channel_order=preprocessing.channel_order,
        input_scale=preprocessing.input_scale,
        layer=layer,
        token=token,
        feature=architecture.feature,
        classifier=classifier.to(device) if classifier is not None else None,
        checkpoint=report,
    )
    _log.info("%s", loading_line(backbone, str(weights) if path is not None else None))
    return backbone


def _require_weights(name: str, weights: str | Path | None) -> None:
    if weights is None and needs_weights(name) and name.partition(":")[0] in _BUILDERS:
        raise ValueError(
            f"weights must be named for {name!r}: {name}@pretrained where they are published, {name}@CHECKPOINT, or "
            f"{name}@random for a network with random weights"
        )
    if is_packaged(name) and weights is not None:
        see = same_network(name)
        raise ValueError(f"weights must not be given for {name!r}, which brings its own, got {weights!r}; see {see}")


def _build(name: str, pretrained: bool, image_size: int | None) -> Architecture:
    prefix, colon, rest = name.partition(":")
    if colon and prefix in _BUILDERS:
        return _BUILDERS[prefix](rest, pretrained, image_size)
    if name == "efficientnet-lite0":
        architecture = build_efficientnet_lite0()
    elif name == "embedded":
        architecture = _build_embedded()
    else:
        raise _unknown(name)
    if image_size is not None:
        architecture.input_size = (image_size, image_size)
    return architecture


def _build_embedded() -> Architecture:
    net, metadata = load_embedded()
    return Architecture(net, (32, 32), tuple(json.loads(metadata["mean"])), tuple(json.loads(metadata["std"])))


def _linear(tensors: dict[str, torch.Tensor]) -> nn.Linear | None:
    weight, bias = tensors.get("weight"), tensors.get("bias")
    if weight is None or weight.ndim != 2:
        return None
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.load_state_dict({name: tensors[name] for name in ("weight", "bias") if name in tensors})
    return linear


def _unknown(name: str) -> ValueError:
    import timm
    from torchvision import models

    own = "a network of your own is python:FILE.py:FACTORY"
    if ":" in name:
        return ValueError(f"unknown prefix in the model name {name!r}, it must be one of {', '.join(_BUILDERS)}; {own}")
    known = [*PACKAGED, *(PROJECT + n for n in project_encoders())]
    known += [f"torchvision:{n}" for n in models.list_models(module=models)]
    known += [f"timm:{n}" for n in timm.list_models()]
    # A name without its prefix is the likely slip: compare with the bare names as well.
    exact = [full for full in known if full.partition(":")[2] == name]
    if exact:
        return ValueError(f"unknown model {name!r}, near ones: {', '.join(exact)}; {own}")
    return ValueError(f"{unknown_name('model', name, known)}; {own}")
