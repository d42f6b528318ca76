"""Stores of codes: what they say of themselves, what they hold, and what is refused."""

import math

import pytest
import torch

from sslk import discover, linear_probe, qscore
from sslk.codes import Codes, CodesSettings, encode_store, fit_codes
from sslk.codes.encoding import codes_spec, size_of
from sslk.features import FeatureStore
from sslk.features.maintain import store_verify
from sslk.features.manifest import StoreError
from sslk.features.names import names_of
from sslk.probes import ProbeOutputs
from sslk.probes.source import answered_rows
from tests.codes.small import signed_rows, store_of


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A store with labels, names and two rows that are not finite, and codes of it."""
    x, labels = signed_rows()
    x[7, 3], x[350] = math.inf, math.nan
    labels[11] = -1
    folder = tmp_path_factory.mktemp("codes")
    with pytest.warns(UserWarning, match="rows"):  # of the unlabelled row and the two
        store = store_of(folder / "store", x, labels, names=[f"{n}.png" for n in range(400)], classes=["a", "b", "c"])
    return store, fit_codes(store, CodesSettings(latents=64, k=6, epochs=3, batch_size=64), out=folder / "codes.safetensors")


def test_a_store_of_codes_says_what_it_is_and_keeps_what_belongs_to_the_samples(tmp_path, fitted):
    store, codes = fitted
    encoded = encode_store(store, codes, tmp_path / "out")
    spec = encoded.spec
    assert (spec.model, spec.num_features, spec.signed) == ("mine codes", 64, False)
    assert spec.feature == "6 of 64 codes of output" and spec.weights_hash == codes.weights_hash
    assert (spec.dataset, spec.data_hash, spec.classes) == (store.spec.dataset, store.spec.data_hash, ("a", "b", "c"))
    assert encoded.complete and store_verify(encoded.path) == 4
    assert torch.equal(encoded.labels(), store.labels()) and list(names_of(encoded)) == list(names_of(store))
    assert torch.equal(encoded.load().indices, store.load().indices)
    own, kept = encoded.load().features, codes.autoencoder(store.load().features)
    torch.testing.assert_close(own, kept, equal_nan=True)
    finite = torch.ones(400, dtype=torch.bool)
    finite[[7, 350]] = False
    assert bool(own[~finite].isnan().all()) and bool((own[finite] >= 0).all()) and int((own[finite] > 0).sum(1).max()) <= 6
    assert sum(entry.nonfinite_rows for entry in encoded.manifest.shards) == 2


def test_other_codes_of_the_same_model_are_another_representation(tmp_path, fitted):
    store, codes = fitted
    others = fit_codes(store, CodesSettings(latents=64, k=6, epochs=1))
    specs = [codes_spec(store, each) for each in (codes, others, codes.without_dead())]
    assert len({spec.identity for spec in specs}) == 2 + (codes.without_dead() is not codes)
    encode_store(store, codes, tmp_path / "out")
    with pytest.raises(StoreError, match="holds another extraction: weights_hash is"):
        encode_store(store, others, tmp_path / "out")


def test_a_store_of_another_model_is_refused(tmp_path, fitted):
    _, codes = fitted
    x, labels = signed_rows()
    with pytest.raises(StoreError, match=r"codes were fitted on 'mine' and .* is another: weights is"):
        encode_store(store_of(tmp_path / "other", x, labels, model="theirs"), codes, tmp_path / "out")
    with pytest.raises(StoreError, match="is another: D is 16 there and 9 here"):
        encode_store(store_of(tmp_path / "narrow", x[:, :9], labels), codes, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_interrupted_encoding_goes_on_and_a_damaged_shard_is_refused(tmp_path, fitted):
    store, codes = fitted
    whole = encode_store(store, codes, tmp_path / "whole")

    def stop(done, total, stage):
        if done > 250:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_store(store, codes, tmp_path / "out", progress=stop)
    assert len(FeatureStore(tmp_path / "out")) == 200
    done = []
    encode_store(store, codes, tmp_path / "out", progress=lambda *state: done.append(state[0]))
    assert done[0] == 300
    for entry in whole.manifest.shards:
        assert (tmp_path / "out" / entry.file).read_bytes() == (whole.path / entry.file).read_bytes()
    damaged = tmp_path / "out" / whole.manifest.shards[1].file
    damaged.write_bytes(damaged.read_bytes()[:-4] + b"abcd")
    with pytest.raises(StoreError, match=r"shard-000001.safetensors in .* is altered"):
        encode_store(store, codes, tmp_path / "out")


def test_dead_latents_can_be_left_out(tmp_path, fitted):
    store, codes = fitted
    silenced = Codes.load(codes.save(tmp_path / "c.safetensors"))
    silenced.autoencoder.encoder_bias[10:20] = -100.0
    silenced.counts[10:20] = 0
    short = silenced.without_dead()
    alive = ~silenced.dead
    assert short.autoencoder.latents == int(alive.sum()) <= 54
    x = store.load().features[:7]
    torch.testing.assert_close(short.autoencoder(x), silenced.autoencoder(x)[:, alive])
    encoded = encode_store(store, short, tmp_path / "out", dtype="float16")
    assert encoded.num_features == int(alive.sum()) and encoded.spec.dtype == "float16"
    assert size_of(encoded.spec) == f"400 x {encoded.num_features} float16, 0.0 MB, zeros included"


def test_codes_that_do_not_fit_the_dtype_are_refused(tmp_path, fitted):
    store, codes = fitted
    large = Codes.load(codes.save(tmp_path / "c.safetensors"))
    large.autoencoder.encoder *= 1e6
    with pytest.raises(ValueError, match="do not fit float16"):
        encode_store(store, large, tmp_path / "out", dtype="float16")


@pytest.mark.filterwarnings("ignore:.*(left out|not finite)")
def test_codes_take_part_as_any_representation_does(tmp_path, fitted):
    """Q-Score of the store is Q-Score of the matrix, a probe learns on it, and a set of the features is refused on it."""
    store, codes = fitted
    encoded = encode_store(store, codes, tmp_path / "out")
    found, scores = discover(encoded, eps=2.0), qscore(encoded, discover(encoded, eps=2.0)).scores
    matrix = codes.autoencoder(store.load().features)
    own = qscore(matrix, discover(matrix, eps=2.0)).scores
    torch.testing.assert_close(scores, own, equal_nan=True)
    assert not found.two_sided and linear_probe(encoded, encoded, epochs=20).top1 > 0.6
    of_features = discover(store, eps=2.0)
    with pytest.raises(StoreError, match="belongs to another model"):
        qscore(encoded, of_features)
    labels = store.labels()
    outputs = ProbeOutputs.from_logits(
        torch.zeros(400, 3), torch.arange(3), labels, source={"weights_hash": store.spec.weights_hash}
    )
    with pytest.raises(StoreError, match="probe outputs are of another model"):
        answered_rows(encoded, outputs)
