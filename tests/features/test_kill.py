"""SIGKILL at random moments: at most one shard is lost, and the end is bit-identical to an undisturbed run."""

import os
import random
import signal
import time

import pytest
import torch

from sslk.features import FeatureStore
from tests.features.small import extract_logging, finished, store_bytes

KILLS = int(os.environ.get("SSLK_TEST_KILLS", 5))
SHARD, BATCH = 40, 8
SAMPLES = 100 * (KILLS + 1)  # more than the kills leave time for


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, spawn):
    folder = tmp_path_factory.mktemp("whole")
    assert finished(spawn(target=extract_logging, args=(folder / "s", folder / "log", 0.0, 0, 1, SAMPLES))) == 0
    return store_bytes(folder / "s")


def batches_done(log):
    return log.stat().st_size if log.exists() else 0


def test_killed_again_and_again(tmp_path, spawn, undisturbed):
    """The kills fall between a fifth of a batch and two shards after the first sign of life."""
    log, chance = tmp_path / "log", random.Random(0)
    for _ in range(KILLS):
        child = spawn(target=extract_logging, args=(tmp_path / "s", log, 0.002, 0, 1, SAMPLES))
        before = batches_done(log)
        child.start()
        while batches_done(log) == before and child.is_alive():
            time.sleep(0.001)
        time.sleep(chance.uniform(0.003, 0.16))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL, "the run ended before it was killed"
        store = FeatureStore(tmp_path / "s")  # readable after every kill
        assert len(store) % SHARD == 0
        assert sum(len(batch.features) for batch in store.batches(64)) == len(store)
    assert finished(spawn(target=extract_logging, args=(tmp_path / "s", log, 0.0, 0, 1, SAMPLES))) == 0
    assert store_bytes(tmp_path / "s") == undisturbed
    assert not list((tmp_path / "s").glob(".*.tmp"))
    assert batches_done(log) * BATCH <= SAMPLES + KILLS * SHARD, "a kill cost more than one shard"


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_write_their_own_shards_and_the_same_bytes(tmp_path, spawn, undisturbed, world_size):
    children = [
        spawn(target=extract_logging, args=(tmp_path / "s", tmp_path / f"log{rank}", 0.0, rank, world_size, SAMPLES))
        for rank in range(world_size)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert store_bytes(tmp_path / "s") == undisturbed
    work = [batches_done(tmp_path / f"log{rank}") * BATCH for rank in range(world_size)]
    assert max(work) - min(work) <= SHARD
    indices = torch.cat([batch.indices for batch in FeatureStore(tmp_path / "s").batches(64)])
    assert indices.tolist() == list(range(SAMPLES))  # no sample twice, none as padding


def test_killed_with_two_processes_and_resumed_with_one(tmp_path, spawn, undisturbed):
    children = [
        spawn(target=extract_logging, args=(tmp_path / "s", tmp_path / f"log{rank}", 0.002, rank, 2, SAMPLES))
        for rank in range(2)
    ]
    for child in children:
        child.start()
    while min(batches_done(tmp_path / f"log{rank}") for rank in range(2)) < 7:
        time.sleep(0.005)
    for child in children:
        os.kill(child.pid, signal.SIGKILL)
        child.join()
    assert 0 < len(FeatureStore(tmp_path / "s")) < SAMPLES
    assert finished(spawn(target=extract_logging, args=(tmp_path / "s", tmp_path / "log", 0.0, 0, 1, SAMPLES))) == 0
    assert store_bytes(tmp_path / "s") == undisturbed
