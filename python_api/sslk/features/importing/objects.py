"""Arrays out of `torch.save` files, by the reader of checkpoints: nothing that a file names is imported or called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sslk.files.arrays import reason_of
from sslk.files.regular import require_regular_file
from sslk.models.archives import read_archive
from sslk.models.pickle_globals import Array
from sslk.models.stand_ins import Global, StandIn, Unreadable

_MOST_ENTRIES = 10_000_000
_MOST_NESTED = 50


def read_pickled(path: Path, what: str) -> Any:
    """What a `torch.save` file holds, its tensors mapped into memory; objects of other classes stand in for themselves.

    Raises:
        ValueError: no regular file, damaged, no file of torch.save, or nested too deeply.
        OSError: it cannot be opened.
    """
    require_regular_file(path, what)
    try:
        content, _ = read_archive(path)
        if isinstance(content, StandIn | Global):
            raise ValueError(f"it is an object of {content.name[:80]}, and tensors in dictionaries and lists are read")
        return _plain(content, [_MOST_ENTRIES])
    except OSError:
        raise
    except Exception as problem:  # a damaged archive fails in any way
        raise ValueError(f"{what} {path} cannot be read as tensors: {reason_of(problem)}.") from None


def _plain(value: Any, left: list[int], depth: int = 0) -> Any:
    """Containers with NumPy arrays in the place of those on their way; `left` counts the entries that may follow."""
    left[0] -= 1
    if left[0] < 0 or depth > _MOST_NESTED:
        raise ValueError("its containers are nested too deeply, or hold themselves")
    if isinstance(value, Array):
        return np.array(value.array) if value.array is not None else StandIn("array")
    if isinstance(value, Unreadable):
        raise ValueError(f"it holds {value.kind}, and plain tensors are needed")
    if isinstance(value, dict):
        return {key: _plain(part, left, depth + 1) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, left, depth + 1) for part in value]
    return value
