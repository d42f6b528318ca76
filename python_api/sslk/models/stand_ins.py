"""What stands in the place of the objects that a checkpoint's pickle names, and the errors of reading one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_SAFE_KEYS = (str, bytes, bool, float, type(None))


class Damaged(ValueError):
    """The bytes are no pickle, or one that asks for what cannot be."""


class Refused(ValueError):
    """The file is what it is, and that is not read; the message says what it is and what to do."""


class Global:
    """A name in a pickle; `build` is this package's constructor for it, None where it has none."""

    __slots__ = ("build", "name")

    def __init__(self, name: str, build: Callable[..., Any] | None = None) -> None:
        self.name, self.build = name, build


class StandIn:
    """An object of a class or function that is not known here; `state` is kept where it is that of an `nn.Module`."""

    __slots__ = ("name", "state")

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: dict[Any, Any] | None = None

    def set_state(self, state: Any) -> None:
        if isinstance(state, dict) and isinstance(state.get("_modules"), dict):
            self.state = state


class Unreadable:
    """A tensor that is there and cannot be a network's: sparse, quantised, nested, or without values."""

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        self.kind = kind


class Stored:
    """The bytes of a storage as elements of a dtype, which is None for bytes without one; no bytes: not read (yet)."""

    __slots__ = ("dtype", "storage")

    def __init__(self, storage: torch.UntypedStorage | None, dtype: torch.dtype | None) -> None:
        self.storage, self.dtype = storage, dtype


def safe_key(key: Any) -> Any:
    """The key of a dictionary or set, or an opaque one: hashing a made-up tuple or number can take for ever.

    >>> safe_key("conv1.weight"), type(safe_key(((), ()))).__name__
    ('conv1.weight', 'StandIn')
    """
    if isinstance(key, (*_SAFE_KEYS, Global, StandIn)) or (isinstance(key, int) and -(2**63) <= key < 2**63):
        return key
    return StandIn("key")
