"""Registers the reference implementations for devices that have no native kernel."""

import torch

from ssl_kernels import reference

_DEVICES = ["mps", "xpu"]
for _name in set(reference.__all__) - {"circular_mask"}:  # no tensor argument: made on the CPU everywhere
    torch.library.register_kernel(f"sslk::{_name}", _DEVICES, getattr(reference, _name))

# Dense products on written-out bits are what a GPU does best, so this op has no CUDA kernel of its own.
torch.library.register_kernel("sslk::sparse_softmax_sgd_", "cuda", reference.sparse_softmax_sgd_)
