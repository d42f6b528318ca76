"""Probes: classifiers on frozen representations."""
