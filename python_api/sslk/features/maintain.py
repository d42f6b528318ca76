"""Looking after feature stores: what is inside, is it intact, several into one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from os import PathLike
from pathlib import Path

from sslk.features.intact import check_contents, open_shard
from sslk.features.manifest import Manifest, ShardEntry, StoreError, StoreSpec, shard_name
from sslk.features.names import NAMES, check_names, names_of, packed, sha256_of, write_names
from sslk.features.store import FeatureStore
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
            **({"feature": spec.feature} if spec.feature else {}),
            "dtype": spec.dtype,
            "signed": spec.signed,
            "shards": self.shards,
            "bytes": self.bytes,
            "complete": self.complete,
            "unreadable": len(self.skipped),
            "nonfinite_rows": self.nonfinite_rows,
            **({"imported": "yes, no image is known", "names": bool(spec.names)} if spec.imported else {}),
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
        StoreError: names every damaged, foreign or missing shard, the names of samples where they are not those that
            were written, and every file of tensors that the manifest does not know.
    """
    folder = Path(path)
    manifest = Manifest.read(folder)
    complaints = [complaint for entry in manifest.shards if (complaint := _complaint(folder, entry, manifest.spec))]
    try:
        check_names(folder, manifest.spec)
    except StoreError as error:
        complaints.append(str(error))
    known = {entry.file for entry in manifest.shards} | ({NAMES} if manifest.spec.names else set())
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
    next. Names of samples are kept where all stores have them.

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
        spec, pieces, named = first, _union(stores), stores[:1]
    else:
        (spec, pieces), named = _appended(stores), stores
    names = _names(named)
    if names:
        spec = replace(spec, names=sha256_of(names))
    with StoreWriter(out, spec) as writer:
        if names:
            write_names(Path(out), names, spec)
        for number, (store, entry, offset) in pieces.items():
            if shard_name(number) not in writer.finished:
                shard = store.shard(entry)
                skipped = tuple((sample + offset, why) for sample, why in entry.skipped)
                writer.write(number, shard.features, shard.labels, shard.indices + offset, skipped)
    return FeatureStore(out)


def _names(stores: list[FeatureStore]) -> bytes:
    """The file of all names; empty where a store has none."""
    found = [names for store in stores if (names := names_of(store)) is not None]
    return packed([name for names in found for name in names]) if len(found) == len(stores) else b""


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
        if spec.imported and first.imported:  # what was found in the features, and nobody stated
            alike = replace(alike, content=first.content, names=first.names, signed=first.signed)
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
        signed=any(store.spec.signed for store in stores),
        content=sha256("".join(store.spec.content for store in stores).encode()).hexdigest() if first.imported else "",
        names="",
    )
    return merged, pieces
