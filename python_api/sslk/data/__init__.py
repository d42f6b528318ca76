"""Datasets, transforms and the embedded sample."""
