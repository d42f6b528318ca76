"""The feature atlas: one browsable page about every discriminative feature of a model."""

from sslk.interpret.atlas.build import build_atlas

__all__ = ["build_atlas"]
