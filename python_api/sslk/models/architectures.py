"""Networks by name, without their heads: one builder per prefix of `load_backbone`."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from sslk.models.checkpoints import CheckpointReport

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2470, 0.2435, 0.2616)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass
class Architecture:
    """A network whose head is the identity, and its preprocessing; see `Backbone` for the fields they share.

    Attributes:
        head: Dotted name the head had, None for a network that never had one.
        classifier: The head itself, trained only where the weights were.
        feature: What the representation is, where the network's own output is not a mean over a map.
        report: Of the weights, where the library says what it found.
    """

    net: nn.Module
    input_size: tuple[int, int]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"
    head: str | None = None
    classifier: nn.Linear | None = None
    feature: str | None = None
    report: CheckpointReport | None = None


def unknown_name(what: str, name: str, known: Iterable[str], *, prefix: str = "") -> ValueError:
    """The error for a name that is not known, listing the near ones."""
    near = difflib.get_close_matches(name, list(known), n=5, cutoff=0.5)
    listed = ", ".join(f"{prefix}{other}" for other in near) or "none"
    return ValueError(f"unknown {what} {prefix + name!r}, near ones: {listed}")


def optional_import(module: str, needed_for: str, package: str) -> Any:
    """Import a module of an optional dependency, or say how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{needed_for} needs the package {package}: pip install {package} ({error})") from error


def build_torchvision(name: str, pretrained: bool, image_size: int | None) -> Architecture:
    """A torchvision classification network; its last linear layer becomes the identity."""
    from torchvision import models

    if name not in models.list_models(module=models):
        raise unknown_name("model", name, models.list_models(module=models), prefix="torchvision:")
    weights = models.get_model_weights(name)
    preset = (weights.DEFAULT if pretrained else next(iter(weights))).transforms()
    options = {"image_size": image_size} if image_size is not None and name.startswith("vit_") else {}
    with _downloads(f"torchvision:{name}", pretrained):
        net = models.get_model(name, weights="DEFAULT" if pretrained else None, **options)
    size = image_size or getattr(net, "image_size", None) or preset.crop_size[0]
    head, classifier = detach_head(net, f"torchvision:{name}")
    return Architecture(net, (size, size), tuple(preset.mean), tuple(preset.std), preset.interpolation.value, head, classifier)


def build_timm(name: str, pretrained: bool, image_size: int | None) -> Architecture:
    """Any timm network, `reset_classifier(0)`; transformers of a fixed size are built for `image_size`."""
    timm = optional_import("timm", f"the backbone 'timm:{name}'", "timm")
    if not name.startswith(("hf-hub:", "hf_hub:", "local-dir:")) and not timm.is_model(name):
        known = [*timm.list_models(), *timm.list_pretrained()]
        raise unknown_name("model", name, known, prefix="timm:")
    fixed = image_size is not None and getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False)
    with _downloads(f"timm:{name}", pretrained):
        net = timm.create_model(name, pretrained=pretrained, **({"img_size": image_size} if fixed else {}))
    config = timm.data.resolve_model_data_config(net)
    classifier = net.get_classifier()
    head = next((path for path, module in net.named_modules() if module is classifier), None)
    net.reset_classifier(0)
    size = (image_size, image_size) if image_size else tuple(config["input_size"][1:])
    return Architecture(
        net,
        size,
        tuple(config["mean"]),
        tuple(config["std"]),
        config["interpolation"],
        head if isinstance(classifier, nn.Linear) else None,
        classifier if isinstance(classifier, nn.Linear) else None,
        timm_feature(net),
    )


def timm_feature(net: nn.Module) -> str | None:
    """How a timm transformer pools its tokens; None where it pools a map."""
    pool = getattr(net, "global_pool", None)
    named = {"token": "cls", "avg": "mean", "map": "pooler"}
    return named.get(pool, f"{pool} pooling" if pool else None) if isinstance(pool, str) else None


def build_cifar(name: str, pretrained: bool, image_size: int | None) -> Architecture:
    """`compact`, `compact512` (D in place of 256), or a torchvision ResNet with SimCLR's CIFAR stem: a 3 x 3 convolution
    and no max-pooling."""
    from torchvision import models

    _no_download("cifar", name, pretrained)
    resnets = [known for known in models.list_models(module=models) if known.startswith(("resnet", "wide_resnet"))]
    size = (image_size or 32, image_size or 32)
    if compact := re.fullmatch(r"compact([1-9]\d{0,3})?", name):
        from sslk.models.cifar_resnet import CifarResNet

        return Architecture(CifarResNet((16, 32, 64, int(compact[1] or 256))), size, CIFAR_MEAN, CIFAR_STD)
    if name not in resnets:
        raise unknown_name("model", name, ["compact", *resnets], prefix="cifar:")
    net = models.get_model(name, weights=None)
    net.conv1 = nn.Conv2d(3, net.conv1.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.maxpool = nn.Identity()
    head, classifier = detach_head(net, f"cifar:{name}")
    return Architecture(net, size, CIFAR_MEAN, CIFAR_STD, "bilinear", head, classifier)


def build_lightly(name: str, pretrained: bool, image_size: int | None) -> Architecture:
    """lightly's `ResNetGenerator` networks for 32 x 32 images: `resnet-9`, `resnet-18`, ..."""
    _no_download("lightly", name, pretrained)
    resnet = optional_import("lightly.models.resnet", f"the backbone 'lightly:{name}'", "lightly")
    known = [f"resnet-{depth}" for depth in (9, 18, 34, 50, 101, 152)]
    if name not in known:
        raise unknown_name("model", name, known, prefix="lightly:")
    net = resnet.ResNetGenerator(name)
    head, classifier = detach_head(net, f"lightly:{name}")
    if image_size not in (None, 32):
        raise ValueError(f"lightly's ResNets pool 4 x 4 maps, so image_size must be 32, got {image_size}")
    return Architecture(net, (32, 32), CIFAR_MEAN, CIFAR_STD, "bilinear", head, classifier)


def detach_head(net: nn.Module, name: str) -> tuple[str, nn.Linear]:
    """Replace the last linear layer by the identity; returns its dotted name and the layer.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.Dropout(), nn.Linear(8, 10)))
    >>> detach_head(net, "toy")
    ('1.1', Linear(in_features=8, out_features=10, bias=True))
    >>> net[1][1]
    Identity()
    """
    linear = [(path, module) for path, module in net.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(f"{name} has no linear layer that could be its head")
    path, head = linear[-1]
    parent, _, attribute = path.rpartition(".")
    setattr(net.get_submodule(parent), attribute, nn.Identity())
    return path, head


@contextmanager
def _downloads(name: str, pretrained: bool) -> Iterator[None]:
    """Turn a library's failure to fetch weights into one sentence that says what to do instead."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OSError(f"the pretrained weights of {name!r} could not be had ({reason}); pass weights=PATH") from error


def _no_download(family: str, name: str, pretrained: bool) -> None:
    if pretrained:
        raise ValueError(f"there are no published weights for '{family}:{name}', pass weights=PATH of a checkpoint")
