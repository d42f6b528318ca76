"""Registers the reference implementations for devices that have no native kernel."""

from collections.abc import Callable
from typing import Any

import torch

from ssl_kernels import checks, reference


def _checked(name: str) -> Callable[..., Any]:
    """The reference, which believes its arguments, behind the checks of the kernels."""

    def run(*arguments: Any) -> Any:
        getattr(checks, name)(*arguments)
        return getattr(reference, name)(*arguments)

    return run


_DEVICES = ["mps", "xpu"]
for _name in set(reference.__all__) - {"circular_mask"}:  # no tensor argument: made on the CPU everywhere
    torch.library.register_kernel(f"sslk::{_name}", _DEVICES, _checked(_name))
