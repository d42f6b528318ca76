"""store info, verify, merge and export."""

import numpy as np
import pytest
import torch

from sslk.features import StoreError, extract, store_export, store_info, store_merge, store_verify
from sslk.features.settings import ExtractSettings
from tests.features.small import SmallData, small_model, store_bytes


@pytest.fixture
def made(tmp_path):
    def make(folder, n=60, seed=0, **data):
        options = {"shard_rows": 20, "workers": 0, "on_corrupt": "skip"}
        if "dtype" in data:
            options["dtype"] = data.pop("dtype")
        return extract(small_model(seed=seed), SmallData(n, **data), tmp_path / folder, ExtractSettings(**options))

    return make


def test_info(made):
    store = made("s", corrupt={7})
    info = store_info(store.path)
    assert (info.rows, info.shards, info.complete, info.nonfinite_rows) == (59, 3, True, 0)
    assert info.skipped == ((7, "OSError: cannot identify image file 'img_7.png'"),)
    assert info.bytes == sum(file.stat().st_size for file in store.path.glob("*.safetensors"))
    assert info.spec.num_features == 24


def test_verify_names_everything_that_is_wrong(made):
    store = made("s")
    assert store_verify(store.path) == 3
    second = store.path / "shard-000001.safetensors"
    data = bytearray(second.read_bytes())
    data[-1] ^= 1
    times = second.stat()
    second.write_bytes(data)
    import os

    os.utime(second, ns=(times.st_atime_ns, times.st_mtime_ns))  # not even the times help
    (store.path / "shard-000002.safetensors").unlink()
    (store.path / "shard-000077.safetensors").write_bytes(b"")
    with pytest.raises(StoreError) as caught:
        store_verify(store.path)
    lines = str(caught.value).splitlines()
    assert [line.split()[0] for line in lines] == [f"shard-00000{n}.safetensors" for n in (1, 2)] + ["shard-000077.safetensors"]
    assert "altered" in lines[0]
    assert "missing" in lines[1]
    assert "not in the manifest" in lines[2]


def test_merge_of_parts_is_the_whole(made, tmp_path, monkeypatch):
    whole = made("whole")
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert not made(f"part{rank}").complete
    merged = store_merge([tmp_path / "part1", tmp_path / "part0"], tmp_path / "merged")
    assert merged.complete
    assert store_bytes(merged.path) == store_bytes(whole.path)
    store_merge([tmp_path / "part1", tmp_path / "part0"], tmp_path / "merged")  # nothing left to do
    assert store_bytes(merged.path) == store_bytes(whole.path)


def test_merge_of_data_sets_counts_on(made, tmp_path):
    first, second = made("a", 50, corrupt={3}), made("b", 30, name="more", corrupt={1})
    merged = store_merge([first.path, second.path], tmp_path / "merged")
    assert merged.complete
    assert merged.spec.dataset == "small + more"
    everything = merged.load()
    assert everything.indices.tolist() == [i for i in range(80) if i not in (3, 51)]
    assert torch.equal(everything.features, torch.cat([first.load().features, second.load().features]))
    assert torch.equal(everything.labels, torch.cat([first.labels(), second.labels()]))
    assert [sample for sample, _ in store_info(merged.path).skipped] == [3, 51]
    assert store_verify(merged.path) == 5


@pytest.mark.parametrize(
    ("other", "field"),
    [({"seed": 1}, "weights_hash"), ({"classes": ("x", "y", "z")}, "classes"), ({"dtype": "float16"}, "dtype")],
)
def test_mixed_stores_are_refused_by_shard_and_field(made, tmp_path, other, field):
    made("a")
    made("b", 30, **other)
    with pytest.raises(StoreError, match=rf"shard-000000.safetensors of .*/b cannot be merged with .*/a: {field} is"):
        store_merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    with pytest.raises(ValueError, match="at least one store"):
        store_merge([], tmp_path / "merged")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("labels", [True, False])
def test_export(made, tmp_path, dtype, labels):
    store = made("s", 50, labels=labels, dtype=dtype, corrupt={4})
    files = store_export(store.path, tmp_path / "numpy")
    everything = store.load()
    arrays = {file.stem: np.load(file, mmap_mode="r") for file in files if file.suffix == ".npy"}
    assert {file.name for file in files} == {f"{name}.npy" for name in arrays} | {"manifest.csv", "classes.json"}
    assert set(arrays) == {"features", "indices"} | ({"labels"} if labels else set())
    assert arrays["features"].dtype == (np.float16 if dtype == "float16" else np.float32)
    np.testing.assert_array_equal(arrays["features"], everything.features.float().numpy())
    np.testing.assert_array_equal(arrays["indices"], everything.indices.numpy())
    if labels:
        np.testing.assert_array_equal(arrays["labels"], everything.labels.numpy())
    assert {file.name for file in (tmp_path / "numpy").iterdir()} == {file.name for file in files}
    with pytest.raises(StoreError, match="out must not be a feature store"):
        store_export(store.path, store.path)


def test_merge_refuses_the_same_samples_twice(made, tmp_path):
    a, b = made("a", name="one").path, made("b", name="two").path
    with pytest.raises(StoreError, match=r"a holds the samples that .*a holds too"):
        store_merge([a, b, a], tmp_path / "m")
    assert not (tmp_path / "m").exists()
