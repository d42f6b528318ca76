"""Iteration over a feature store in batches: in order with read-ahead, or shuffled by shard and buffer."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sslk.features.manifest import Manifest, ShardEntry


class Batch(NamedTuple):
    """Rows of a store: features `[n, D]`, labels int64 `[n]` or None, indices int64 `[n]` into the data set."""

    features: Tensor
    labels: Tensor | None
    indices: Tensor

    def slice(self, start: int, stop: int | None = None) -> "Batch":
        """Rows start to stop, without a copy."""
        return Batch(
            self.features[start:stop], None if self.labels is None else self.labels[start:stop], self.indices[start:stop]
        )

    def take(self, rows: Tensor) -> "Batch":
        """The given rows, copied."""
        return Batch(self.features[rows], None if self.labels is None else self.labels[rows], self.indices[rows])


class Shards(Protocol):
    """What is read from a store: its folder, its manifest and its shards one by one."""

    path: Path
    manifest: Manifest

    def shard(self, entry: ShardEntry) -> Batch:
        """The rows of one shard."""


def concatenate(parts: list[Batch]) -> Batch:
    """The rows of all parts; a single part is returned as it is."""
    if len(parts) == 1:
        return parts[0]
    labels = [part.labels for part in parts if part.labels is not None]
    return Batch(
        torch.cat([part.features for part in parts]),
        torch.cat(labels) if labels else None,
        torch.cat([part.indices for part in parts]),
    )


def iterate(
    store: Shards, batch_size: int, *, shuffle: bool, seed: int, buffer_rows: int, rank: int, world_size: int
) -> Iterator[Batch]:
    """See `FeatureStore.batches`. Arguments are checked now, not at the first batch."""
    if batch_size < 1 or buffer_rows < 1:
        raise ValueError(f"batch_size and buffer_rows must be at least 1, got {batch_size} and {buffer_rows}.")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be in [0, world_size), got {rank} of {world_size}.")
    entries = list(store.manifest.shards)
    if not shuffle:
        return _cut(in_order(store, entries[rank::world_size]), batch_size)
    generator = torch.Generator().manual_seed(seed)
    # All ranks draw the same permutation, so that together they read every shard once.
    order = torch.randperm(len(entries), generator=generator).tolist()
    mine = [entries[i] for i in order[rank::world_size]]
    return _cut(_shuffled(in_order(store, mine), batch_size, buffer_rows, generator), batch_size)


def in_order(store: Shards, entries: Sequence[ShardEntry]) -> Iterator[Batch]:
    """The shards in order; while the consumer works on one, the disk reads the next."""
    for number, entry in enumerate(entries):
        for upcoming in entries[number + 1 : number + 2]:
            _read_ahead(store, upcoming)
        yield store.shard(entry)


def _read_ahead(store: Shards, entry: ShardEntry) -> None:
    """Ask the kernel to load a file into its cache in the background; returns at once."""
    if not hasattr(os, "posix_fadvise"):
        return
    with suppress(OSError):  # a missing file is refused by name when its turn comes
        fd = os.open(store.path / entry.file, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, entry.bytes, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(fd)


def _shuffled(pieces: Iterator[Batch], batch_size: int, buffer_rows: int, generator: torch.Generator) -> Iterator[Batch]:
    """Collect pieces into a buffer, permute it, pass on whole batches and keep the rest for the next round."""
    capacity = max(buffer_rows, batch_size)
    buffer: list[Batch] = []
    held = 0
    for piece in pieces:
        for start in range(0, len(piece.indices), capacity):
            part = piece.slice(start, start + capacity)
            buffer.append(part)
            held += len(part.indices)
            if held >= capacity:
                mixed = _permuted(buffer, generator)
                keep = held % batch_size
                yield mixed.slice(0, held - keep)
                buffer = [mixed.slice(held - keep)]
                held = keep
    if held:
        yield _permuted(buffer, generator)


def _permuted(buffer: list[Batch], generator: torch.Generator) -> Batch:
    rows = concatenate(buffer)
    return rows.take(torch.randperm(len(rows.indices), generator=generator))


def _cut(pieces: Iterator[Batch], batch_size: int) -> Iterator[Batch]:
    """Batches of `batch_size` rows out of pieces of any size: views, but copies where a batch spans two pieces."""
    pending: list[Batch] = []
    missing = batch_size
    for piece in pieces:
        start, rows = 0, len(piece.indices)
        while rows - start >= missing:
            yield concatenate([*pending, piece.slice(start, start + missing)])
            start += missing
            pending, missing = [], batch_size
        if start < rows:
            pending.append(piece.slice(start))
            missing -= rows - start
    if pending:
        yield concatenate(pending)
