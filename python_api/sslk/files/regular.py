"""What stands before every file that is opened by a name out of another file."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def require_regular_file(path: str | os.PathLike[str], what: str, limit: int | None = None) -> int:
    """The size of a regular file in bytes, looked up before it is opened: a pipe would never end, a huge file fill memory.

    Args:
        path: the file.
        what: it is, for the message.
        limit: the most bytes it may have.

    Raises:
        ValueError: it is a folder, pipe or device, or larger than `limit`, or its name holds a NUL.
        FileNotFoundError: it does not exist.

    Examples:
        >>> require_regular_file("/dev/null", "the figure")
        Traceback (most recent call last):
        ValueError: the figure /dev/null must be a regular file.
    """
    try:
        found = Path(path).stat()
    except ValueError:
        raise ValueError(f"{what} {str(path)!r} is no name that a file can have.") from None
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{what} {path} must be a regular file.")
    if limit is not None and found.st_size > limit:
        raise ValueError(f"{what} {path} holds {found.st_size / 1e6:.1f} MB; at most {limit / 1e6:.1f} MB are read.")
    return found.st_size


def require_file_name(path: str | os.PathLike[str], what: str = "out") -> None:
    """Refuse to write a file where a folder is, before any work is done for it.

    Raises:
        ValueError: there is a folder, or the name is empty.

    Examples:
        >>> require_file_name(".")
        Traceback (most recent call last):
        ValueError: out must be the name of a file, got the folder '.'.
    """
    if Path(path).is_dir() or not Path(path).name:
        raise ValueError(f"{what} must be the name of a file, got the folder {str(path)!r}.")


def is_utf8(path: str | os.PathLike[str]) -> bool:
    """Whether a name can be written as UTF-8; one of other bytes stands in Python for what it is, and breaks libraries.

    Examples:
        >>> is_utf8("été"), is_utf8(os.fsdecode(b"caf\\xe9"))
        (True, False)
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True
