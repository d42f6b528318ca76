"""Wrong values in the places of JSON: of a file, of the header of safetensors, of its metadata."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

Rng = np.random.Generator
DEEP = 100_000
WRONG: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    7,
    2**31,
    2**62,
    2**80,
    10**400,
    -0.5,
    float("inf"),
    float("nan"),
    1e308,
    "",
    "text",
    "=1+1",
    "../outside",
    "/etc/passwd",
    "\0",
    "\ud800",
    "\udcff",
    "x" * 300_000,
    [],
    {},
    [None],
    [[1]],
    ["\0"],
    [2**62],
    {"a": {"b": [1]}},
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of keys of every value inside a JSON value, the whole one first."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*path, key))


def wrong_value(value: Any, rng: Rng) -> Any:
    """A JSON value with one place changed, removed or added."""
    every = list(places(value))
    path = every[int(rng.integers(len(every)))]
    wrong = WRONG[int(rng.integers(len(WRONG)))]
    if not path:
        return wrong
    value = json.loads(json.dumps(value))
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    kind = rng.random()
    if kind < 0.1:
        del inner[path[-1]]
    elif kind < 0.15 and isinstance(inner, dict):
        inner["unknown"] = wrong
    else:
        inner[path[-1]] = wrong
    return value


def json_value(path: Path, rng: Rng) -> None:
    path.write_text(json.dumps(wrong_value(json.loads(path.read_text(encoding="utf-8")), rng)))


def json_deep(path: Path, rng: Rng) -> None:
    text = json.dumps(json.loads(path.read_text(encoding="utf-8")))
    kind = int(rng.integers(3))
    deep = ("[" * DEEP, '{"a":' * DEEP, "[" * DEEP + "]" * DEEP)[kind]
    path.write_text(deep if rng.random() < 0.5 or ":" not in text else text.replace(": ", f": {deep}, ", 1))


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    """Header and tensors of a safetensors file."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write_header(path: Path, header: Any, tensors: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + tensors)


def tensor_header(path: Path, rng: Rng) -> None:
    header, tensors = header_of(path)
    write_header(path, wrong_value(header, rng), tensors)


def tensor_length(path: Path, rng: Rng) -> None:
    data = path.read_bytes()
    length = (0, 1, 2**31, 2**62, 2**64 - 1, len(data))[int(rng.integers(6))]
    path.write_bytes(struct.pack("<Q", length) + data[8:])


def tensor_metadata(path: Path, rng: Rng) -> None:
    """A wrong value inside the JSON of the metadata, or a text that is none."""
    header, tensors = header_of(path)
    metadata = header.setdefault("__metadata__", {})
    for name, text in metadata.items():
        try:
            inner = json.loads(text)
        except ValueError:
            continue
        metadata[name] = "[" * DEEP if rng.random() < 0.1 else json.dumps(wrong_value(inner, rng))
    write_header(path, header, tensors)


def tensor_numbers(path: Path, rng: Rng) -> None:
    """One tensor filled with wrong numbers."""
    header, tensors = header_of(path)
    names = [name for name, entry in header.items() if name != "__metadata__" and 0 not in entry["shape"]]
    start, stop = header[names[int(rng.integers(len(names)))]]["data_offsets"]
    number = (struct.pack("<q", 2**62), struct.pack("<q", -1), struct.pack("<d", float("nan")), b"\xff" * 8)
    piece = number[int(rng.integers(4))]
    body = bytearray(tensors)
    last = max(start, stop - 8)
    body[last:stop] = piece[: stop - last]
    write_header(path, header, bytes(body))


def tensor_missing(path: Path, rng: Rng) -> None:
    """One tensor more, or one that has another shape of the same size, or none."""
    header, tensors = header_of(path)
    names = [name for name in header if name != "__metadata__"]
    name = names[int(rng.integers(len(names)))]
    kind = int(rng.integers(3))
    if kind == 0:
        header["other"] = header.pop(name)
    elif kind == 1:
        header[name]["shape"] = [1, *header[name]["shape"]]
    else:
        header, tensors = {"__metadata__": header.get("__metadata__", {})}, b""
    write_header(path, header, tensors)
