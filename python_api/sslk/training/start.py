"""What further training starts from: an encoder, the heads of its checkpoint, images, and the set S."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sslk.data import Dataset
from sslk.models import Backbone, as_backbone, read_checkpoint
from sslk.models.embedded import load_embedded_projector
from sslk.models.project import load_project_parts
from sslk.models.source import PROJECT, ModelSource
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.training.heads import Parts


@dataclass(frozen=True, eq=False)
class TrainingStart:
    """What further training starts from.

    Attributes:
        method: one of `METHODS`.
        backbone: the encoder, a `Backbone` or a bare module; not modified.
        parts: heads of its checkpoint, `read_checkpoint(...).parts`; none for fresh ones.
        images: training images.
        discriminative: the set S of `backbone`: its weights are compared with those of the set, not those of an arm later;
            found on `images` with `eps="auto"` by default.
        further_trained: `backbone` itself was trained further since the set was found: other weights are accepted.
        options: arguments of the method's class, such as `hidden_dim`.
    """

    method: str
    backbone: Backbone
    parts: Parts | None
    images: Dataset
    discriminative: DiscriminativeFeatures | None = None
    further_trained: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "backbone", as_backbone(self.backbone))


def load_start(
    method: str,
    model: ModelSource,
    images: Dataset,
    discriminative: DiscriminativeFeatures | None = None,
    *,
    further_trained: bool = False,
    options: Mapping[str, Any] | None = None,
) -> TrainingStart:
    """A start from an encoder by name, with the heads that its checkpoint holds.

    Args:
        method: one of `METHODS`.
        model: the encoder; none of the embedded one's heads but its projector, for `simclr`, is known, and a `project:`
            encoder's are in the source tree alone: without them, which a warning says, heads begin fresh.
        images, discriminative, further_trained, options: as in `TrainingStart`.

    Raises:
        ValueError, CheckpointError, FileNotFoundError: as for `load_backbone`.

    >>> from sslk.data import load_dataset
    >>> start = load_start("simclr", ModelSource("embedded"), load_dataset("sample", "train"))
    >>> start.backbone.num_features, list(start.parts)
    (256, ['projector'])
    """
    backbone, parts = model.load(), {}
    if model.weights is not None and model.weights != "pretrained":
        assert backbone.checkpoint is not None
        parts = read_checkpoint(model.weights, model.checkpoint_format or backbone.checkpoint.layout).parts
    elif model.name == "embedded" and method == "simclr":
        parts = {"projector": load_embedded_projector().state_dict()}
    elif model.name.startswith(PROJECT):
        parts = load_project_parts(model.name.removeprefix(PROJECT))
    return TrainingStart(method, backbone, parts, images, discriminative, further_trained, options or {})
