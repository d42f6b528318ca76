"""Whole files or none: a reader never sees half of what is written here, whenever the writer dies."""

import os
from pathlib import Path


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
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
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
