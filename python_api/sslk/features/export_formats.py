"""The formats of an export; each writer goes over the shards and holds one of them."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from sslk.features.store import FeatureStore
from sslk.files.tables import write_rows

New = Callable[[str], Path]
"""Gives the path to write a file of that name to."""


@dataclass(frozen=True)
class Rows:
    """What is exported: a complete store and the names of its samples, where it has them."""

    store: FeatureStore
    names: Sequence[str] | None

    @property
    def arrays(self) -> tuple[str, ...]:
        """Features, labels where there are any, indices."""
        return ("features", "labels", "indices") if self.store.has_labels else ("features", "indices")

    def shape(self, array: str) -> tuple[int, ...]:
        """The shape of one of the arrays."""
        return (len(self.store), self.store.num_features) if array == "features" else (len(self.store),)

    def dtype(self, array: str) -> torch.dtype:
        """The dtype in which one of the arrays is stored."""
        return self.store.dtype if array == "features" else torch.int64

    def name(self, index: int) -> str:
        """The name of a sample, its index where it has none."""
        return str(index) if self.names is None else self.names[index]


def write_npy(rows: Rows, new: New) -> None:
    """A .npy an array."""
    for array in rows.arrays:
        with open(new(f"{array}.npy"), "wb") as file:
            _write_npy(rows, array, file)


def write_npz(rows: Rows, new: New) -> None:
    """The arrays in one .npz, not compressed."""
    with zipfile.ZipFile(new("features.npz"), "w") as archive:
        for array in rows.arrays:
            with archive.open(zipfile.ZipInfo(f"{array}.npy"), "w", force_zip64=True) as member:
                _write_npy(rows, array, member)


def write_pt(rows: Rows, new: New) -> None:
    """A dictionary of tensors; `torch.save` wants them whole, so the features are written first and mapped."""
    target = new("features.pt")
    content: dict[str, Any] = {}
    written = target.with_name(".features.raw.tmp")
    try:
        with open(written, "wb") as file:
            for shard in rows.store.shards():
                file.write(_bytes(shard.features))
        size = math.prod(rows.shape("features"))
        mapped = torch.from_file(str(written), shared=False, size=size, dtype=rows.dtype("features"))
        content["features"] = mapped.reshape(rows.shape("features"))
        if rows.store.has_labels:
            content["labels"] = rows.store.labels()
        content["indices"] = torch.cat([shard.indices for shard in rows.store.shards()])
        if rows.names is not None:
            content["names"] = [rows.names[index] for index in content["indices"].tolist()]
        if rows.store.spec.classes:
            content["classes"] = list(rows.store.spec.classes)
        with open(target, "wb") as file:
            torch.save(content, file)
    finally:
        written.unlink(missing_ok=True)


def write_safetensors(rows: Rows, new: New) -> None:
    """The arrays in one file: the length of a JSON header in 8 bytes, the header, the arrays in its order."""
    header, start = {}, 0
    for array in sorted(rows.arrays, key=lambda name: -rows.dtype(name).itemsize):  # each begins at a multiple of its size
        dtype = rows.dtype(array)
        stop = start + math.prod(rows.shape(array)) * dtype.itemsize
        header[array] = {"dtype": _SAFETENSORS[dtype], "shape": rows.shape(array), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(new("features.safetensors"), "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in header:
            for shard in rows.store.shards():
                file.write(_bytes(getattr(shard, array)))


_SAFETENSORS = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}


def write_parquet(rows: Rows, new: New) -> None:
    """Columns file, label (null where unlabelled), index and features, a list a row; one row group a shard."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise ImportError("format parquet needs pyarrow: pip install pyarrow.") from None
    fields = [
        *([("file", pa.string())] if rows.names is not None else []),
        *([("label", pa.int64())] if rows.store.has_labels else []),
        ("index", pa.int64()),
        ("features", pa.list_(pa.float32(), rows.store.num_features)),
    ]
    with parquet.ParquetWriter(new("features.parquet"), pa.schema(fields)) as writer:
        for shard in rows.store.shards():
            columns: dict[str, Any] = {"index": shard.indices.numpy()}
            if rows.names is not None:  # a name may be no UTF-8
                names = [rows.name(index).encode("utf-8", "backslashreplace").decode() for index in shard.indices.tolist()]
                columns["file"] = names
            if shard.labels is not None:
                columns["label"] = pa.array(shard.labels.numpy(), mask=(shard.labels < 0).numpy())
            flat = pa.array(shard.features.float().reshape(-1).numpy())
            columns["features"] = pa.FixedSizeListArray.from_arrays(flat, rows.store.num_features)
            writer.write_table(pa.table([pa.array(columns[name]) for name, _ in fields], schema=pa.schema(fields)))


def write_csv(rows: Rows, new: New) -> None:
    """Columns file, label (empty where unlabelled), index and a column a feature, in nine digits, which give float32 again."""
    with open(new("features.csv"), "w", newline="", encoding="utf-8") as stream:
        write_rows(stream, _csv(rows))


def _csv(rows: Rows) -> Iterator[list[Any]]:
    named, labelled = rows.names is not None, rows.store.has_labels
    features = [f"f{number}" for number in range(rows.store.num_features)]
    yield [*(["file"] if named else []), *(["label"] if labelled else []), "index", *features]
    for shard in rows.store.shards():
        for row, index in enumerate(shard.indices.tolist()):
            label = -1 if shard.labels is None else int(shard.labels[row])
            first = [*([rows.name(index)] if named else []), *([label if label >= 0 else ""] if labelled else [])]
            yield [*first, index, *(f"{value:.9g}" for value in shard.features[row].tolist())]


def _write_npy(rows: Rows, array: str, file: IO[bytes]) -> None:
    """As NumPy writes it: bfloat16, which NumPy lacks, as float32."""
    dtype = rows.dtype(array)
    stored = torch.empty(0, dtype=torch.float32 if dtype == torch.bfloat16 else dtype)
    header = np.lib.format.header_data_from_array_1_0(stored.numpy())
    np.lib.format.write_array_header_1_0(file, {**header, "shape": rows.shape(array)})
    for shard in rows.store.shards():
        file.write(_bytes(getattr(shard, array).to(stored.dtype)))


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


WRITERS: dict[str, Callable[[Rows, New], None]] = {
    "npy": write_npy,
    "npz": write_npz,
    "pt": write_pt,
    "safetensors": write_safetensors,
    "parquet": write_parquet,
    "csv": write_csv,
}
