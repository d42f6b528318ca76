"""Discover and score over a store: the answer of the in-memory functions, at one batch's memory."""

import math

import pytest
import torch

from sslk.features import FeatureStore, StoreError, StoreSpec, StoreWriter
from sslk.quality import batches, discovery, score
from sslk.quality.discovery import discover
from sslk.quality.score import qscore

N, D = 503, 96


def make_store(folder, *, signed=False, dtype="float32", rows=N):
    h = torch.randn(N, D, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.2, 3, D)
    h = h if signed else torch.relu(h)
    spec = StoreSpec("m", "0", "d", "0", "none", samples=N, num_features=D, dtype=dtype, signed=signed, shard_rows=200)
    with StoreWriter(folder, spec) as writer:
        for number, index in enumerate(torch.arange(rows).split(200)):
            writer.write(number, h[index], index % 10, index)
    return FeatureStore(folder)


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(batches, "BATCH_BYTES", 70 * D * 4)  # several batches a shard


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("eps", [1.5, "auto"])
def test_equal_to_the_in_memory_functions(tmp_path, dtype, signed, eps):
    store = make_store(tmp_path / "s", signed=signed, dtype=dtype)
    features = store.load().features
    found, expected = discover(store, eps), discover(features, eps, two_sided=signed)
    assert torch.equal(found.mask, expected.mask)
    assert torch.equal(found.activation_percent, expected.activation_percent)
    assert (found.eps, found.two_sided, found.num_samples) == (expected.eps, signed, N)
    assert found.mean_active == expected.mean_active
    assert found.empty_share == expected.empty_share if eps == "auto" else math.isnan(found.empty_share)
    scores, wanted = qscore(tmp_path / "s", found), qscore(features, expected)
    assert torch.equal(scores.scores, wanted.scores)
    assert scores.mean_active == pytest.approx(wanted.mean_active, rel=1e-12)
    assert (scores.eps, scores.num_discriminative, scores.empty_share) == (
        wanted.eps,
        wanted.num_discriminative,
        wanted.empty_share,
    )


@pytest.mark.parametrize(("eps", "passes"), [(1.5, 1), ("auto", 2)])
def test_every_row_is_read_once_a_pass_and_progress_says_so(tmp_path, monkeypatch, eps, passes):
    store, read, seen = make_store(tmp_path / "s"), [], []
    real = batches.feature_batches

    def features(*arguments):
        for batch in real(*arguments):
            read.append(len(batch))
            yield batch

    for module in (discovery, score):
        monkeypatch.setattr(module, "feature_batches", features)
    found = discover(store, eps, progress=lambda done, total, _: seen.append((done, total)))
    assert sum(read) == passes * N
    assert seen[-1] == (passes * N, passes * N)
    read.clear()
    qscore(store, found)
    assert sum(read) == N
    assert max(read) <= 70


def test_refusals_before_any_batch_is_read(tmp_path, monkeypatch):
    unfinished = make_store(tmp_path / "u", rows=200)
    store = make_store(tmp_path / "s")
    monkeypatch.setattr(FeatureStore, "shards", lambda _: pytest.fail("read the store"))
    with pytest.raises(StoreError, match=r"is not complete \(200 of 503 samples\)"):
        discover(unfinished)
    with pytest.raises(ValueError, match="0 <= lower < upper"):
        discover(store, lower=95, upper=50)
    with pytest.raises(ValueError, match="eps must be zero or positive"):
        discover(store, -1.0)
    with pytest.raises(ValueError, match=r"D=95 features but these have D=96"):
        qscore(store, torch.ones(95, dtype=torch.bool))


def test_auto_without_any_activation_says_what_to_do(tmp_path):
    spec = StoreSpec("m", "0", "d", "0", "none", samples=9, num_features=4)
    with StoreWriter(tmp_path / "s", spec) as writer:
        writer.write(0, torch.ones(9, 4), torch.zeros(9).long(), torch.arange(9))
    with pytest.raises(ValueError, match="eps='auto' found no eps"):
        discover(tmp_path / "s", "auto")
