"""A metric whose sums keep their precision, whatever precision the module around it goes to."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torchmetrics import Metric


class ExactMetric(Metric):
    """A torchmetrics metric whose states change their device but not their dtype.

    `module.half()` and `module.to(torch.bfloat16)` convert what a module holds, and torchmetrics lets `to` reach the states
    of a metric inside: sums in 8 bits of mantissa. Here float64 and int64 states stay what they are, whatever the module
    goes through. `set_dtype` converts them still, as it is asked to by name.

    Examples:
        >>> import torch
        >>> from sslk.metrics import ColumnL1
        >>> net = torch.nn.Module()
        >>> net.norms = ColumnL1(2)
        >>> net.to(torch.bfloat16).norms.norms.dtype
        torch.float64
    """

    def _apply(self, fn: Callable[..., Any], exclude_state: Sequence[str] = "") -> "ExactMetric":
        if self._dtype_convert:
            super()._apply(fn, exclude_state)
            return self

        def moved(tensor: Tensor) -> Tensor:
            changed = fn(tensor)
            return changed if changed.dtype == tensor.dtype else tensor.to(changed.device)

        dtype = self._dtype  # torchmetrics reads it off a float32 tensor
        super()._apply(moved, exclude_state)
        self._dtype = dtype
        return self
