"""What is imported: an array of some file or object, known by shape and dtype and read in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Source:
    """An array that is not read yet.

    Attributes:
        where: it stands, for messages: `train.npz[features]`.
        shape: of the array; rows first.
        dtype: by name; "str" for texts of any kind, "object" for values of several kinds.
        pieces: the array from its first row on, in pieces of at most so many rows: NumPy arrays, tensors or lists.
        beside: of a column of a table, columns of that table as one array `[N, D]`.
    """

    where: str
    shape: tuple[int, ...]
    dtype: str
    pieces: Callable[[int], Iterator[Any]]
    beside: Callable[[Sequence[str]], Source] | None = None

    @property
    def is_number(self) -> bool:
        """Whether it holds numbers."""
        return self.dtype not in ("str", "object") and not self.dtype.startswith("void")

    def values(self) -> list[Any]:
        """All of a vector, as Python values."""
        if len(self.shape) != 1 and any(size != 1 for size in self.shape[1:]):
            raise ValueError(f"{self.where} must be one value a row, [N], got {list(self.shape)}.")
        found: list[Any] = []
        for piece in self.pieces(1 << 20):
            found += piece if isinstance(piece, list) else piece.reshape(-1).tolist()
        return found


def dtype_name(dtype: Any) -> str:
    """The name of a NumPy or torch dtype."""
    if isinstance(dtype, np.dtype):
        return {"U": "str", "S": "str", "O": "object", "T": "str"}.get(dtype.kind, dtype.name)
    return str(dtype).removeprefix("torch.")


def array_source(array: np.ndarray | Tensor, where: str) -> Source:
    """An array or tensor in memory."""
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{where} must not be a masked array: fill it, unlabelled rows with -1.")
    if isinstance(array, Tensor) and array.layout is not torch.strided:
        raise TypeError(f"{where} must be a dense tensor, got the layout {array.layout}.")

    def pieces(rows: int) -> Iterator[Any]:
        for start in range(0, len(array), rows):
            yield array[start : start + rows]

    return Source(where, tuple(array.shape), dtype_name(array.dtype), pieces)


def list_source(values: Sequence[Any], where: str) -> Source:
    """Numbers, texts or None in a list."""
    texts = any(isinstance(value, str | bytes) for value in values)
    return Source(where, (len(values),), "str" if texts else "object", lambda rows: iter([list(values)]))


def joined(parts: Sequence[Source], what: str) -> Source:
    """Sources of one width in a row.

    Raises:
        ValueError: one has another shape behind its rows than the first.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    for part in parts:
        if part.shape[1:] != first.shape[1:] or not part.shape:
            raise ValueError(
                f"{what} in several parts must agree, got {list(first.shape)} in {first.where} and "
                f"{list(part.shape)} in {part.where}."
            )

    def pieces(rows: int) -> Iterator[Any]:
        for part in parts:
            yield from part.pieces(rows)

    dtypes = {part.dtype for part in parts}
    dtype = dtypes.pop() if len(dtypes) == 1 else "float64" if all(part.is_number for part in parts) else "object"
    where = f"{first.where} and {len(parts) - 1} more"
    return Source(where, (sum(part.shape[0] for part in parts), *first.shape[1:]), dtype, pieces)


def sources_in(value: Any, where: str) -> dict[str, Source]:
    """The arrays of an object: one, under no name; those of a dictionary; features and labels of a pair; batches joined.

    Raises:
        TypeError: it holds no arrays.

    Examples:
        >>> found = sources_in({"x": np.zeros((4, 2)), "more": {"y": [0, 1, None, 1]}}, "file")
        >>> {name: source.shape for name, source in found.items()}
        {'x': (4, 2), 'more.y': (4,)}
        >>> {name: source.shape for name, source in sources_in([np.zeros((4, 2)), np.zeros((3, 2))], "file").items()}
        {'': (7, 2)}
    """
    if isinstance(value, np.ndarray | Tensor):
        return {"": array_source(value, where)}
    if isinstance(value, Mapping):
        return _of_mapping(value, where)
    if isinstance(value, list | tuple) and value:
        return _of_list(value, where)
    raise TypeError(f"{where} must hold arrays or tensors, got {type(value).__name__}.")


def _of_mapping(value: Mapping[Any, Any], where: str) -> dict[str, Source]:
    vectors = [part for part in value.values() if isinstance(part, np.ndarray | Tensor) and part.ndim == 1 and _is_float(part)]
    if len(vectors) == len(value) > 2 and len({len(part) for part in vectors}) == 1:
        names = [str(key) for key in value]
        if not {name.lower() for name in names} & _RESERVED:  # a dictionary from the name of an image to its features
            return {"features": _stacked(vectors, where), "names": list_source(names, f"{where} (its keys)")}
    found: dict[str, Source] = {}
    for key, part in value.items():
        try:
            inner = sources_in(part, f"{where}[{key}]")
        except TypeError:
            continue  # settings, an epoch: no array
        found |= {f"{key}.{name}" if name else str(key): source for name, source in inner.items()}
    if not found:
        raise TypeError(
            f"{where} must hold arrays or tensors, its keys {', '.join(map(str, value))[:200] or '(none)'} hold none."
        )
    return found


_RESERVED = {"features", "embeddings", "feats", "x", "labels", "targets", "y"}


def _is_scalar(value: Any) -> bool:
    return isinstance(value, np.ndarray | Tensor) and value.ndim == 0


def _is_float(array: np.ndarray | Tensor) -> bool:
    return array.is_floating_point() if isinstance(array, Tensor) else array.dtype.kind == "f"


def _of_list(value: Sequence[Any], where: str) -> dict[str, Source]:
    if all(part is None or isinstance(part, str | bytes | int | float | np.generic) or _is_scalar(part) for part in value):
        return {"": list_source(value, where)}
    if _is_pair(value):
        return _pair(value, where)
    if all(isinstance(part, list | tuple) and _is_pair(part) for part in value):
        batches = [_pair(part, f"{where}[{number}]") for number, part in enumerate(value)]
        return {name: joined([batch[name] for batch in batches], name) for name in batches[0]}
    if all(isinstance(part, np.ndarray | Tensor) for part in value):
        if all(part.ndim == 1 for part in value) and len({len(part) for part in value}) == 1:
            return {"": _stacked(value, where)}
        return {"": joined([array_source(part, f"{where}[{number}]") for number, part in enumerate(value)], "batches")}
    kinds = ", ".join(sorted({type(part).__name__ for part in value}))
    raise TypeError(f"{where} must hold tensors, a pair of features and labels, or batches of these, got {kinds}.")


def _is_pair(value: Sequence[Any]) -> bool:
    """Whether this is features `[n, D]` and their labels `[n]`."""
    if len(value) != 2 or not isinstance(value[0], np.ndarray | Tensor) or value[0].ndim < 2:
        return False
    labels = value[1]
    return isinstance(labels, list) or (isinstance(labels, np.ndarray | Tensor) and labels.ndim == 1)


def _pair(value: Sequence[Any], where: str) -> dict[str, Source]:
    labels = sources_in(value[1], f"{where}[1]")[""]
    return {"features": array_source(value[0], f"{where}[0]"), "labels": labels}


def _stacked(vectors: Sequence[Any], where: str) -> Source:
    """One vector a row."""

    def pieces(rows: int) -> Iterator[Any]:
        for vector in vectors:
            yield vector[None]

    return Source(where, (len(vectors), len(vectors[0])), dtype_name(vectors[0].dtype), pieces)
