"""The store's reading side: batches, shuffling, ranks, and what is refused by name."""

import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from sslk.features import FeatureStore, StoreError, StoreSpec, StoreWriter, extract
from sslk.features.intact import CHECKED
from sslk.features.settings import ExtractSettings
from tests.features.small import SmallData, finished, second_writer, small_model

SPEC = StoreSpec("tiny", "0" * 64, "noise", "0" * 64, "none", samples=103, num_features=6, shard_rows=20)


def rows_of(numbers):
    return torch.randn(103, 6, generator=torch.Generator().manual_seed(0))[numbers]


@pytest.fixture
def store(tmp_path):
    with StoreWriter(tmp_path / "s", SPEC) as writer:
        for number in range(6):
            index = torch.arange(number * 20, min(103, number * 20 + 20))
            writer.write(number, rows_of(index), index % 7, index)
    return FeatureStore(tmp_path / "s")


@pytest.mark.parametrize("batch_size", [1, 7, 20, 33, 103, 500])
def test_in_order_every_row_once_in_full_batches(store, batch_size):
    batches = list(store.batches(batch_size))
    assert [len(b.features) for b in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert 1 <= len(batches[-1].features) <= batch_size
    assert torch.cat([b.indices for b in batches]).tolist() == list(range(103))
    assert torch.equal(torch.cat([b.features for b in batches]), rows_of(slice(None)))
    assert torch.equal(torch.cat([b.labels for b in batches]), torch.arange(103) % 7)


@pytest.mark.parametrize("buffer_rows", [1, 15, 40, 1000])
def test_shuffled_every_row_once_with_its_label_and_the_seed_decides(store, buffer_rows):
    def epoch(seed):
        return list(store.batches(8, shuffle=True, seed=seed, buffer_rows=buffer_rows))

    first, again, other = epoch(1), epoch(1), epoch(2)
    order = torch.cat([b.indices for b in first])
    assert sorted(order.tolist()) == list(range(103))
    assert [len(b.indices) for b in first] == [8] * 12 + [7]
    for batch in first:
        assert torch.equal(batch.features, rows_of(batch.indices))
        assert torch.equal(batch.labels, batch.indices % 7)
    assert torch.equal(order, torch.cat([b.indices for b in again]))
    assert not torch.equal(order, torch.cat([b.indices for b in other]))
    if buffer_rows >= 40:  # rows of different shards meet
        assert max(len(set((b.indices // 20).tolist())) for b in first) > 1
        assert order.tolist() != sorted(order.tolist(), key=lambda i: order.tolist().index(i // 20 * 20))


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("world_size", [2, 5, 9])
def test_ranks_share_the_rows_without_overlap(store, shuffle, world_size):
    seen = []
    for rank in range(world_size):
        for batch in store.batches(9, shuffle=shuffle, rank=rank, world_size=world_size):
            seen += batch.indices.tolist()
    assert sorted(seen) == list(range(103))


def test_arguments_are_refused_at_the_call(store):
    with pytest.raises(ValueError, match="batch_size and buffer_rows must be at least 1, got 0"):
        store.batches(0)
    with pytest.raises(ValueError, match=r"rank must be in \[0, world_size\), got 2 of 2"):
        store.batches(4, rank=2, world_size=2)


def test_batches_are_views_of_the_mapping_and_writing_to_them_never_reaches_the_file(store):
    before = (store.path / "shard-000000.safetensors").read_bytes()
    for batch in store.batches(10):
        batch.features.fill_(7)
    assert (store.path / "shard-000000.safetensors").read_bytes() == before
    assert torch.equal(next(store.batches(10)).features, rows_of(slice(10)))


def alter(path):
    """Flip one bit of the last feature, as a later modification would."""
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def test_truncated_shard_is_refused_on_opening(store):
    path = store.path / "shard-000003.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(StoreError, match=r"shard-000003.safetensors in .* is truncated"):
        FeatureStore(store.path)


def test_missing_shard_is_refused_on_opening(store):
    (store.path / "shard-000003.safetensors").unlink()
    with pytest.raises(StoreError, match=r"shard-000003.safetensors is missing"):
        FeatureStore(store.path)


def test_shard_that_goes_missing_later_is_refused_when_it_is_reached(store):
    (store.path / "shard-000001.safetensors").unlink()
    shards = store.shards()
    assert len(next(shards).features) == 20
    with pytest.raises(StoreError, match=r"shard-000001\.safetensors is missing"):
        next(shards)


def test_altered_shard_is_refused_when_it_is_reached(store):
    alter(store.path / "shard-000003.safetensors")
    batches = FeatureStore(store.path).batches(20)
    for _ in range(3):
        next(batches)
    with pytest.raises(StoreError, match=r"shard-000003.safetensors in .* is altered: its SHA-256"):
        next(batches)


def test_altered_shard_whose_times_were_set_back_is_found_when_no_check_is_remembered(store):
    path = store.path / "shard-000003.safetensors"
    times = path.stat()
    alter(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    (store.path / CHECKED).unlink()
    with pytest.raises(StoreError, match=r"shard-000003.* altered"):
        FeatureStore(store.path).load()


def test_copied_store_is_hashed_once_then_remembered(store, monkeypatch):
    import sslk.features.intact as module

    (store.path / CHECKED).unlink()
    hashed = []
    real = module.file_sha256
    monkeypatch.setattr(module, "file_sha256", lambda path: hashed.append(path.name) or real(path))
    store.load()
    store.load()
    assert len(hashed) == len(set(hashed)) == 6


def test_shard_of_another_model_is_refused_even_with_a_matching_manifest(store, tmp_path):
    """Someone copied a shard of the same shapes from another store and wrote its hash into the manifest."""
    import hashlib
    import json

    foreign = StoreSpec("other", "1" * 64, "noise", "0" * 64, "none", samples=103, num_features=6, shard_rows=20)
    with StoreWriter(tmp_path / "t", foreign) as writer:
        index = torch.arange(40, 60)
        writer.write(2, rows_of(index), index % 7, index)
    name = "shard-000002.safetensors"
    data = (tmp_path / "t" / name).read_bytes()
    (store.path / name).write_bytes(data)
    manifest = json.loads((store.path / "manifest.json").read_text())
    manifest["shards"][2].update(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    (store.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match=rf"{name} in .* is from another extraction"):
        FeatureStore(store.path).load()


def test_shard_of_other_shapes_and_a_file_that_is_no_safetensors(store):
    from dataclasses import replace

    from sslk.features.intact import open_shard

    entry = store.manifest.shards[0]
    path = store.path / entry.file
    tensors = load_file(path)
    save_file({**tensors, "features": tensors["features"][:, :5].clone()}, path, {"identity": SPEC.identity})
    with pytest.raises(StoreError, match=r"shard-000000.* holds .*\(20, 5\)"):
        open_shard(store.path, entry, SPEC)
    path.write_bytes(b"not a shard")
    with pytest.raises(StoreError, match=r"shard-000000.* cannot be read as safetensors"):
        open_shard(store.path, replace(entry, bytes=11), SPEC)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is not the manifest of a feature store"),
        ('{"format": "sslk.features", "version": 2}', "has version 2; this release reads version 1"),
        ('{"format": "sslk.features", "version": 1, "spec": {}, "shards": []}', "does not follow version 1"),
    ],
)
def test_damaged_manifests(tmp_path, text, message):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(StoreError, match=message):
        FeatureStore(tmp_path)


def test_altered_manifest_and_no_store_at_all(store, tmp_path):
    path = store.path / "manifest.json"
    path.write_text(path.read_text().replace('"tiny"', '"tinier"'))
    with pytest.raises(StoreError, match="was altered: its identity does not match"):
        FeatureStore(store.path)
    with pytest.raises(StoreError, match=r"is not a feature store: it has no manifest.json"):
        FeatureStore(tmp_path / "nothing")


def test_incomplete_and_unlabelled_stores_say_so_before_work(tmp_path):
    unlabelled = StoreSpec("t", "0", "n", "0", "none", samples=5, num_features=2, labels=False)
    with StoreWriter(tmp_path / "s", unlabelled):
        pass
    store = FeatureStore(tmp_path / "s")
    with pytest.raises(StoreError, match=r"is not complete \(0 of 5 samples\): run the extraction again"):
        store.require()
    with StoreWriter(tmp_path / "s", unlabelled) as writer:
        with pytest.raises(ValueError, match="labels must not be given"):
            writer.write(0, torch.zeros(5, 2), torch.zeros(5).long(), torch.arange(5))
        writer.write(0, torch.zeros(5, 2), None, torch.arange(5))
    with pytest.raises(StoreError, match="has no labels"):
        FeatureStore(tmp_path / "s").require(labels=True)


def test_two_writers_of_one_rank_are_refused_and_foreign_folders_too(store, tmp_path, spawn):
    with StoreWriter(store.path, SPEC):
        finished(spawn(target=second_writer, args=(store.path, tmp_path / "message")))
    assert "another process is writing to" in (tmp_path / "message").read_text()
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("")
    with pytest.raises(StoreError, match="is neither empty nor a feature store"):
        StoreWriter(tmp_path / "letters", SPEC)
    with pytest.raises(StoreError, match="is a file; a feature store is a folder"):
        StoreWriter(tmp_path / "letters" / "dear.txt", SPEC)


def test_extraction_refuses_a_damaged_shard_and_replaces_a_deleted_one(tmp_path):
    def run():
        return extract(small_model(), SmallData(60), tmp_path / "s", ExtractSettings(shard_rows=20, workers=0))

    run()
    path = tmp_path / "s" / "shard-000001.safetensors"
    intact = path.read_bytes()
    alter(path)
    with pytest.raises(StoreError, match=r"shard-000001.* altered.*delete the file and run the extraction again"):
        run()
    path.unlink()
    run()
    assert path.read_bytes() == intact
