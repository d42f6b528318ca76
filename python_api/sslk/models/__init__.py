"""Backbones by name and checkpoint readers."""

from sslk.models.backbone import Backbone
from sslk.models.checkpoints import (
    Checkpoint,
    CheckpointError,
    CheckpointReport,
    load_checkpoint,
    read_checkpoint,
)
from sslk.models.layouts import LAYOUT_NAMES
from sslk.models.load import load_backbone
from sslk.models.transforms import EvaluationTransform, evaluation_transform

__all__ = [
    "LAYOUT_NAMES",
    "Backbone",
    "Checkpoint",
    "CheckpointError",
    "CheckpointReport",
    "EvaluationTransform",
    "evaluation_transform",
    "load_backbone",
    "load_checkpoint",
    "read_checkpoint",
]
