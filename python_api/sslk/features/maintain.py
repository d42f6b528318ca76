"""Looking after feature stores: what is inside, is it intact, several into one, out to NumPy."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from hashlib import sha256
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sslk.features.manifest import MANIFEST, Manifest, ShardEntry, StoreError, StoreSpec, shard_name
from sslk.features.store import FeatureStore, check_contents, open_shard
from sslk.features.writer import StoreWriter


@dataclass(frozen=True)
class StoreInfo:
    """What a store holds and how far it is.

    Attributes:
        path: the folder.
        spec: model, weights, data set, transform, dtype, width.
        rows: rows stored.
        shards: finished shards, of `spec.shard_count`.
        bytes: size of the finished shards.
        complete: whether the extraction came to its end.
        skipped: `(sample, reason)` of the samples that could not be read.
        nonfinite_rows: rows with a NaN or an infinity.
    """

    path: Path
    spec: StoreSpec
    rows: int
    shards: int
    bytes: int
    complete: bool
    skipped: tuple[tuple[int, str], ...]
    nonfinite_rows: int

    def described(self) -> dict[str, object]:
        """All of it by name, for a terminal."""
        spec = self.spec
        return {
            "path": self.path,
            "model": spec.model,
            "data": spec.dataset,
            "samples": self.rows,
            "features": spec.num_features,
            "dtype": spec.dtype,
            "signed": spec.signed,
            "shards": self.shards,
            "bytes": self.bytes,
            "complete": self.complete,
            "unreadable": len(self.skipped),
            "nonfinite_rows": self.nonfinite_rows,
        }


def store_info(path: str | PathLike[str]) -> StoreInfo:
    """Describe a store from its manifest; shards are not read.

    Raises:
        StoreError: path is no store, or a shard is missing or truncated.
    """
    store = FeatureStore(path)
    shards = store.manifest.shards
    return StoreInfo(
        path=store.path,
        spec=store.spec,
        rows=len(store),
        shards=len(shards),
        bytes=sum(entry.bytes for entry in shards),
        complete=store.complete,
        skipped=tuple(pair for entry in shards for pair in entry.skipped),
        nonfinite_rows=sum(entry.nonfinite_rows for entry in shards),
    )


def store_verify(path: str | PathLike[str]) -> int:
    """Read every shard and compare its SHA-256, header, shapes and dtypes with the manifest.

    Returns:
        The number of shards, all intact.

    Raises:
        StoreError: names every damaged, foreign or missing shard and every shard file that the manifest does not know.
    """
    folder = Path(path)
    manifest = Manifest.read(folder)
    complaints = [complaint for entry in manifest.shards if (complaint := _complaint(folder, entry, manifest.spec))]
    known = {entry.file for entry in manifest.shards}
    complaints += [
        f"{file.name} in {folder} is not in the manifest."
        for file in sorted(folder.glob("*.safetensors"))
        if file.name not in known
    ]
    if complaints:
        raise StoreError("\n".join(complaints))
    return len(manifest.shards)


def _complaint(folder: Path, entry: ShardEntry, spec: StoreSpec) -> str:
    """What is wrong with a shard; empty where nothing is."""
    try:
        check_contents(folder, entry, always=True)
        open_shard(folder, entry, spec)
    except StoreError as error:
        return str(error)
    return ""


def store_merge(sources: Sequence[str | PathLike[str]], out: str | PathLike[str]) -> FeatureStore:
    """Merge stores of one model into one: parts of a data set, or several data sets one after another.

    Stores of the same extraction, each with some of its shards (machines without a shared disk), become the whole.
    Stores of different data sets with the same classes and transform are appended; indices count on from one to the
    next.

    Args:
        sources: stores, at least one; those of different data sets complete.
        out: folder of the merged store; an interrupted merge goes on.

    Raises:
        ValueError: no sources.
        StoreError: a source is damaged, is of another model, dtype, transform or classes (a shard and the fields that
            differ are named), or holds samples that another has too.
        OSError: the disk is full or out cannot be written to.
    """
    stores = [FeatureStore(source) for source in sources]
    if not stores:
        raise ValueError("sources must name at least one store, got none.")
    first = stores[0].spec
    if all(store.spec.identity == first.identity for store in stores):
        spec, pieces = first, _union(stores)
    else:
        spec, pieces = _appended(stores)
    with StoreWriter(out, spec) as writer:
        for number, (store, entry, offset) in pieces.items():
            if shard_name(number) not in writer.finished:
                shard = store.shard(entry)
                skipped = tuple((sample + offset, why) for sample, why in entry.skipped)
                writer.write(number, shard.features, shard.labels, shard.indices + offset, skipped)
    return FeatureStore(out)


_Pieces = dict[int, tuple[FeatureStore, ShardEntry, int]]


def _union(stores: list[FeatureStore]) -> _Pieces:
    """The shards of parts of one extraction, under their own numbers."""
    pieces: _Pieces = {}
    for store in stores:
        if store.spec.shard_rows != stores[0].spec.shard_rows:
            raise StoreError(f"{store.path} cannot be merged: {stores[0].spec.difference(store.spec)}.")
        for entry in store.manifest.shards:
            number = int(entry.file.removeprefix("shard-").removesuffix(".safetensors"))
            other = pieces.setdefault(number, (store, entry, 0))
            if other[1].sha256 != entry.sha256:
                raise StoreError(f"{entry.file} of {store.path} and of {other[0].path} hold the same samples, differently.")
    return pieces


def _appended(stores: list[FeatureStore]) -> tuple[StoreSpec, _Pieces]:
    """The spec of several data sets in a row, and their shards, numbered anew."""
    first = stores[0].spec
    pieces: _Pieces = {}
    offset = 0
    taken: dict[str, FeatureStore] = {}
    for store in stores:
        spec = store.require().spec
        other = taken.setdefault(spec.identity, store)
        if other is not store:
            raise StoreError(f"{store.path} holds the samples that {other.path} holds too: name one of them.")
        alike = replace(
            spec, dataset=first.dataset, data_hash=first.data_hash, samples=first.samples, shard_rows=first.shard_rows
        )
        if alike != first:
            raise StoreError(
                f"{store.manifest.shards[0].file} of {store.path} cannot be merged with {stores[0].path}: "
                f"{first.difference(alike)}."
            )
        for entry in store.manifest.shards:
            pieces[len(pieces)] = (store, entry, offset)
        offset += spec.samples
    hashes = "".join(store.spec.data_hash for store in stores)
    merged = replace(
        first,
        dataset=" + ".join(store.spec.dataset for store in stores),
        data_hash=sha256(hashes.encode()).hexdigest(),
        samples=offset,
    )
    return merged, pieces


def store_export(path: str | PathLike[str], out: str | PathLike[str]) -> list[Path]:
    """Write a store as NumPy files `features.npy` `[N, D]`, `labels.npy` and `indices.npy` `[N]` in the folder `out`.

    Never more than one shard is in memory. bfloat16, which NumPy lacks, becomes float32. Files appear only when they
    are whole.

    Returns:
        The files.

    Raises:
        StoreError: the store is damaged, incomplete or empty.
        OSError: the disk is full or out cannot be written to.
    """
    store = FeatureStore(path).require()
    folder = Path(out)
    if (folder / MANIFEST).exists():
        raise StoreError(f"out must not be a feature store, got {folder}.")
    folder.mkdir(parents=True, exist_ok=True)
    names = [name for name in ("features", "indices", "labels") if name != "labels" or store.has_labels]
    temporary = {name: folder / f".{name}.npy.tmp" for name in names}
    try:
        # Ordinary writes: a full disk is an OSError then, where one that is met through a mapping ends the process.
        with ExitStack() as stack:
            files = {name: stack.enter_context(open(temporary[name], "wb")) for name in names}
            for name, file in files.items():
                width = (store.num_features,) if name == "features" else ()
                dtype = _exported(torch.empty(0, dtype=store.dtype if name == "features" else torch.int64)).dtype
                header = np.lib.format.header_data_from_array_1_0(np.empty((0, *width), dtype))
                np.lib.format.write_array_header_1_0(file, {**header, "shape": (len(store), *width)})
            for entry in store.manifest.shards:
                shard = store.shard(entry)
                for name, file in files.items():
                    file.write(_exported(getattr(shard, name)).reshape(-1).view(np.uint8).data)
            for file in files.values():
                file.flush()
                os.fsync(file.fileno())
        for name in names:
            os.replace(temporary[name], folder / f"{name}.npy")
    finally:
        for path_left in temporary.values():
            path_left.unlink(missing_ok=True)
    return [folder / f"{name}.npy" for name in names]


def _exported(tensor: Tensor) -> np.ndarray:
    """As NumPy writes it: bfloat16, which NumPy lacks, as float32."""
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).contiguous().numpy()
