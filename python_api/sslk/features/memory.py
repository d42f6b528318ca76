"""Memory of a forward pass: glibc's is kept between layers, and a lack of it is told from other errors."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Of mallopt(3), and what glibc itself comes to after a program has given back a block of 32 MB.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_USUAL = {_TRIM_THRESHOLD: 64 << 20, _MMAP_THRESHOLD: 32 << 20, _MMAP_MAX: 65536}


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep the memory of activations for the next layer, where glibc would give it back after every one.

    Taking it again costs up to a third of a forward pass on a CPU. Afterwards everything goes back to the system. Elsewhere
    than on glibc, and where the environment sets the allocator, nothing is done.
    """
    libc = None if _chosen_by_user() else _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(_TRIM_THRESHOLD, -1)
    libc.mallopt(_MMAP_MAX, 0)
    try:
        yield
    finally:
        for parameter, value in _USUAL.items():
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)


def _chosen_by_user() -> bool:
    return "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or any(name.startswith("MALLOC_") for name in os.environ)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, on an accelerator or a CPU.

    >>> is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory.")), is_out_of_memory(RuntimeError("shapes differ"))
    (True, False)
    """
    # The allocator of CPUs, cuBLAS and cuDNN have no exception of their own.
    said = r"out of memory|can't allocate memory|not enough memory|could not allocate|ALLOC_FAILED"
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and re.search(said, str(error)) is not None
    )
