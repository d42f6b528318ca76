"""Names of the samples of a store: a file of its own in the folder, mapped into memory when a name is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save

from sslk.features.intact import file_sha256
from sslk.features.manifest import StoreError, StoreSpec
from sslk.features.store import FeatureStore
from sslk.files.tensors import read_tensors, require_tensors
from sslk.results.atomic import write_atomically

NAMES = "names.safetensors"


class SampleNames(Sequence[str]):
    """The names of all samples of a data set, by their indices; unique or not.

    Args:
        letters: uint8, the names in UTF-8, one after another.
        ends: int64 `[N]`, where each ends.
    """

    def __init__(self, letters: torch.Tensor, ends: torch.Tensor) -> None:
        self._letters, self._ends = letters, ends

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # one name only, as a row has one
        if not 0 <= index < len(self):
            raise IndexError(f"index must be in [0, {len(self)}), got {index}.")
        start = int(self._ends[index - 1]) if index else 0
        return self._letters[start : int(self._ends[index])].numpy().tobytes().decode("utf-8", "surrogateescape")


def packed(names: Sequence[str]) -> bytes:
    """The file that holds these names; a name that is no UTF-8 keeps its bytes.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / NAMES
    >>> file.write_bytes(packed(["a.png", "", "b\\udcff.png"])) > 0
    True
    >>> list(_read(file))
    ['a.png', '', 'b\\udcff.png']
    """
    parts = [name.encode("utf-8", "surrogateescape") for name in names]
    ends = torch.tensor([len(part) for part in parts], dtype=torch.int64).cumsum(0)
    letters = torch.frombuffer(bytearray(b"".join(parts)) or bytearray(1), dtype=torch.uint8)[: int(ends[-1]) if parts else 0]
    return save({"letters": letters.contiguous(), "ends": ends})


def sha256_of(data: bytes) -> str:
    """As it stands in the spec of a store with this file of names."""
    return hashlib.sha256(data).hexdigest()


def write_names(folder: Path, data: bytes, spec: StoreSpec) -> None:
    """Put the file of names into a store's folder, unless it lies there."""
    if not (folder / NAMES).exists() or file_sha256(folder / NAMES) != spec.names:
        write_atomically(folder / NAMES, data)


def check_names(folder: Path, spec: StoreSpec) -> None:
    """Refuse a file of names that is missing or not the one that was written.

    Raises:
        StoreError: it is.
    """
    if spec.names and not (folder / NAMES).exists():
        raise StoreError(f"{NAMES} in {folder} is missing: import the features again.")
    if spec.names and file_sha256(folder / NAMES) != spec.names:
        raise StoreError(f"{NAMES} in {folder} is altered: its SHA-256 is not the manifest's; import the features again.")


def names_of(store: FeatureStore) -> SampleNames | None:
    """The names of a store's samples, by their indices; None where it has none.

    Raises:
        StoreError: the file of names is missing or altered.
    """
    if not store.spec.names:
        return None
    check_names(store.path, store.spec)
    names = _read(store.path / NAMES)
    if len(names) != store.spec.samples:
        raise StoreError(f"{NAMES} in {store.path} names {len(names)} samples, the store has {store.spec.samples}.")
    return names


def _read(path: Path) -> SampleNames:
    tensors, _ = read_tensors(path, "the names", StoreError)
    require_tensors(tensors, {"letters": "uint8 1", "ends": "int64 1"}, str(path), StoreError)
    ends = tensors["ends"]
    if len(ends) and (int(ends[0]) < 0 or bool((ends.diff() < 0).any()) or int(ends[-1]) > len(tensors["letters"])):
        raise StoreError(f"{path} is damaged: its names do not follow one another.")
    return SampleNames(tensors["letters"], ends)
