"""`load_backbone`: a network by name, its weights from a checkpoint, a package or the library that publishes them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from sslk.models.architectures import Architecture, build_cifar, build_lightly, build_timm, build_torchvision, unknown_name
from sslk.models.backbone import Backbone
from sslk.models.checkpoints import CheckpointReport, load_checkpoint
from sslk.models.efficientnet_lite import build_efficientnet_lite0
from sslk.models.embedded import load_embedded
from sslk.models.huggingface import build_huggingface

_BUILDERS = {
    "torchvision": build_torchvision,
    "timm": build_timm,
    "hf": build_huggingface,
    "lightly": build_lightly,
    "cifar": build_cifar,
}
_PACKAGED = ("embedded", "efficientnet-lite0")


def load_backbone(
    name: str,
    weights: str | Path | None = None,
    *,
    checkpoint_format: str | None = None,
    device: str | torch.device = "cpu",
    image_size: int | None = None,
) -> Backbone:
    """Load an encoder by name, its head replaced by the identity.

    Args:
        name: `torchvision:NAME`, `timm:NAME`, `hf:HUB-ID-OR-FOLDER`, `cifar:NAME` (torchvision's ResNets with a CIFAR
            stem, or `compact`), `lightly:NAME`; `embedded` and `efficientnet-lite0` bring their weights.
        weights: Path of a checkpoint (see `checkpoint_format`), `"pretrained"` for the weights that the library
            publishes, downloaded by it, or None for random weights from torch's global generator.
        checkpoint_format: Name of the checkpoint's layout, detected by default; see `sslk.models.LAYOUT_NAMES`.
        device: Where the backbone goes.
        image_size: Side of the images, in pixels, where it is not the network's own: position embeddings are then
            resampled as timm does.

    Returns:
        The backbone in eval mode; `backbone.checkpoint` reports how the checkpoint's tensors fit.

    Raises:
        ValueError: The name is unknown (near ones are listed), or the arguments contradict each other.
        CheckpointError: The checkpoint cannot be read, or matches fewer than 95 % of the network's tensors.
        FileNotFoundError: There is no file at the path.
        ImportError: An optional package is missing.
        OSError: Pretrained weights cannot be downloaded.

    >>> backbone = load_backbone("cifar:resnet18")
    >>> backbone.num_features, backbone.feature_layer, backbone.signed, backbone.input_size
    (512, 'net.layer4', False, (32, 32))
    """
    pretrained = weights == "pretrained"
    path = None if weights is None or pretrained else Path(weights)
    if checkpoint_format is not None and path is None:
        raise ValueError(f"checkpoint_format={checkpoint_format!r} needs weights=PATH, got weights={weights!r}")
    architecture = _build(name, pretrained, image_size)
    report: CheckpointReport | None = None
    classifier = architecture.classifier if pretrained or name == "efficientnet-lite0" else None
    if path is not None:
        checkpoint, report = load_checkpoint(architecture.net, path, checkpoint_format, head=architecture.head)
        classifier = _linear(checkpoint.parts.get("classifier", {}))
        if report.layout == "solo-learn" and name.startswith("cifar:"):
            # solo-learn pads its CIFAR stem by two pixels; the weights mean nothing else than that network.
            architecture.net.get_submodule("conv1").padding = (2, 2)  # type: ignore[assignment]
    return Backbone(
        architecture.net.to(device),
        name=name,
        input_size=architecture.input_size,
        mean=architecture.mean,
        std=architecture.std,
        interpolation=architecture.interpolation,
        classifier=classifier.to(device) if classifier is not None else None,
        checkpoint=report,
    )


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

    if ":" in name:
        return ValueError(f"unknown prefix in the model name {name!r}, it must be one of {', '.join(_BUILDERS)}")
    known = [*_PACKAGED, *(f"torchvision:{n}" for n in models.list_models(module=models))]
    known += [f"timm:{n}" for n in timm.list_models()]
    # A name without its prefix is the likely slip: compare with the bare names as well.
    exact = [full for full in known if full.partition(":")[2] == name]
    if exact:
        return ValueError(f"unknown model {name!r}, near ones: {', '.join(exact)}")
    return unknown_name("model", name, known)
