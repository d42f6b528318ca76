"""Wrong NumPy files and pickles: headers that lie, numbers that no such array holds, what a checkpoint should not hold."""

from __future__ import annotations

import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

Rng = np.random.Generator


def npy(array: np.ndarray, shape: Any = None, dtype: Any = None) -> bytes:
    """A .npy, its header saying what it likes."""
    header = {"descr": dtype or array.dtype.str, "fortran_order": False, "shape": array.shape if shape is None else shape}
    text = repr(header).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + array.tobytes()


SHAPES = ((175 << 40,), (2**62, 2**62), (3, 0, 8, 3), (0,), (0, 2**62), (-1,), (), (3, 8, 8, 3, 1), "(", (2.5,), ("a",), None)
TYPES = ("|O", "<U5", "<f8", "|V4", "<M8[s]", "<U0", "[('a','<i4')]", "<U99999999", 7, "nonsense", "<c16")


def npy_header(path: Path, rng: Rng) -> None:
    path.write_bytes(wrong_npy(np.load(path), rng))


def wrong_npy(array: np.ndarray, rng: Rng) -> bytes:
    if rng.random() < 0.5:
        return npy(array, SHAPES[int(rng.integers(len(SHAPES)))])
    if rng.random() < 0.1:
        return npy(array, dtype="(" * 5000)
    return npy(array, dtype=TYPES[int(rng.integers(len(TYPES)))])


def wrong_array(array: np.ndarray, rng: Rng) -> np.ndarray:
    """Numbers that no such array should hold."""
    if array.dtype.kind not in "iub":
        return array[:0]
    return (
        np.where(np.arange(array.size).reshape(array.shape) == array.size - 1, 300_000_000, array.astype(np.int64)),
        np.full(array.shape, 2**62),
        np.full(array.shape, 2**63 + 5, dtype=np.uint64),
        -1 - array.astype(np.int64),
        array.astype(np.float32) + 0.5,
        array[:-1],
        array[:0],
        array[None],
        np.full(array.shape, np.nan),
    )[int(rng.integers(9))]


def npz_member(path: Path, rng: Rng) -> None:
    """One array with a wrong header, wrong numbers, missing, twice, or under a size in the zip's list that is not its own."""
    with np.load(path) as found:
        arrays = dict(found)
    name = list(arrays)[int(rng.integers(len(arrays)))]
    content = {key: npy(array) for key, array in arrays.items()}
    kind = int(rng.integers(5))
    if kind == 0:
        content[name] = wrong_npy(arrays[name], rng)
    elif kind in (1, 2):
        content[name] = npy(wrong_array(arrays[name], rng))
    elif kind == 3:
        del content[name]
    compress = zipfile.ZIP_DEFLATED if rng.random() < 0.5 else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", compress) as archive:
        for key, data in content.items():
            archive.writestr(f"{key}.npy", data)
        if kind == 4:
            archive.writestr(f"{name}.npy", content[name] + b" ")  # warns of the second entry


def zip_size(path: Path, rng: Rng) -> None:
    """A declared size of 4 GB in the zip's list of members."""
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\x01\x02")
    data[at + 24 : at + 28] = b"\xfe\xff\xff\xff"
    if rng.random() < 0.5:
        data[at + 20 : at + 24] = b"\xfe\xff\xff\xff"
    path.write_bytes(data)


def pickled(path: Path, rng: Rng) -> None:
    """What torch.save can hold and no checkpoint should."""
    deep: Any = {}
    for _ in range(1500):
        deep = {"a": deep}
    cycle: dict[str, Any] = {}
    cycle["state_dict"] = cycle
    state = torch.load(path, weights_only=True)
    first = next(iter(state))
    plain = torch.ones(4)
    strange: tuple[Any, ...] = (
        deep,
        cycle,
        [1],
        None,
        7,
        {},
        {1: plain},
        {"state_dict": None},
        {"state_dict": {"a": 1}},
        {"\ud800": plain},
        {**state, first: None},
        {**state, first: torch.zeros(0)},
        {**state, first: torch.ones(1).expand(1 << 40)},
        {**state, first: torch.empty(4, device="meta")},
        {**state, first: plain.to_sparse()},
        {key: value.to(torch.complex64) for key, value in state.items()},
        {key: torch.empty_like(value, device="meta") for key, value in state.items()},
        {key: value.to_sparse() for key, value in state.items()},
    )
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)  # of the writer alone
    try:
        torch.save(strange[int(rng.integers(len(strange)))], path)
    finally:
        sys.setrecursionlimit(limit)
