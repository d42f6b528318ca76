"""Labels as numbers of classes: whole numbers, texts that become class names, and what means "unlabelled"."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslk.data.dataset import class_count

UNLABELLED = -1


def numbered(values: Sequence[Any], classes: Sequence[str] | None = None) -> tuple[Tensor, tuple[str, ...]]:
    """Labels as int64 `[N]` and the names of the classes, empty where labels are numbers and no names are given.

    -1, None, NaN and the empty text mean unlabelled, -1. Texts that are numbers are numbers; other texts are class names,
    numbered in their order: that of `classes`, otherwise sorted, names that are numbers by their value.

    Args:
        values: one label a row.
        classes: names of the classes in the order of their numbers.

    Raises:
        ValueError: a number that is not whole, below -1 or too large, or a name that `classes` lacks.

    Examples:
        >>> numbered(["dog", None, "cat", "dog"])
        (tensor([ 1, -1,  0,  1]), ('cat', 'dog'))
        >>> numbered([0.0, float("nan"), 2.0])
        (tensor([ 0, -1,  2]), ())
    """
    plain = [_plain(value) for value in values]
    names = tuple(classes or ())
    if len(set(names)) < len(names):
        raise ValueError("classes must be unique names, got one twice.")
    texts = any(isinstance(value, str) for value in plain)
    are_names = {str(value) for value in plain if value is not None} <= set(names)
    if texts and not are_names and all(value is None or _number(value) is not None for value in plain):
        plain, texts = [None if value is None else _number(value) for value in plain], False
    if texts:
        known = {
            name: number for number, name in enumerate(names or _sorted({str(value) for value in plain if value is not None}))
        }
        absent = {str(value) for value in plain if value is not None and str(value) not in known}
        if absent:
            raise ValueError(f"labels hold {sorted(absent)[0]!r}, which classes lack ({', '.join(names)[:200]}).")
        labels = torch.tensor([UNLABELLED if value is None else known[str(value)] for value in plain], dtype=torch.int64)
        return labels, tuple(known)
    labels = torch.tensor([_whole(value) for value in plain], dtype=torch.int64)
    if class_count(labels, "labels") > len(names) > 0:
        raise ValueError(f"labels go up to {int(labels.max())}, and classes names {len(names)}.")
    return labels, names


def _plain(value: Any) -> Any:
    """The label as a number or text, None where it means unlabelled."""
    if isinstance(value, np.generic | Tensor) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if value is None or (isinstance(value, float) and math.isnan(value)) or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str | int | float):
        raise ValueError(f"labels must be whole numbers or texts, got {type(value).__name__}: {str(value)[:40]}.")
    return value


def _number(value: Any) -> int | float | None:
    """The number that a text is; one written otherwise than numbers are, such as 007, is a name."""
    if not isinstance(value, str):
        return value
    try:
        number = float(value)
    except ValueError:
        return None
    text = value.strip()
    return number if "." in text or math.isnan(number) or text.removeprefix("-") == str(abs(int(number))) else None


def _whole(value: int | float | None) -> int:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return UNLABELLED
    if math.isinf(value) or value != int(value) or value < UNLABELLED or value > 2**62:
        raise ValueError(f"labels must be numbers of classes, from 0 on, or -1 for unlabelled, got {value}.")
    return int(value)


def _sorted(names: set[str]) -> list[str]:
    """Sorted; by value where all are whole numbers."""
    return sorted(names, key=int) if all(name.lstrip("-").isdecimal() for name in names) else sorted(names)
