"""Resuming a pass over images: what finished batches gave stands in files, so that a killed run goes on behind them."""

from __future__ import annotations

import hashlib
import shutil
import time
from os import PathLike
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from sslk.files.tensors import read_tensors
from sslk.results.atomic import write_atomically


class Parts:
    """Numbered files of tensors in a folder, each what was found since the one before.

    Args:
        folder: made at the first `add`.
        identity: text that decides the numbers; files of another run are removed.
        seconds: between two files, what a kill can cost.

    Attributes:
        finished: the parts that were there, in order.

    >>> import tempfile, torch
    >>> folder = Path(tempfile.mkdtemp()) / "parts"
    >>> Parts(folder, "a", seconds=0).add({"values": torch.tensor([1.0, 2.0])})
    >>> Parts(folder, "a").finished[0]["values"].tolist(), Parts(folder, "b").finished, folder.exists()
    ([1.0, 2.0], [], False)
    """

    def __init__(self, folder: str | PathLike[str], identity: str, seconds: float = 20.0) -> None:
        self.folder, self.identity, self.seconds = Path(folder), identity, seconds
        self.finished: list[dict[str, Tensor]] = []
        while (part := self._read(len(self.finished))) is not None:
            self.finished.append(part)
        if not self.finished:
            self.remove()
        self._number, self._saved = len(self.finished), time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time for the next file."""
        return time.monotonic() - self._saved >= self.seconds

    def add(self, part: dict[str, Tensor]) -> None:
        """Write the next file, whole or not at all.

        Raises:
            OSError: the disk is full or the folder cannot be written to.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        data = save({name: value.contiguous() for name, value in part.items()}, {"identity": self._seal(part)})
        write_atomically(self._file(self._number), data)
        self._number, self._saved = self._number + 1, time.monotonic()

    def remove(self) -> None:
        """Remove all files: the run has come to its end."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.safetensors"

    def _seal(self, part: dict[str, Tensor]) -> str:
        """SHA-256 of the run and of what it found: a damaged part is found anew."""
        digest = hashlib.sha256(self.identity.encode())
        for name, value in sorted(part.items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def _read(self, number: int) -> dict[str, Tensor] | None:
        try:
            tensors, metadata = read_tensors(self._file(number), "the part")
        except (OSError, ValueError):
            return None
        if metadata.get("identity") != self._seal(tensors):
            return None
        return {name: tensor.clone() for name, tensor in tensors.items()}
