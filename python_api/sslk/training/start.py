"""What further training starts from: an encoder and the heads of its checkpoint."""

from __future__ import annotations

from sslk.models import Backbone, load_backbone, read_checkpoint
from sslk.models.embedded import load_embedded_projector
from sslk.training.heads import Parts


def load_start(
    method: str, model: str, weights: str | None = None, checkpoint_format: str | None = None
) -> tuple[Backbone, Parts]:
    """An encoder by name, and the heads its checkpoint holds, for `finetune`.

    Args:
        method: one of `METHODS`.
        model, weights, checkpoint_format: as for `load_backbone`.

    Returns:
        The encoder and its heads by part; none for a bare encoder. The embedded one brings its projector for `simclr`.

    Raises:
        ValueError, CheckpointError, FileNotFoundError: as for `load_backbone`.

    >>> encoder, heads = load_start("simclr", "embedded")
    >>> encoder.num_features, list(heads)
    (256, ['projector'])
    """
    backbone = load_backbone(model, weights, checkpoint_format=checkpoint_format)
    if weights is not None and weights != "pretrained":
        assert backbone.checkpoint is not None
        return backbone, read_checkpoint(weights, checkpoint_format or backbone.checkpoint.layout).parts
    if model == "embedded" and method == "simclr":
        return backbone, {"projector": load_embedded_projector().state_dict()}
    return backbone, {}
