"""Files of a folder or of a .zip, read the same way, from any number of loader processes."""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

from PIL import Image

_TAIL = 4096  # bytes


class Archive:
    """Read-only files below a folder, or inside a zip, by their path with forward slashes.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: The file is no zip, or is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._zip: zipfile.ZipFile | None = None
        self._owner = -1
        if self.path.is_dir():
            self.names = sorted(
                file.relative_to(self.path).as_posix() for file in self.path.rglob("*") if file.is_file()
            )
        elif self.path.is_file():
            try:
                self.names = sorted(name for name in self._open_zip().namelist() if not name.endswith("/"))
            except zipfile.BadZipFile as error:
                raise ValueError(f"{self.path} is no folder and no readable zip: {error}") from error
        else:
            raise FileNotFoundError(f"there is no folder or zip {self.path}")

    def read(self, name: str) -> bytes:
        """The content of a file; OSError where it is damaged or missing."""
        if self.path.is_dir():
            return (self.path / name).read_bytes()
        try:
            return self._open_zip().read(name)
        except (zipfile.BadZipFile, KeyError) as error:
            raise OSError(f"{self.path}: {error}") from error

    def checksum(self, name: str) -> str:
        """What tells a file from another of its name, cheaply: its size and the CRC-32 of its last 4 KB, or of all of it.

        A zip holds the latter. Empty for a file that cannot be read: reading it says why.
        """
        try:
            if not self.path.is_dir():
                entry = self._open_zip().getinfo(name)
                return f"{entry.file_size:x}-{entry.CRC:08x}"
            with open(self.path / name, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                tail = os.pread(file.fileno(), _TAIL, max(0, size - _TAIL))
            return f"{size:x}-{zlib.crc32(tail):08x}"
        except OSError:
            return ""

    def image(self, name: str) -> Image.Image:
        """A decoded image."""
        image = Image.open(io.BytesIO(self.read(name)))
        image.load()
        return image

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
