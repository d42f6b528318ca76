"""The two formats of `torch.save`, mapped into memory: the zip archive, and the older row of pickles with storages behind."""

from __future__ import annotations

import mmap
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch

from sslk.files.arrays import require_possible_size
from sslk.models.pickle_globals import Table
from sslk.models.pickles import Unpickler
from sslk.models.stand_ins import Damaged, Refused, Stored, Unreadable

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_LEAST_BUDGET = 64 << 20
_EXPANSION = 16  # weights hardly compress; a file that unpacks to more than this many times its size is made to
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_SAVE_STATE = "load it where you trust it and save its state_dict() with torch.save"


class Storages:
    """The bytes of a file as storages: mapped where they lie in order, copied (within a budget) where they do not.

    Args:
        path: of a file that is not empty.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            # Private: pages are read when a tensor is, and what is written to a tensor never reaches the file.
            self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self.size = len(self.bytes)
        self.storage = torch.frombuffer(self.bytes, dtype=torch.uint8).untyped_storage()
        self.budget = max(_LEAST_BUDGET, _EXPANSION * self.size)

    def spend(self, size: int) -> None:
        self.budget -= size
        if self.budget < 0:
            raise Refused(f"it unpacks to more than {_EXPANSION} times its size; save it again without compression")

    def at(self, start: int, size: int, alignment: int) -> torch.UntypedStorage:
        if start < 0 or size < 0 or start + size > self.size:
            raise Damaged(f"it ends before the {size} bytes of a storage at {start}")
        if size == 0:
            return torch.UntypedStorage(0)
        part = self.storage[start : start + size]
        if start % alignment == 0:
            return part
        self.spend(size)
        return part.clone()


def read_archive(path: Path) -> tuple[Any, tuple[str, ...]]:
    """What is in a file of `torch.save`, and the names in it that nothing stands for.

    Raises:
        Damaged: it is no such file.
        Refused: it is another one, which the message names.
    """
    storages, table = Storages(path), Table()
    # By its first bytes, as torch tells them apart: an end of a zip archive can stand in the numbers of any file.
    content = _read_zip(path, storages, table) if storages.bytes[:4] == b"PK\3\4" else _read_legacy(storages, table)
    return content, tuple(table.ignored)


def _read_zip(path: Path, storages: Storages, table: Table) -> Any:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        if len(members) < len(archive.infolist()):
            raise Damaged("it is a zip archive with two members of one name")
        _refuse_other_archives(members)
        root = next((name.removesuffix("data.pkl") for name in members if name.endswith("/data.pkl")), None)
        if root is None:
            raise Refused("it is a zip archive without the data.pkl of torch.save; unpack it and give the checkpoint inside")

        def read(name: str) -> bytes:
            info = members[name]
            if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise Refused("it is encrypted or compressed in a way that torch.save does not write")
            require_possible_size(info, storages.size)
            storages.spend(info.file_size)
            return archive.read(info)

        if f"{root}byteorder" in members and read(f"{root}byteorder") == b"big":
            raise Refused("it was written by a big-endian machine; save it again on a little-endian one")
        found: dict[tuple[str, Any], Stored | Unreadable] = {}

        def load_persistent(saved: Any) -> Any:
            key, dtype, location, size, _ = _storage(saved)
            if location == "meta":
                return Unreadable("a tensor without values (on the meta device)")
            if (key, dtype) not in found:
                name = f"{root}data/{key}"
                if name not in members or size > members[name].file_size:
                    raise Damaged(f"it lacks the {size} bytes of storage {key[:40]!r}")
                if members[name].compress_type == zipfile.ZIP_STORED and not members[name].flag_bits & 1:
                    found[key, dtype] = Stored(storages.at(_start(members[name], storages), size, _alignment(dtype)), dtype)
                else:
                    content = bytearray(read(name))  # of its own, so that the tensor can be written to
                    whole = torch.frombuffer(content, dtype=torch.uint8).untyped_storage() if content else storages.at(0, 0, 1)
                    found[key, dtype] = Stored(whole[:size], dtype)
            return found[key, dtype]

        return Unpickler(read(f"{root}data.pkl"), table, load_persistent).load()


def _refuse_other_archives(members: dict[str, zipfile.ZipInfo]) -> None:
    names = list(members)
    if any(name.endswith("/constants.pkl") for name in names):
        raise Refused(
            "it is a TorchScript archive, a program of torch.jit.save; " + _SAVE_STATE.replace("it", "it (torch.jit.load)", 1)
        )
    exported = ("/archive_format", "models/model.json", "serialized_exported_program.json")
    if any(name.endswith(exported) for name in names):
        raise Refused("it is a program of torch.export (.pt2); load it with torch.export.load and save its state_dict")
    if names and all(name.endswith(".npy") for name in names):
        raise Refused(
            "it is an .npz of NumPy arrays, as JAX code writes them; timm reads those of its networks: "
            "timm.create_model(NAME, checkpoint_path=FILE), then save its state_dict() with torch.save"
        )
    if "model.weights.h5" in names:
        raise Refused("it is a model of Keras; convert its weights to PyTorch and save the state_dict")


def _start(info: zipfile.ZipInfo, storages: Storages) -> int:
    """Where a member's bytes begin: behind its own header, whose length only that header tells."""
    header = storages.bytes[info.header_offset : info.header_offset + _LOCAL_HEADER.size]
    signature, *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    if signature != b"PK\3\4":
        raise Damaged("a member of its zip archive does not begin where it should")
    return info.header_offset + _LOCAL_HEADER.size + name_length + extra_length


def _storage(saved: Any) -> tuple[str, torch.dtype | None, Any, int, Any]:
    """Key, dtype, location, bytes and view of a storage by its persistent id."""
    if not isinstance(saved, tuple) or len(saved) not in (5, 6) or saved[0] != "storage":
        raise Damaged("its pickle refers to something outside that is no storage")
    _, kind, key, location, count, *view = saved
    if not isinstance(kind, Stored) or not isinstance(key, str) or type(count) is not int or not 0 <= count < 2**62:
        raise Damaged("its pickle describes a storage by what describes none")
    return key, kind.dtype, location, count * (kind.dtype.itemsize if kind.dtype else 1), view[0] if view else None


def _alignment(dtype: torch.dtype | None) -> int:
    return min(dtype.itemsize, 8) if dtype else 8


def _read_legacy(storages: Storages, table: Table) -> Any:
    if storages.bytes[257:262] == b"ustar":
        raise Refused(f"it is a tar archive (the format of PyTorch before 0.2, or a packed folder); unpack it, or {_SAVE_STATE}")
    position = 0

    def read(load_persistent: Any = _no_persistent, find: Any = table) -> Any:
        nonlocal position
        unpickler = Unpickler(storages.bytes, find, load_persistent, position)
        content = unpickler.load()
        position = unpickler.position
        return content

    if storages.bytes[:1] != b"\x80":
        raise Damaged("neither a torch.save nor a safetensors file")
    if read() != _MAGIC_NUMBER:
        raise Refused(f"it is a pickle that torch.save did not write; {_SAVE_STATE}")
    read()
    system = read()
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise Refused("it was written by a big-endian machine; save it again on a little-endian one")
    begin = position
    # The storages lie behind the pickle that uses them, so it is read twice: for their sizes, then for its tensors.
    described: dict[str, tuple[torch.dtype | None, int]] = {}

    def describe(saved: Any) -> Any:
        if isinstance(saved, tuple) and saved[:1] == ("module",) and len(saved) > 1:
            return saved[1]
        key, dtype, _, size, _ = _storage(saved)
        described.setdefault(key, (dtype, size))
        return Stored(None, dtype)

    read(describe)
    keys = read()
    if not isinstance(keys, list) or any(key not in described for key in keys if isinstance(key, str)):
        raise Damaged("the list of its storages is damaged")
    placed: dict[str, Stored] = {}
    for key in keys:
        dtype, size = described[key]
        (count,) = struct.unpack("<q", storages.bytes[position : position + 8])
        if count * (dtype.itemsize if dtype else 1) != size:
            raise Damaged(f"a storage in it says {count} elements, which is not what its pickle says")
        placed[key] = Stored(storages.at(position + 8, size, _alignment(dtype)), dtype)
        position += 8 + size
    position = begin
    return read(lambda saved: _placed(saved, placed))


def _placed(saved: Any, placed: dict[str, Stored]) -> Any:
    if isinstance(saved, tuple) and saved[:1] == ("module",) and len(saved) > 1:
        return saved[1]
    key, dtype, location, _, view = _storage(saved)
    if location == "meta":
        return Unreadable("a tensor without values (on the meta device)")
    stored = placed.get(key)
    if stored is None or stored.storage is None:
        raise Damaged(f"it lacks the storage {key[:40]!r}")
    if view is None:
        return stored
    if not isinstance(view, tuple) or len(view) != 3 or any(type(n) is not int or not 0 <= n < 2**62 for n in view[1:]):
        raise Damaged("its pickle describes a part of a storage by what describes none")
    width = dtype.itemsize if dtype else 1
    first, last = view[1] * width, (view[1] + view[2]) * width
    if last > stored.storage.nbytes():
        raise Damaged(f"a part of the storage {key[:40]!r} lies outside it")
    return Stored(stored.storage[first:last], dtype)


def _no_persistent(saved: Any) -> Any:
    raise Damaged("its pickle refers to something outside where nothing can be")
