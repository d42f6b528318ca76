"""NumPy files by a name that a user or another file gave: a declared size is compared with the file's own first."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO

import numpy as np

from sslk.files.regular import require_regular_file

_BEST_DEFLATE = 1032  # no deflated byte gives more


def read_arrays(path: str | Path, what: str, names: Collection[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Those arrays of an .npz that are named and there, and the names of all; no other is read.

    Raises:
        ValueError: no regular file, no .npz, damaged, an array of Python objects, two of one name, or a size that the
            file cannot hold.
        OSError: it cannot be opened.
    """
    size = require_regular_file(path, what)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if len(members) < len(archive.infolist()):
                raise ValueError("it holds two arrays of one name")
            found = {}
            for name in names:
                if name in members:
                    require_possible_size(members[name], size)
                    with archive.open(members[name]) as stream:
                        found[name] = _read(stream, members[name].file_size)
            return found, list(members)
    except FileNotFoundError:
        raise
    except Exception as problem:  # a damaged zip or header fails in any way: struct.error, zlib.error, SyntaxError, ...
        raise ValueError(f"{what} {path} is no readable .npz without pickled objects: {reason_of(problem)}.") from None


def read_array(path: str | Path, what: str) -> np.ndarray:
    """The array of a .npy.

    Raises:
        ValueError: no regular file, no .npy, damaged, Python objects, or a size that is not the file's.
        OSError: it cannot be opened.
    """
    size = require_regular_file(path, what)
    try:
        with open(path, "rb") as stream:
            return _read(stream, size)
    except FileNotFoundError:
        raise
    except Exception as problem:  # as above
        raise ValueError(f"{what} {path} is no readable .npy without pickled objects: {reason_of(problem)}.") from None


def require_possible_size(info: zipfile.ZipInfo, size: int) -> None:
    """Refuse a member of a zip of `size` bytes that says it unpacks to more than that can hold.

    Raises:
        ValueError: it does.
    """
    most = _BEST_DEFLATE * min(info.compress_size, size) if info.compress_type == zipfile.ZIP_DEFLATED else size
    if info.file_size > most and info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{info.filename} says it holds {info.file_size} bytes, which the file cannot hold")


def _read(stream: IO[bytes], size: int) -> np.ndarray:
    """The array, if it has as many bytes as `size` leaves behind its header."""
    shape, fortran, dtype = read_header(stream, size)
    return read_exactly(stream, math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape, order="F" if fortran else "C")


def read_header(stream: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and dtype, if `size` leaves as many bytes behind the header as they say."""
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version} of .npy is not read")
    shape, fortran, dtype = readers[version](stream)
    wanted, there = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if min(shape, default=1) < 0 or wanted != there:
        raise ValueError(f"its header says {dtype} {list(shape)}, {wanted} bytes, and {there} are there")
    return shape, fortran, dtype


def read_exactly(stream: IO[bytes], wanted: int) -> np.ndarray:
    """The next `wanted` bytes."""
    content, filled = np.empty(wanted, np.uint8), 0
    while filled < wanted:
        taken = stream.readinto(content[filled : filled + (1 << 20)].data)  # type: ignore[attr-defined]
        if not taken:
            raise ValueError(f"it ends after {filled} of {wanted} bytes")
        filled += taken
    return content


def reason_of(problem: Exception) -> str:
    """The first line of what went wrong, for a sentence."""
    return (str(problem) or type(problem).__name__).splitlines()[0][:200].rstrip(".")
