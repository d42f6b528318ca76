"""Whether the shards of a feature store are intact: sizes, hashes, headers, and the notes that save hashing twice."""

import hashlib
import json
from pathlib import Path

import torch

from sslk.features.manifest import ShardEntry, StoreError, StoreSpec, short
from sslk.features.reader import Batch
from sslk.files.regular import require_regular_file
from sslk.files.tensors import read_tensors
from sslk.files.text import read_json
from sslk.results.atomic import write_atomically

CHECKED = ".checked.json"


def dtype_of(name: str) -> torch.dtype:
    """The torch dtype of a name in a manifest."""
    names = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if name not in names:
        raise ValueError(f"dtype must be one of {', '.join(names)}, got {name!r}.")
    return names[name]


def check_size(folder: Path, entry: ShardEntry) -> None:
    """Refuse a shard that is missing or has another size than the manifest says."""
    try:
        size = require_regular_file(folder / entry.file, "the shard")
    except FileNotFoundError:
        raise StoreError(f"{entry.file} is missing from {folder}: run the extraction again.") from None
    except ValueError as error:
        raise StoreError(str(error)) from None
    if size != entry.bytes:
        what = "truncated" if size < entry.bytes else "altered"
        raise StoreError(
            f"{entry.file} in {folder} is {what}: it has {size} bytes, the manifest says {entry.bytes}; "
            "delete the file and run the extraction again."
        )


def check_contents(folder: Path, entry: ShardEntry, *, always: bool = False) -> None:
    """Refuse a shard whose SHA-256 is not the recorded one; `always` hashes also a file that looks unchanged."""
    check_size(folder, entry)
    path = folder / entry.file
    stamp = [path.stat().st_mtime_ns, entry.bytes, entry.sha256]
    if not always and read_stamps(folder).get(entry.file) == stamp:
        return
    found = file_sha256(path)
    if found != entry.sha256:
        raise StoreError(
            f"{entry.file} in {folder} is altered: its SHA-256 is {found[:12]}..., the manifest says "
            f"{entry.sha256[:12]}...; delete the file and run the extraction again."
        )
    remember(folder, entry)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def read_stamps(folder: Path) -> dict[str, list[object]]:
    """Times of modification at which shards were last found intact; empty where there are none."""
    try:
        stamps = read_json(folder / CHECKED, "the times of checks")
    except (OSError, ValueError):
        return {}
    return stamps if isinstance(stamps, dict) else {}


def remember(folder: Path, entry: ShardEntry) -> None:
    """Note that a shard is intact as it lies there. Only a saving: a store that cannot be written to does without."""
    stamp = [(folder / entry.file).stat().st_mtime_ns, entry.bytes, entry.sha256]
    try:
        write_atomically(folder / CHECKED, json.dumps({**read_stamps(folder), entry.file: stamp}).encode())
    except OSError:
        return


def open_shard(folder: Path, entry: ShardEntry, spec: StoreSpec) -> Batch:
    """Map a shard into memory and compare its header with the manifest; contents are not hashed."""
    path = folder / entry.file
    tensors, metadata = read_tensors(path, "the shard", StoreError)
    identity = metadata.get("identity")
    if identity != spec.identity:
        raise StoreError(
            f"{entry.file} in {folder} is from another extraction (model, weights, data or transform differ): "
            f"its header says {short(identity)}, the manifest {spec.identity[:12]}...; delete the file."
        )
    wanted = {"features": ((entry.rows, spec.num_features), dtype_of(spec.dtype)), "index": ((entry.rows,), torch.int64)}
    if spec.labels:
        wanted["labels"] = ((entry.rows,), torch.int64)
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    if found != wanted:
        raise StoreError(f"{entry.file} in {folder} holds {found}, the manifest promises {wanted}.")
    index = tensors["index"]
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < spec.samples:
        raise StoreError(
            f"{entry.file} in {folder} numbers its samples from {int(index.min())} to {int(index.max())}, and the data "
            f"set has {spec.samples}."
        )
    return Batch(tensors["features"], tensors.get("labels"), tensors["index"])
