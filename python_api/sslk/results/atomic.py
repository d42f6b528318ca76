"""Whole files or none: a reader never sees half of what is written here, whenever the writer dies."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from sslk.files.tables import write_rows


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` through a temporary file beside it, fsync and rename.

    Whatever interrupts it (a full disk, a signal, a power cut) leaves `path` as it was. The temporary file is named
    after the target, so what a killed writer left behind is overwritten by the next attempt.

    Args:
        path: the file; its folder exists.
        data: all of its contents.

    Raises:
        OSError: the folder is read-only or the disk is full.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "result.json"
    >>> write_atomically(target, b"{}"); target.read_bytes(), len(list(target.parent.iterdir()))
    (b'{}', 1)
    """
    with _whole(path, "wb") as file:
        file.write(data)


def write_table(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write rows as CSV, atomically; they may be as many as the disk holds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _whole(path, "w") as file:
        write_rows(file, rows)


@contextmanager
def _whole(path: Path, mode: str) -> Iterator[IO[Any]]:
    temporary = path.with_name(f".{path.name}.tmp")
    text = {} if "b" in mode else {"newline": "", "encoding": "utf-8"}
    try:
        with open(temporary, mode, **text) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must outlive a power cut
    finally:
        os.close(folder)
