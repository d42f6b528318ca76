"""Writing a feature store: shards appear whole or not at all, from any number of processes at once."""

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from types import TracebackType

import torch
from safetensors.torch import save
from torch import Tensor

from sslk.features.intact import check_contents, dtype_of, remember
from sslk.features.manifest import MANIFEST, Manifest, ShardEntry, StoreError, StoreSpec, shard_name
from sslk.files.regular import is_utf8
from sslk.results.atomic import write_atomically

LOCK = ".lock"


class StoreWriter:
    """Adds shards to a feature store, creating it or going on with what a killed writer left.

    A shard goes to disk by temporary file, fsync and rename, then into the manifest the same way, under a lock that
    the operating system lifts when its holder dies. Use as a context manager.

    Args:
        path: the folder; made if it does not exist, otherwise a store of the same spec or an empty folder.
        spec: what the store holds.
        rank: which of the writing processes this is; each needs its own.

    Attributes:
        finished: names of the shards that were there and intact at the start.

    Raises:
        StoreError: the folder holds something else, another process writes as this rank, or a finished shard is
            damaged (named).
        OSError: the folder cannot be written to, or the disk has no room for what is missing.
    """

    def __init__(self, path: str | PathLike[str], spec: StoreSpec, rank: int = 0) -> None:
        self.path = Path(path)
        self.spec = spec
        self._check_target()
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._claim(rank)
            with self._locked():
                if not (self.path / MANIFEST).exists():
                    self._write_manifest(Manifest(spec))
                manifest = Manifest.read(self.path)
                # Another process may have made the manifest since the check above.
                if manifest.spec != spec:
                    raise StoreError(f"{self.path} holds another extraction: {manifest.spec.difference(spec)}.")
            self.finished = {e.file for e in manifest.shards if (self.path / e.file).exists()}
            for entry in manifest.shards:
                if entry.file in self.finished:
                    check_contents(self.path, entry)
        except BaseException:
            os.close(self._lock)
            raise

    def _check_target(self) -> None:
        """Find out before anything is made whether the store can be written here."""
        done = 0
        if not is_utf8(self.path):  # it could be written, and not be read
            raise StoreError(f"{self.path} must have a name in UTF-8: safetensors can read no other.")
        if (self.path / MANIFEST).exists():
            manifest = Manifest.read(self.path)
            if manifest.spec != self.spec:
                raise StoreError(f"{self.path} holds another extraction: {manifest.spec.difference(self.spec)}.")
            done = manifest.rows
        elif self.path.exists():
            if not self.path.is_dir():
                raise StoreError(f"{self.path} is a file; a feature store is a folder.")
            if any(not child.name.startswith(".") for child in self.path.iterdir()):
                raise StoreError(f"{self.path} is neither empty nor a feature store (it has no {MANIFEST}).")
        row = self.spec.num_features * dtype_of(self.spec.dtype).itemsize + 16
        needed = (self.spec.samples - done) * row
        existing = next(folder for folder in [self.path, *self.path.absolute().parents] if folder.exists())
        free = shutil.disk_usage(existing).free
        if needed > free:
            message = f"the store needs {needed / 1e9:.2f} GB more, the disk of {self.path} has {free / 1e9:.2f} GB free"
            raise OSError(errno.ENOSPC, message)

    def _claim(self, rank: int) -> None:
        """Hold byte 1 + rank of the lock file until this process ends."""
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 1 + rank)
        except BlockingIOError:
            raise StoreError(f"another process is writing to {self.path} as rank {rank}.") from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold byte 0 of the lock file: one process at a time changes the manifest."""
        fcntl.lockf(self._lock, fcntl.LOCK_EX, 1, 0)
        try:
            yield
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN, 1, 0)

    def _write_manifest(self, manifest: Manifest) -> None:
        write_atomically(self.path / MANIFEST, manifest.to_json().encode())

    def write(
        self, number: int, features: Tensor, labels: Tensor | None, index: Tensor, skipped: tuple[tuple[int, str], ...] = ()
    ) -> None:
        """Write one shard and enter it in the manifest.

        Args:
            number: of the shard.
            features: `[n, D]`, cast to the dtype of the store.
            labels: int64 `[n]`, or None in a store without labels.
            index: int64 `[n]`, the samples' places in the data set.
            skipped: `(sample, reason)` of the samples of this shard that could not be read.

        Raises:
            ValueError: a finite feature does not fit the dtype of the store, or labels are absent (or not wanted).
            OSError: the disk is full or the folder read-only; the store is as it was.
        """
        if (labels is not None) != self.spec.labels:
            raise ValueError(f"labels must {'' if self.spec.labels else 'not '}be given: the spec says so.")
        stored = features.detach().to("cpu", dtype_of(self.spec.dtype)).contiguous()
        finite = torch.isfinite(stored)
        if not finite.all() and torch.isfinite(features.cpu()[~finite]).any():
            raise ValueError(
                f"features up to {features[torch.isfinite(features)].abs().max():.3g} do not fit {self.spec.dtype}: "
                "store them as bfloat16 or float32."
            )
        tensors = {"features": stored, "index": index.contiguous()}
        if labels is not None:
            tensors["labels"] = labels.contiguous()
        # A single metadata key: with several, the order in the file (and so its hash) would be random.
        data = save(tensors, metadata={"identity": self.spec.identity})
        entry = ShardEntry(
            file=shard_name(number),
            rows=len(stored),
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            skipped=skipped,
            nonfinite_rows=int((~finite).any(1).sum()),
        )
        write_atomically(self.path / entry.file, data)
        with self._locked():
            self._write_manifest(Manifest.read(self.path).with_shard(entry))
            remember(self.path, entry)

    def close(self) -> None:
        """Let go of the locks."""
        os.close(self._lock)

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()
