"""Settings of import and export; importing them loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sslk.features.settings import Precision

ExportFormat = Literal["npy", "npz", "pt", "safetensors", "parquet", "csv"]


@dataclass(frozen=True)
class ImportSettings:
    """What brought features are, where the files do not say it.

    Attributes:
        model: name of the network they come from; stores imported under one name count as of one network.
        data: name of the data set, with its split: birds/test.
        features_key: which array or column of a file holds the features; guessed by its name by default.
        raw: layout of files that are numbers without a header, DTYPE:D: float32:768.
        dtype: dtype of the stored features; that of the file by default, float32 for float64 and integers.
        shard_rows: rows per shard, what memory must hold and an interruption can cost; 8192 by default.
    """

    model: str = "imported"
    data: str | None = None
    features_key: str | None = None
    raw: str | None = None
    dtype: Precision | None = None
    shard_rows: int | None = None
