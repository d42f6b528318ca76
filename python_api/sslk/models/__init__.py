"""Backbones by name and checkpoint readers."""
