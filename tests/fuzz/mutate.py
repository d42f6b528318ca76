"""Ways in which a file can be wrong: damage that fits any file, and wrong values in the places of its format."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.fuzz.wrong_arrays import npy_header, npz_member, pickled, zip_size
from tests.fuzz.wrong_json import (
    DEEP,
    json_deep,
    json_value,
    tensor_header,
    tensor_length,
    tensor_metadata,
    tensor_missing,
    tensor_numbers,
)

Rng = np.random.Generator
CELLS = (
    "",
    "=1+1",
    "nan",
    "inf",
    "1e400",
    "-1",
    "0.5",
    "4611686018427387904",
    "9" * 5000,
    "\0",
    'a"b',
    "x" * 200_000,
    "../outside",
    "/etc/passwd",
    "é",
)


def truncated(path: Path, rng: Rng) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(rng.integers(len(data)))])


def cut_by_one(path: Path, rng: Rng) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flipped(path: Path, rng: Rng) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(int(rng.integers(1, 9))):
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def flipped_at_the_start(path: Path, rng: Rng) -> None:
    data = bytearray(path.read_bytes())
    data[int(rng.integers(min(200, len(data))))] = int(rng.integers(256))
    path.write_bytes(data)


def overwritten(path: Path, rng: Rng) -> None:
    data = bytearray(path.read_bytes())
    start = int(rng.integers(len(data)))
    piece = rng.bytes(int(rng.integers(1, 65)))
    data[start : start + len(piece)] = piece
    path.write_bytes(data)


def emptied(path: Path, rng: Rng) -> None:
    path.write_bytes(b"")


def zeros(path: Path, rng: Rng) -> None:
    path.write_bytes(bytes(len(path.read_bytes())))


def with_nul(path: Path, rng: Rng) -> None:
    insert(path, rng, b"\0")


def not_utf8(path: Path, rng: Rng) -> None:
    insert(path, rng, b"\xff\xfe")


def insert(path: Path, rng: Rng, piece: bytes) -> None:
    data = path.read_bytes()
    at = int(rng.integers(len(data) + 1))
    path.write_bytes(data[:at] + piece + data[at:])


def utf16(path: Path, rng: Rng) -> None:
    path.write_bytes(path.read_bytes().decode("latin-1").encode("utf-16"))


def doubled(path: Path, rng: Rng) -> None:
    path.write_bytes(2 * path.read_bytes())


def missing(path: Path, rng: Rng) -> None:
    path.unlink()


def a_pipe(path: Path, rng: Rng) -> None:
    path.unlink()
    os.mkfifo(path)


def a_folder(path: Path, rng: Rng) -> None:
    path.unlink()
    path.mkdir()


def a_link_outside(path: Path, rng: Rng) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def a_link_to_itself(path: Path, rng: Rng) -> None:
    path.unlink()
    path.symlink_to(path.name)


def a_device(path: Path, rng: Rng) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def huge(path: Path, rng: Rng) -> None:
    with path.open("r+b") as stream:
        stream.truncate(1 << 40)  # sparse


def only_zeros_and_huge(path: Path, rng: Rng) -> None:
    with path.open("wb") as stream:
        stream.truncate(1 << 40)


ANY = (
    truncated,
    truncated,
    truncated,
    cut_by_one,
    flipped,
    flipped,
    flipped,
    flipped_at_the_start,
    flipped_at_the_start,
    overwritten,
    emptied,
    zeros,
    with_nul,
    not_utf8,
    utf16,
    doubled,
    missing,
    a_pipe,
    a_folder,
    a_link_outside,
    a_link_to_itself,
    a_device,
    huge,
    only_zeros_and_huge,
)


def csv_cell(path: Path, rng: Rng) -> None:
    rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    row = rows[int(rng.integers(len(rows)))]
    kind = rng.random()
    if kind < 0.15:
        row.pop()
    elif kind < 0.25:
        row.append("more")
    elif kind < 0.3:
        rows.insert(0, [])
    elif kind < 0.35:
        rows.append(rows[-1])
    else:
        row[int(rng.integers(len(row)))] = CELLS[int(rng.integers(len(CELLS)))]
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    path.write_text(buffer.getvalue(), encoding="utf-8")


def csv_header_only(path: Path, rng: Rng) -> None:
    path.write_bytes(path.read_bytes().splitlines()[0])


def csv_open_quote(path: Path, rng: Rng) -> None:
    path.write_bytes(b'"' + path.read_bytes())


def line(path: Path, rng: Rng) -> None:
    """One line of a text gone, cut, or long."""
    lines = path.read_text(encoding="utf-8").splitlines()
    at = int(rng.integers(len(lines)))
    kind = int(rng.integers(4))
    lines[at] = (lines[at][: len(lines[at]) // 2], "", "x" * 300_000, "../outside\t../outside\t1e400")[kind]
    path.write_text("\n".join(lines), encoding="utf-8")


LAUGHS = "a: &a [x]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} {{x: *{chr(97 + i)}, y: *{chr(97 + i)}}}\n" for i in range(24))
YAMLS = (
    "[" * DEEP,
    LAUGHS,
    "store: {x: " + "{z: " * 2000 + "1" + "}" * 2001,
    "- a\n- b\n",
    "a: &a {b: *a}\n",
    "? [x]\n: y\n",
    "\t- x",
    "store: [",
    "? {a: b}\n: c\n",
    "!!python/object:os.system x\n",
    "store: 1e400\n",
    'store: "\\0"\n',
    "store: null\n",
    "store: a\nstore: b\n",
    "store: &s a\njson: *s\n",
    "store: 2026-13-45\n",
    "store: !!binary x\n",
    "store: !!timestamp x\n",
    "---\na: 1\n---\nb: 2\n",
    "%YAML 9.9\n---\nstore: a\n",
    "<<: 7\n",
    "store: *nowhere\n",
    "null: 1\n",
    "json: 7\n",
    "config: x\n",
    "store: '" + "x" * 300_000 + "'\n",
)


def yaml_text(path: Path, rng: Rng) -> None:
    path.write_text(YAMLS[int(rng.integers(len(YAMLS)))])


Mutation = Callable[[Path, Rng], None]
BY_SUFFIX: dict[str, tuple[Mutation, ...]] = {
    ".json": (*(json_value,) * 16, json_deep),
    ".safetensors": (
        *(tensor_header,) * 8,
        *(tensor_metadata,) * 8,
        *(tensor_numbers,) * 6,
        *(tensor_missing,) * 4,
        tensor_length,
    ),
    ".npz": (*(npz_member,) * 16, zip_size, zip_size),
    ".npy": (npy_header,) * 8,
    ".csv": (*(csv_cell,) * 12, csv_header_only, csv_open_quote),
    ".txt": (line,) * 8,
    ".yaml": (yaml_text,) * 24,
    ".pth": (*(pickled,) * 12, zip_size),
}


def mutations(path: Path) -> tuple[Mutation, ...]:
    """What can be done to a file of this name."""
    return (*ANY, *BY_SUFFIX.get(path.suffix, ()))
