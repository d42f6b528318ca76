"""Files of a folder or of a .zip, read the same way, from any number of loader processes."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from sslk.data.decode import decode
from sslk.data.listing import list_folder, list_members
from sslk.files.arrays import require_possible_size
from sslk.files.regular import require_regular_file

MOST_BYTES = 1 << 30  # of an image or list that is read whole
_TAIL = 4096  # bytes of a file that its checksum covers


class Archive:
    """Read-only files below a folder, or inside a zip, by their path with forward slashes.

    Args:
        path: The folder or zip.
        only: Names of the folders at the top to look into; everything by default.

    Attributes:
        names: The files, hidden ones and those of a system left out.
        folders: Names at the top.
        left_out: Kind -> names of what was left out.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: The file is no zip, or is damaged; a folder cannot be read.
    """

    def __init__(self, path: str | Path, only: Sequence[str] | None = None) -> None:
        self.path = Path(path)
        self._zip: zipfile.ZipFile | None = None
        self._owner = -1
        if self.path.is_dir():
            listing = list_folder(self.path, only)
        elif self.path.is_file():
            try:
                listing = list_members(self._open_zip().namelist())
            except zipfile.BadZipFile as error:
                raise ValueError(f"{self.path} is no folder and no readable zip: {error}") from error
        else:
            raise FileNotFoundError(f"there is no folder or zip {self.path}")
        self.names, self.folders, self.left_out = listing.files, listing.folders, listing.left_out

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            OSError: it is damaged, missing or outside.
        """
        if self.path.is_dir():
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise OSError(f"{name!r} lies outside {self.path} and is not read.")
            if len(name) > 4096:
                raise OSError(f"{name[:80]!r}... is no name that a file below {self.path} can have.")
            return read_bytes(self.path / name)
        try:
            require_possible_size(self._open_zip().getinfo(name), MOST_BYTES)
            return self._open_zip().read(name)
        except OSError:
            raise
        except Exception as error:  # a damaged zip fails in any way: BadZipFile, zlib.error, KeyError, ...
            raise OSError(f"{name!r} in {self.path} cannot be read: {error}") from None

    def text(self, name: str) -> str:
        """The content of a file of text in UTF-8.

        Raises:
            OSError: see `read`.
            ValueError: it is no text in UTF-8.
        """
        try:
            return self.read(name).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise ValueError(f"{name} in {self.path} is no text in UTF-8.") from None

    def checksum(self, name: str) -> str:
        """What tells a file from another of its name, cheaply: its size and the CRC-32 of its last 4 KB, or of all of it.

        A zip holds the latter. Empty for a file that cannot be read: reading it says why.
        """
        try:
            if not self.path.is_dir():
                entry = self._open_zip().getinfo(name)
                return f"{entry.file_size:x}-{entry.CRC:08x}"
            if not (self.path / name).is_file():  # opening a pipe would wait for its writer
                return ""
            with open(self.path / name, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                tail = os.pread(file.fileno(), _TAIL, max(0, size - _TAIL))
            return f"{size:x}-{zlib.crc32(tail):08x}"
        except OSError:
            return ""

    def image(self, name: str) -> Image.Image:
        """A decoded image, see `sslk.data.decode`.

        Raises:
            OSError: see `read`; it is no image, or damaged.
        """
        return decode(self.read(name), f"{self.path / name}")

    def root_of(self, suffix: str) -> str:
        """The path in front of the one file that ends with `/suffix` or is it; sets are packed at various depths."""
        for name in self.names:
            if name == suffix or name.endswith(f"/{suffix}"):
                return name[: -len(suffix)]
        raise ValueError(f"{self.path} holds no {suffix}")

    def _open_zip(self) -> zipfile.ZipFile:
        # A forked worker shares the file offset of its parent, so every process opens its own.
        if self._zip is None or self._owner != os.getpid():
            self._zip, self._owner = zipfile.ZipFile(self.path), os.getpid()
        return self._zip

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_zip": None, "_owner": -1}


def read_bytes(path: Path) -> bytes:
    """The content of a regular file of at most a gigabyte; OSError where it is none."""
    try:
        require_regular_file(path, "the file", MOST_BYTES)
    except ValueError as error:
        raise OSError(str(error)) from None
    return path.read_bytes()
