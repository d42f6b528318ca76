"""A disk that fills up and folders that cannot be written to leave a store as it was."""

import errno
import os
import resource
import shutil
import subprocess
import sys

import pytest

from sslk.features import FeatureStore, extract
from sslk.features.settings import ExtractSettings
from tests.features.small import SmallData, extract_refused, finished, small_model, store_bytes


def test_write_that_fails_half_way_keeps_what_was_there_and_resumes(tmp_path, spawn):
    """The kernel refuses to write past 5,000 bytes: the shard of 9,600 fails after a part of it is on disk."""
    assert finished(spawn(target=extract_refused, args=(tmp_path / "s", 5000, False))) == errno.EFBIG
    before = store_bytes(tmp_path / "s")
    assert sorted(before) == ["manifest.json", "shard-000000.safetensors", "shard-000001.safetensors"]
    assert not list((tmp_path / "s").glob(".*.tmp"))
    assert len(FeatureStore(tmp_path / "s")) == 200
    again = extract(small_model(), SmallData(400), tmp_path / "s", ExtractSettings(batch_size=50, workers=0))
    assert again.complete
    after = store_bytes(tmp_path / "s")
    assert all(after[name] == before[name] for name in before if name != "manifest.json")


@pytest.mark.parametrize("failing", [9, 11, 12], ids=["shard", "manifest", "folder"])
def test_full_disk_at_any_step_leaves_a_readable_store(tmp_path, monkeypatch, failing):
    some = ExtractSettings(shard_rows=100, batch_size=50, workers=0)
    real, calls = os.fsync, []

    def fsync(fd):
        calls.append(fd)
        # The first manifest and its folder; then, per shard: file, folder, manifest, folder, times of checks, folder.
        if len(calls) == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left on device"):
        extract(small_model(), SmallData(400), tmp_path / "s", some)
    monkeypatch.undo()
    kept = FeatureStore(tmp_path / "s")
    assert len(kept) == (200 if failing == 12 else 100)
    assert [i for batch in kept.batches(70) for i in batch.indices.tolist()] == list(range(len(kept)))
    extract(small_model(), SmallData(400), tmp_path / "s", some)
    extract(small_model(), SmallData(400), tmp_path / "whole", some)
    assert store_bytes(tmp_path / "s") == store_bytes(tmp_path / "whole")


def test_too_little_room_is_said_before_anything_is_made(tmp_path, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(OSError, match=r"the store needs 0.00 GB more, the disk of .* has 0.00 GB free"):
        extract(small_model(), SmallData(400), tmp_path / "s", ExtractSettings(workers=0))
    assert not (tmp_path / "s").exists()


def test_read_only_folder(tmp_path, spawn):
    folder = tmp_path / "locked"
    folder.mkdir()
    extract(small_model(), SmallData(400), folder / "s", ExtractSettings(shard_rows=100, batch_size=50, workers=0))
    (folder / "s" / "shard-000003.safetensors").unlink()
    before = store_bytes(folder / "s")
    for path in [tmp_path, *tmp_path.parents[:2]]:
        path.chmod(0o755)
    (folder / "s" / ".lock").chmod(0o666)
    (folder / "s").chmod(0o555)
    for target in (folder / "s", folder / "s" / "new"):
        child = spawn(target=extract_refused, args=(target, resource.RLIM_INFINITY, True))
        assert finished(child) == errno.EACCES
    assert store_bytes(folder / "s") == before


EXPORT = """
import sys
from pathlib import Path
from sslk.features import store_export
try:
    store_export(sys.argv[1], sys.argv[2])
except OSError as error:
    print(error.errno, sorted(p.name for p in Path(sys.argv[2]).iterdir()))
"""


def test_export_to_a_full_disk_says_so_and_leaves_nothing(tmp_path):
    """A file system of 16 KB, of this process alone: what a mapping writes there ends in a signal, not in an error."""
    extract(small_model(), SmallData(400), tmp_path / "s", ExtractSettings(batch_size=50, workers=0))  # 9,600 bytes of features
    (tmp_path / "disk").mkdir()
    disk = f"{tmp_path}/disk"
    mount = f"mount -t tmpfs -o size=16k none {disk} && exec {sys.executable} -c '{EXPORT}' {tmp_path}/s {disk}/out"
    alone = ["unshare", "--user", "--map-root-user", "--mount"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*alone, "mount", "-t", "tmpfs", "none", str(tmp_path / "disk")]).returncode
    ):
        pytest.skip("no file system of one's own here")
    done = subprocess.run([*alone, "sh", "-c", mount], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, f"{errno.ENOSPC} []"), done.stderr
