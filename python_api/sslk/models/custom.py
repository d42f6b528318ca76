"""Networks of one's own: a function of a module or file, the entry of a torch.hub folder, or an `nn.Module` at hand."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from sslk.models.architectures import Architecture, timm_feature
from sslk.models.backbone import Backbone
from sslk.models.huggingface import huggingface_architecture


def build_python(name: str, pretrained: bool, image_size: int | None) -> Architecture:
    """What a function of the user's returns: `PACKAGE.MODULE:FACTORY` or `FILE.py:FACTORY`, called without arguments.

    Modules are looked for in the working directory too; a file's own folder is on the path, so that it can import its
    neighbours.

    Raises:
        ValueError: There is no such module or function, it fails, or does not return a network.
    """
    where = f"'python:{name}'"
    if pretrained:
        raise ValueError(f"weights='pretrained' means nothing for {where}: its function gives the weights, or pass weights=PATH")
    place, colon, factory = name.rpartition(":")
    if not colon or not place or not factory:
        raise ValueError(f"a network of your own is python:PACKAGE.MODULE:FACTORY or python:FILE.py:FACTORY, got {where}")
    module = _import(place, where)
    made = getattr(module, factory, None)
    if made is None:
        near = difflib.get_close_matches(factory, [key for key in vars(module) if not key.startswith("_")], n=4, cutoff=0.4)
        raise ValueError(f"{where} names no function of {place}; near ones: {', '.join(near) or 'none'}")
    if not isinstance(made, nn.Module):
        if not callable(made):
            raise ValueError(f"{where} must be a function that returns a network, got {type(made).__name__}")
        torch.manual_seed(torch.initial_seed())  # whatever the import of the module drew, once
        try:
            made = made()
        except Exception as error:  # the user's own code fails in any way
            raise ValueError(f"{where} could not be built: {type(error).__name__}: {error}") from error
    if not isinstance(made, nn.Module):
        raise ValueError(f"{where} must return an nn.Module or a Backbone, got {type(made).__name__}")
    return architecture_of(made, image_size)


def build_hub(name: str, pretrained: bool, image_size: int | None) -> Architecture:
    """An entry of a torch.hub repository that is on this machine: `OWNER/REPO:ENTRY`, or `FOLDER:ENTRY`.

    Raises:
        ValueError: There is no such entry, or it does not return a network.
        OSError: The folder is not there.
    """
    where = f"'hub:{name}'"
    repository, colon, entry = name.rpartition(":")
    if not colon or not repository:
        raise ValueError(f"a torch.hub network is written hub:OWNER/REPO:ENTRY, got {where}")
    folder = _hub_folder(repository)
    if folder is None:
        raise OSError(
            f"{where} needs the repository on this machine, with its hubconf.py: a folder, or "
            f"{repository.replace('/', '_')}_main below {torch.hub.get_dir()}"
        )
    module = _import(str(folder / "hubconf.py"), where)
    lacking = [name for name in getattr(module, "dependencies", ()) if importlib.util.find_spec(name) is None]
    if lacking:
        raise ImportError(f"{where} needs the package {lacking[0]}: pip install {lacking[0]}")
    known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    if entry not in known:
        near = difflib.get_close_matches(entry, known, n=5, cutoff=0.4) or known[:8]
        raise ValueError(f"{where} has no entry {entry!r}; near ones: {', '.join(near)}")
    build = getattr(module, entry)
    accepted = inspect.signature(build).parameters.values()
    flagged = any(p.name == "pretrained" or p.kind is p.VAR_KEYWORD for p in accepted)
    try:
        net = build(pretrained=pretrained) if flagged else build()
    except Exception as error:  # the repository's own code
        raise OSError(f"{where} could not be built: {type(error).__name__}: {error}") from error
    if not isinstance(net, nn.Module):
        raise ValueError(f"{where} must return an nn.Module, got {type(net).__name__}")
    return architecture_of(net, image_size)


def as_backbone(model: nn.Module, *, image_size: int | None = None) -> Backbone:
    """A network at hand as a backbone: itself where it is one, else with its class as name and what its library says of it.

    timm's and transformers' networks know their image size and normalisation; any other is taken for one of 224 pixels
    with ImageNet's. Build a `Backbone` where that is wrong. The network's training flags are kept.

    Raises:
        ValueError: see `Backbone`.

    >>> backbone = as_backbone(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), image_size=8)
    >>> backbone.name, backbone.num_features, backbone.feature
    ('Sequential', 8, 'mean')
    """
    if isinstance(model, Backbone):
        return model
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module or a Backbone, got {type(model).__name__}.")
    training = [module for module in model.modules() if module.training]
    try:
        found = architecture_of(model, image_size)
        return Backbone(
            found.net,
            name=type(model).__name__,
            input_size=found.input_size,
            mean=found.mean,
            std=found.std,
            interpolation=found.interpolation,
            feature=found.feature,
        )
    finally:
        for module in training:
            module.training = True


def architecture_of(net: nn.Module, image_size: int | None) -> Architecture:
    """A network with the preprocessing that its library notes on it; ImageNet's at 224 pixels where it notes none."""
    size = (image_size, image_size) if image_size else None
    if isinstance(net, Backbone):
        found = Architecture(net.net, size or net.input_size, net.mean, net.std, net.interpolation, feature=net.feature)
        found.classifier = net.classifier
        return found
    if type(net).__module__.startswith("transformers.") and hasattr(net, "config"):
        return huggingface_architecture(net, image_size)
    config: Any = getattr(net, "pretrained_cfg", None)
    if isinstance(config, dict) and "input_size" in config:
        built: Any = getattr(getattr(net, "patch_embed", None), "img_size", None)  # which may be another than the published
        size = size or (tuple(built) if built else None)
        mean, std, way = tuple(config["mean"]), tuple(config["std"]), str(config.get("interpolation", "bilinear"))
        return Architecture(net, size or tuple(config["input_size"][1:]), mean, std, way, feature=timm_feature(net))
    return Architecture(net, size or (224, 224))


def _import(place: str, where: str) -> ModuleType:
    """The module of a dotted name or of a file."""
    path = Path(place)
    folder = str(path.resolve().parent) if path.suffix == ".py" else os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        if path.suffix != ".py":
            return importlib.import_module(place)
        if not path.is_file():
            raise ValueError(f"{where} names no file: there is no {path}")
        return _import_file(path.resolve())
    except ValueError:
        raise
    except Exception as error:  # the user's own code fails in any way
        raise ValueError(f"{where} could not be imported: {type(error).__name__}: {error}") from error


def _import_file(path: Path) -> ModuleType:
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Under its own name where that is free, so that what the file defines can be pickled; every hub has a hubconf.
    if path.stem not in sys.modules and path.stem != "hubconf":
        sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        if sys.modules.get(path.stem) is module:
            del sys.modules[path.stem]
        raise
    return module


def _hub_folder(repository: str) -> Path | None:
    """Where a repository lies: the folder itself, or as torch.hub names its copies."""
    if (Path(repository) / "hubconf.py").is_file():
        return Path(repository)
    owner_repo, _, reference = repository.partition("@")
    stem = owner_repo.replace("/", "_")
    hub = Path(torch.hub.get_dir())
    found = [hub / f"{stem}_{reference}"] if reference else [hub / f"{stem}_{branch}" for branch in ("main", "master")]
    found += [] if reference else sorted(hub.glob(f"{stem}_*"))
    return next((folder for folder in found if (folder / "hubconf.py").is_file()), None)
