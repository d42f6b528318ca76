"""store import: larger than memory, and killed."""

import os
import signal
import time

import numpy as np
import pytest

from sslk.features import FeatureStore, store_verify
from tests.features.small import finished, import_logging, import_within, store_bytes


def sparse_npy(path, shape, fortran=False):
    """A .npy of zeros that takes no room on the disk, with ones in three places."""
    places = [(0, 0), (shape[0] // 2, shape[1] - 1), (shape[0] - 1, 3)]
    header = {"descr": "<f4", "fortran_order": fortran, "shape": shape}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        os.truncate(path, start + 4 * shape[0] * shape[1])
        for row, column in places:
            file.seek(start + 4 * (column * shape[0] + row if fortran else row * shape[1] + column))
            file.write(np.float32(1).tobytes())
    return places


def holds_only(store, places):
    """Whether the ones are where they were put, and nothing else is."""
    found = []
    for batch in store.batches(4096):
        rows, columns = batch.features.nonzero(as_tuple=True)
        found += zip(batch.indices[rows].tolist(), columns.tolist(), strict=True)
    return found == places


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["C", "fortran", "npz", "raw"])
def test_memory_is_bounded_by_a_shard(tmp_path, spawn, kind):
    """192 MB of features in a process that may take 150 MB more."""
    shape, file = (49152, 1024), tmp_path / "x.npy"
    places = sparse_npy(file, shape, fortran=kind == "fortran")
    settings = {"shard_rows": 4096, "dtype": "float16"}
    if kind == "npz":
        np.savez_compressed(tmp_path / "x.npz", x=np.load(file, mmap_mode="r"))
        file = tmp_path / "x.npz"
    elif kind == "raw":
        content = file.read_bytes()
        file = tmp_path / "x.bin"
        file.write_bytes(content[-4 * shape[0] * shape[1] :])
        settings["raw"] = "float32:1024"
    assert finished(spawn(target=import_within, args=(str(file), str(tmp_path / "s"), 150), kwargs=settings)) == 0
    assert holds_only(FeatureStore(tmp_path / "s"), places)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_gigabytes_within_320_megabytes(tmp_path, spawn):
    places = sparse_npy(tmp_path / "x.npy", (262144, 2048))
    assert (
        finished(
            spawn(target=import_within, args=(str(tmp_path / "x.npy"), str(tmp_path / "s"), 320), kwargs={"shard_rows": 4096})
        )
        == 0
    )
    assert holds_only(FeatureStore(tmp_path / "s"), places)


def test_killed_it_goes_on_and_ends_with_the_same_bytes(tmp_path, spawn):
    assert finished(spawn(target=import_logging, args=(tmp_path / "whole", tmp_path / "log-0", 0))) == 0
    child = spawn(target=import_logging, args=(tmp_path / "s", tmp_path / "log", 0.02))
    child.start()
    while not (tmp_path / "log").exists() or (tmp_path / "log").stat().st_size < 7:
        time.sleep(0.005)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    begun = FeatureStore(tmp_path / "s")
    assert 60 <= len(begun) < 400 and not begun.complete
    kept = {file.name: file.stat().st_mtime_ns for file in begun.path.glob("shard-*")}
    assert finished(spawn(target=import_logging, args=(tmp_path / "s", tmp_path / "log-2", 0))) == 0
    assert store_bytes(tmp_path / "s") == store_bytes(tmp_path / "whole")
    done = list(begun.manifest.shards)
    assert all((begun.path / entry.file).stat().st_mtime_ns == kept[entry.file] for entry in done)
    assert store_verify(tmp_path / "s") == 40
