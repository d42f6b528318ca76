"""Registers the reference implementations for devices that have no native kernel."""

import torch

from ssl_kernels import reference

_DEVICES = ["mps", "xpu"]
_OPS = [
    "activating_mask",
    "activation_counts",
    "column_l1",
    "column_l1_backward",
    "qscore",
    "qscore_backward",
    "qscore_penalty",
    "qscore_penalty_backward",
    "row_moments",
]

for _name in _OPS:
    torch.library.register_kernel(f"sslk::{_name}", _DEVICES, getattr(reference, _name))
