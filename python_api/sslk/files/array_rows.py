"""Arrays in files, read row by row: a file may be larger than memory, and what it declares is checked before it is believed."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from sslk.files.arrays import read_exactly, read_header, reason_of, require_possible_size
from sslk.files.regular import require_regular_file


@dataclass(frozen=True)
class ArrayRows:
    """An array in a file of which only a shape and a dtype are known yet.

    Attributes:
        path: the file.
        shape: of the array.
        dtype: of the array.
        fortran: whether the first dimension varies fastest.
        offset: where its bytes begin.
        member: its name in an .npz; empty where the file is the array.
        problem: why it cannot be read, where it cannot.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool = False
    offset: int = 0
    member: str = ""
    problem: str = ""

    def pieces(self, rows: int) -> Iterator[np.ndarray]:
        """The array in pieces of at most `rows` rows, in order; nothing more is in memory.

        An array in Fortran order in an .npz is read whole first, because a zip is read from front to back.

        Raises:
            ValueError: the file is damaged.
            OSError: it cannot be read.
        """
        if self.problem:
            raise ValueError(f"{self.path}[{self.member}] cannot be read: {self.problem}.")
        try:
            if self.member:
                with zipfile.ZipFile(self.path) as archive, archive.open(f"{self.member}.npy") as stream:
                    read_header(stream, archive.getinfo(f"{self.member}.npy").file_size)
                    yield from self._read(stream, rows)
            else:
                with open(self.path, "rb", buffering=0) as stream:
                    stream.seek(self.offset)
                    yield from self._read(stream, rows)
        except (zipfile.BadZipFile, EOFError, ValueError) as problem:
            raise ValueError(f"{self.path} is damaged: {reason_of(problem)}.") from None

    def _read(self, stream: IO[bytes], rows: int) -> Iterator[np.ndarray]:
        count = self.shape[0]
        if self.fortran and len(self.shape) > 1:
            yield from self._whole(stream, rows) if self.member else self._columns(stream, rows)
            return
        for start in range(0, count, rows):
            shape = (min(rows, count - start), *self.shape[1:])
            yield read_exactly(stream, math.prod(shape) * self.dtype.itemsize).view(self.dtype).reshape(shape)

    def _columns(self, stream: IO[bytes], rows: int) -> Iterator[np.ndarray]:
        """Rows out of columns that lie one after another: one short read a column."""
        count, size = self.shape[0], self.dtype.itemsize
        for start in range(0, count, rows):
            taken = min(rows, count - start)
            columns = []
            for column in range(math.prod(self.shape[1:])):
                stream.seek(self.offset + (column * count + start) * size)
                columns.append(read_exactly(stream, taken * size).view(self.dtype))
            yield np.stack(columns, axis=1).reshape(taken, *self.shape[1:], order="F")

    def _whole(self, stream: IO[bytes], rows: int) -> Iterator[np.ndarray]:
        content = read_exactly(stream, math.prod(self.shape) * self.dtype.itemsize)
        array = content.view(self.dtype).reshape(self.shape, order="F")
        for start in range(0, len(array), rows):
            yield array[start : start + rows]


def open_npy(path: str | Path, what: str) -> ArrayRows:
    """The array of a .npy, in C or Fortran order.

    Raises:
        ValueError: no regular file, no .npy, Python objects, or a size that is not the file's.
        OSError: it cannot be opened.
    """
    size = require_regular_file(path, what)
    try:
        with open(path, "rb") as stream:
            shape, fortran, dtype = read_header(stream, size)
            return ArrayRows(Path(path), shape, dtype, fortran, stream.tell())
    except OSError:
        raise
    except Exception as problem:  # a damaged header fails in any way
        raise ValueError(f"{what} {path} is no readable .npy without pickled objects: {reason_of(problem)}.") from None


def open_npz(path: str | Path, what: str) -> dict[str, ArrayRows]:
    """The arrays of an .npz by name; one that cannot be read says so when it is.

    Raises:
        ValueError: no regular file, no .npz, or two arrays of one name.
        OSError: it cannot be opened.
    """
    size = require_regular_file(path, what)
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            if len({info.filename for info in members}) < len(members):
                raise ValueError("it holds two arrays of one name")
            found = {}
            for info in members:
                name = info.filename.removesuffix(".npy")
                try:
                    require_possible_size(info, size)
                    with archive.open(info) as stream:
                        shape, fortran, dtype = read_header(stream, info.file_size)
                    found[name] = ArrayRows(Path(path), shape, dtype, fortran, 0, name)
                except Exception as problem:  # as above
                    found[name] = ArrayRows(Path(path), (), np.dtype("V0"), member=name, problem=reason_of(problem))
            return found
    except OSError:
        raise
    except Exception as problem:
        raise ValueError(f"{what} {path} is no readable .npz: {reason_of(problem)}.") from None


def open_raw(path: str | Path, what: str, layout: str) -> ArrayRows:
    """Numbers without a header, in C order: `float32:768` says what they are and how many make a row.

    Raises:
        ValueError: no regular file, no such layout, or a size that is no whole number of rows.
        OSError: it cannot be opened.

    Examples:
        >>> open_raw("/dev/null", "features", "float32")
        Traceback (most recent call last):
        ValueError: raw must be DTYPE:D, such as float32:768, got 'float32'.
    """
    name, _, width = layout.partition(":")
    if not (width.isdecimal() and 0 < int(width) < 2**40 and name in _RAW):
        raise ValueError(f"raw must be DTYPE:D, such as float32:768, got {layout!r}.")
    size, dtype = require_regular_file(path, what), np.dtype(name)
    rows, rest = divmod(size, int(width) * dtype.itemsize)
    if rest:
        raise ValueError(f"{what} {path} has {size} bytes, which is no whole number of rows of {width} {name}.")
    return ArrayRows(Path(path), (rows, int(width)), dtype)


_RAW = ("float16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
