"""Tests of self-supervised training."""
