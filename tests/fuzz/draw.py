"""What every family of the op fuzzer draws its cases from, and how it compares with an oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
LAYOUTS = ("contiguous", "transposed", "sliced", "offset", "expanded")


def wide(t: Tensor) -> np.ndarray:
    """Any float tensor in long double: squares and sums of float64 neither overflow nor vanish."""
    return t.detach().double().numpy().astype(np.longdouble)


class Draw:
    """The random choices of one case. The same seed and case number make the same ones."""

    def __init__(self, seed: int, case: int) -> None:
        self.rng = np.random.default_rng((seed, case))
        self.torch = torch.Generator().manual_seed(int(self.rng.integers(2**62)))

    def choice(self, values: Sequence[Any]) -> Any:
        return values[int(self.rng.integers(len(values)))]

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def size(self, most: int, least: int = 1) -> int:
        """Small sizes and powers of two with their neighbours as often as any other."""
        value = self.choice(
            [1, 2, 3, int(2 ** self.rng.integers(0, 13)) + int(self.rng.integers(-1, 2)), int(self.rng.integers(least, most + 1))]
        )
        return min(max(value, least), most)

    def op(self, name: str) -> Callable[..., Any]:
        return getattr(torch.ops.sslk, name)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.torch, dtype=torch.float64)

    def mask(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.torch) < self.rng.random()

    def layout(self, t: Tensor) -> Tensor:
        """The same values with other strides; an expanded tensor repeats its first slice."""
        kind = self.choice(LAYOUTS)
        if kind == "transposed" and t.dim() >= 2:
            return t.mT.contiguous().mT
        if kind == "sliced" and t.dim() >= 1:
            filler = torch.full((*t.shape[:-1], 2 * t.shape[-1] + 3), 77, dtype=torch.uint8).to(t.dtype)
            view = filler[..., 1 : 1 + 2 * t.shape[-1] : 2]
            return view.copy_(t)
        if kind == "offset":
            return torch.cat([t.new_ones(1), t.flatten()])[1:].view(t.shape)
        if kind == "expanded" and t.dim() >= 1 and t.shape[0] > 0:
            return t[:1].expand(t.shape)
        return t.contiguous()

    def scaled(self, t: Tensor, dtype: torch.dtype, least: float = 0.0, most: float = np.inf) -> Tensor:
        """Often of order 1, else brought to a random power of ten of the dtype's whole range, subnormals among them."""
        info = torch.finfo(dtype)
        if self.chance(0.4):
            low, high = max(info.smallest_normal * info.eps, least), min(info.max, most)
            largest = float(t.abs().max()) if t.numel() else 1.0
            exponent = self.rng.uniform(np.log10(low), np.log10(high) - 0.1) - np.log10(largest or 1.0)
            half = int(exponent / 2)  # in two steps: 1e-324 is no number
            t = t * 10.0**half * 10.0 ** (exponent - half)
        return t.clamp(-info.max, info.max).to(dtype)


def assert_near(name: str, actual: Tensor, expected: np.ndarray, tolerance: np.ndarray | float) -> None:
    """Whether `actual` lies in expected +- tolerance, both ends rounded to its dtype; NaN exactly where expected."""
    assert tuple(actual.shape) == np.shape(expected), f"{name}: shape {tuple(actual.shape)}, want {np.shape(expected)}"
    found = actual.detach().double().numpy()

    def ends(values: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return torch.from_numpy(np.array(values, dtype=np.float64)).to(actual.dtype).double().numpy()

    with np.errstate(invalid="ignore"):
        slack = np.abs(tolerance) + np.finfo(np.float64).smallest_subnormal + torch.finfo(actual.dtype).tiny * 1e-2
        low, high = ends(expected - slack), ends(expected + slack)
        inside = ((found >= low) & (found <= high)) | (found == ends(expected))
    bad = ~np.where(np.isnan(expected), np.isnan(found), inside)
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise AssertionError(f"{name}: {bad.sum()} of {bad.size} differ, {found[at]} at {at}, want {expected[at]}")


def assert_refused(name: str, call: Callable[..., Any], *arguments: Any) -> None:
    """A hostile argument is named in one sentence; it neither crashes nor passes."""
    try:
        call(*arguments)
    except (RuntimeError, ValueError, TypeError) as error:
        sentence = str(error).split("\nException raised from")[0].strip()
        assert sentence, f"{name}: refused without a word"
        return
    raise AssertionError(f"{name}: accepted {[a if not isinstance(a, Tensor) else tuple(a.shape) for a in arguments]}")
