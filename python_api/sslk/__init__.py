"""Protocols for measuring and improving self-supervised representations."""
