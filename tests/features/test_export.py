"""store export: each format read by its own library; the identity of stores from before there were imports."""

import csv
import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sslk.features import ImportSettings, StoreSpec, store_export, store_import
from sslk.features.manifest import Manifest

X = np.random.default_rng(1).standard_normal((50, 6)).astype(np.float32)
LABELS = [None if row % 7 == 0 else row % 3 for row in range(50)]
STORED = [-1 if label is None else label for label in LABELS]
pytestmark = pytest.mark.filterwarnings("ignore")


def read_parquet(file):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(file)
    assert parquet.ParquetFile(file).num_row_groups == 3  # one a shard
    assert table["label"].to_pylist() == LABELS and table["file"].to_pylist() == [f"n{row}" for row in range(50)]
    return {"features": np.array(table["features"].to_pylist()), "labels": STORED, "indices": table["index"].to_numpy()}


def read_csv(file):
    with open(file, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["label"] for row in rows] == ["" if label is None else str(label) for label in LABELS]
    numbers = [[float(row[f"f{column}"]) for column in range(6)] for row in rows]
    return {"features": np.array(numbers, np.float32), "labels": STORED, "indices": [int(row["index"]) for row in rows]}


READERS = {
    "npz": lambda file: dict(np.load(file)),
    "pt": lambda file: torch.load(file, weights_only=True),
    "safetensors": load_file,
    "parquet": read_parquet,
    "csv": read_csv,
}


@pytest.mark.parametrize("format", READERS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_libraries_read_what_is_written(tmp_path, format, dtype):
    settings = ImportSettings(dtype=dtype, shard_rows=20)
    store = store_import(X, tmp_path / "s", settings, labels=LABELS, names=[f"n{row}" for row in range(50)])
    files = store_export(store.path, tmp_path / "out", format)
    assert [file.name for file in files] == [f"features.{format}", "manifest.csv"]
    found = READERS[format](files[0])
    expected = torch.tensor(X).to(getattr(torch, dtype))
    stays = dtype == "bfloat16" and format in ("pt", "safetensors")
    assert torch.equal(torch.as_tensor(found["features"]).to(expected.dtype), expected)
    assert not stays or found["features"].dtype == torch.bfloat16
    assert torch.as_tensor(found["labels"]).tolist() == STORED
    assert torch.as_tensor(found["indices"]).tolist() == list(range(50))


def test_unknown_format(tmp_path):
    with pytest.raises(ValueError, match="format must be one of npy, npz, pt, safetensors, parquet, csv, got 'mat'"):
        store_export(tmp_path, tmp_path / "out", "mat")


def test_stores_from_before_keep_identity_and_bytes():
    spec = StoreSpec("m", "w" * 64, "d", "h" * 64, "t", samples=5, num_features=3)
    before = {
        "model": "m",
        "weights_hash": "w" * 64,
        "dataset": "d",
        "data_hash": "h" * 64,
        "transform": "t",
        "samples": 5,
        "num_features": 3,
        "dtype": "float32",
        "amp": "off",
        "labels": True,
        "signed": False,
        "classes": [],
    }
    assert spec.identity == hashlib.sha256(json.dumps(before, sort_keys=True).encode()).hexdigest()
    written = json.loads(Manifest(spec).to_json())["spec"]
    assert set(written) == {*before, "shard_rows", "variants"}
