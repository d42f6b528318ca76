"""A model as it is written down: its name and, behind an @, its weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

# All names that inherited fields are annotated with: the parser of the command line resolves them here.
from sslk.models.settings import ChannelOrder, Interpolation, Preprocessing, Token  # noqa: F401

if TYPE_CHECKING:
    from sslk.models.backbone import Backbone

PACKAGED = ("embedded", "efficientnet-lite0")  # these bring their weights
PROJECT = "project:"  # and so do the encoders of this project's registry


def is_packaged(name: str) -> bool:
    """Whether a network brings its weights.

    >>> is_packaged("embedded"), is_packaged("project:simclr-cifar10"), is_packaged("cifar:compact")
    (True, True, False)
    """
    return name in PACKAGED or name.startswith(PROJECT)


def needs_weights(name: str) -> bool:
    """Whether a network comes without weights: all but the packaged ones and a function of the user's."""
    return not is_packaged(name) and not name.startswith("python:")


def random_seed(weights: str | Path | None) -> int | None:
    """The seed of `random` or `random:SEED`; None for other weights.

    Raises:
        ValueError: the seed is no whole number.

    >>> random_seed("random"), random_seed("random:7"), random_seed("pretrained")
    (0, 7, None)
    """
    text = str(weights)
    if text != "random" and not text.startswith("random:"):
        return None
    seed = text.removeprefix("random").removeprefix(":") or "0"
    if not re.fullmatch(r"\d{1,18}", seed):
        raise ValueError(f"weights must be random or random:SEED with a whole number, got {text!r}.")
    return int(seed)


def named(name: str, seed: int | None) -> str:
    """A model's name in results: random weights are said.

    >>> named("cifar:compact", 0), named("cifar:compact", 3), named("embedded", None)
    ('cifar:compact (random weights)', 'cifar:compact (random weights, seed 3)', 'embedded')
    """
    return name if seed is None else f"{name} (random weights{f', seed {seed}' if seed else ''})"


@dataclass(frozen=True)
class ModelSource(Preprocessing):
    """A model by name, with its weights.

    Attributes:
        model: torchvision:NAME, timm:NAME, hf:NAME, lightly:NAME, cifar:NAME, python:FILE.py:FACTORY,
            hub:OWNER/REPO:ENTRY, with its weights as NAME@WEIGHTS; project:NAME, embedded or efficientnet-lite0.
        checkpoint_format: layout of the checkpoint, ema or LAYOUT+ema for averaged weights; detected by default.
        image_size: side of the image crop in pixels; the model's own by default.
        weights: path of a checkpoint, pretrained, or random[:SEED], in place of what stands behind the @.
        layer: where the representation is taken: names of modules, numbers of blocks, or all blocks; the output by default.
        token: cls, mean (of the patches), cls+mean or pooler; the model's own choice by default.

    >>> source = ModelSource("cifar:resnet18@runs/last.ckpt")
    >>> source.name, source.weights, source.label, source.folder
    ('cifar:resnet18', 'runs/last.ckpt', 'cifar:resnet18@last.ckpt', 'cifar-resnet18-last.ckpt')
    >>> ModelSource("cifar:compact", weights="random").label
    'cifar:compact (random weights)'
    """

    model: str
    checkpoint_format: str | None = None
    image_size: int | None = None
    weights: str | None = None
    layer: tuple[str, ...] = ()
    token: tuple[Token, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        name, _, written = self.model.partition("@")
        if written and self.weights not in (None, written):
            raise ValueError(f"weights must be named once, got {written!r} behind the @ of the model and {self.weights!r}.")
        weights = written or self.weights or None
        # Whichever way they were written, both ways can be read.
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "model", f"{name}@{weights}" if weights else name)

    @property
    def name(self) -> str:
        """For `load_backbone`."""
        return self.model.partition("@")[0]

    @property
    def random(self) -> bool:
        """Whether the weights are random: a control."""
        return random_seed(self.weights) is not None

    @property
    def label(self) -> str:
        """For a reader."""
        if self.weights is None or self.random:
            return named(self.name, random_seed(self.weights))
        return f"{self.name}@{Path(self.weights).name}"

    @property
    def folder(self) -> str:
        """For a file system; names stay readable."""
        text = f"{self.name}-{Path(self.weights).name}" if self.weights else self.name
        return re.sub(r"[^A-Za-z0-9.]+", "-", text)

    def with_weights(self, checkpoint: str) -> ModelSource:
        """The same model with another checkpoint."""
        return replace(self, model=self.name, weights=checkpoint)

    @classmethod
    def several(cls, models: Sequence[str], image_sizes: Sequence[int] = ()) -> list[ModelSource]:
        """Models, each with the side of its images; 0 is the model's own, and all models' own is the default.

        Raises:
            ValueError: sizes are negative, or not one a model.
        """
        if image_sizes and len(image_sizes) != len(models):
            raise ValueError(f"image_sizes must hold one size a model, got {len(image_sizes)} for {len(models)} models.")
        if any(size < 0 for size in image_sizes):
            raise ValueError(f"image_sizes must be positive, or 0 for the model's own size, got {list(image_sizes)}.")
        sizes = [size or None for size in image_sizes] or [None] * len(models)
        return [cls(model, image_size=size) for model, size in zip(models, sizes, strict=True)]

    def load(self, *, device: str = "cpu") -> Backbone:
        """The backbone.

        Raises:
            ValueError: several layers or tokens were named, and one representation is needed; else see `load_backbone`.
        """
        if len(self.layer) > 1 or len(self.token) > 1 or self.layer == ("all",):
            raise ValueError(f"layer and token must name one representation here, got {[*self.layer, *self.token]}.")
        return self.load_several(device=device)[0]

    def load_several(self, *, device: str = "cpu") -> list[Backbone]:
        """A backbone for every layer with every token, over one network.

        Raises:
            ValueError, CheckpointError, OSError, ImportError: see `load_backbone`.
        """
        from sslk.models.load import load_backbone

        one = len(self.layer) < 2 and len(self.token) < 2 and self.layer != ("all",)
        backbone = load_backbone(
            self.name,
            self.weights,
            checkpoint_format=self.checkpoint_format,
            image_size=self.image_size,
            device=device,
            layer=self.layer[0] if one and self.layer else None,
            token=self.token[0] if one and self.token else None,
            preprocessing=self,
        )
        return [backbone] if one else backbone.read_out(self.layer, self.token)
