"""A model as it is written down: its name and, behind an @, its checkpoint."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sslk.models.backbone import Backbone

PACKAGED = ("embedded", "efficientnet-lite0")  # these bring their weights


@dataclass(frozen=True)
class ModelSource:
    """A model by name, with its checkpoint.

    Attributes:
        model: torchvision:NAME, timm:NAME, hf:NAME, lightly:NAME, cifar:NAME, embedded or efficientnet-lite0, and its
            weights as NAME@CHECKPOINT or NAME@pretrained; a name alone is a random control, always the same one.
        checkpoint_format: layout of the checkpoint; detected by default.
        image_size: side of the image crop in pixels; the model's own by default.

    >>> source = ModelSource("cifar:resnet18@runs/last.ckpt")
    >>> source.name, source.weights, source.label, source.folder
    ('cifar:resnet18', 'runs/last.ckpt', 'cifar:resnet18@last.ckpt', 'cifar-resnet18-last.ckpt')
    >>> ModelSource("cifar:compact").label
    'cifar:compact (random weights)'
    """

    model: str
    checkpoint_format: str | None = None
    image_size: int | None = None

    @property
    def name(self) -> str:
        """For `load_backbone`."""
        return self.model.partition("@")[0]

    @property
    def weights(self) -> str | None:
        """Its checkpoint, or `pretrained`."""
        return self.model.partition("@")[2] or None

    @property
    def random(self) -> bool:
        """Whether no trained weights are loaded: a control."""
        return self.weights is None and self.name not in PACKAGED

    @property
    def label(self) -> str:
        """For a reader."""
        if self.random:
            return f"{self.name} (random weights)"
        return f"{self.name}@{Path(self.weights).name}" if self.weights else self.name

    @property
    def folder(self) -> str:
        """For a file system; names stay readable."""
        text = f"{self.name}-{Path(self.weights).name}" if self.weights else self.name
        return re.sub(r"[^A-Za-z0-9.]+", "-", text)

    def with_weights(self, checkpoint: str) -> ModelSource:
        """The same model with another checkpoint."""
        return replace(self, model=f"{self.name}@{checkpoint}")

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

    def load(self, *, seed: int = 0, device: str = "cpu") -> Backbone:
        """The backbone; random weights are those of the seed, whatever was drawn before."""
        import torch

        from sslk.models.load import load_backbone

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return load_backbone(
                self.name, self.weights, checkpoint_format=self.checkpoint_format, image_size=self.image_size, device=device
            )
