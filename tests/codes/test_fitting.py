"""Fits: known dictionaries, dead latents, held-out rows, seeds, interruptions."""

import math
from dataclasses import replace

import pytest
import torch

from sslk.codes import Codes, CodesSettings, fit_codes
from sslk.codes.rows import SplitRows
from sslk.features.manifest import StoreError
from tests.codes.small import ACTIVE, ATOMS, signed_rows, sparse_rows, store_of

QUICK = CodesSettings(latents=48, k=6, epochs=4, batch_size=64)


@pytest.fixture
def store(tmp_path):
    return store_of(tmp_path / "store", *signed_rows())


def same(a, b):
    """Whether two fits are the same, bit by bit."""
    tensors = zip(a.autoencoder.state_dict().values(), b.autoencoder.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in tensors) and a.history == b.history and torch.equal(a.counts, b.counts)


def test_a_known_dictionary_is_found_again(tmp_path):
    x, atoms = sparse_rows(2000)
    settings = CodesSettings(latents=ATOMS, k=ACTIVE, epochs=15, batch_size=128, learning_rate=5e-3)
    codes = fit_codes(store_of(tmp_path / "s", x, shard_rows=700), settings)
    cosines = atoms @ codes.autoencoder.decoder.T
    assert float(cosines.amax(1).mean()) > 0.9
    assert codes.explained_variance > 0.9
    found = codes.autoencoder(x)
    assert bool((found >= 0).all()) and int((found > 0).sum(1).max()) <= ACTIVE


def test_the_variance_explained_is_that_of_rows_held_out(store):
    codes = fit_codes(store, QUICK)
    held = torch.zeros(400, dtype=torch.bool)
    held[torch.randperm(400, generator=torch.Generator().manual_seed(0))[:40]] = True
    x = store.load().features.double()
    auto = codes.autoencoder.double()
    for rows, stated in ((x[held], codes.explained_variance), (x[~held], codes.train_explained_variance)):
        missed = (rows - auto.reconstruct(rows)).square().sum()
        assert stated == pytest.approx(float(1 - missed / (rows - rows.mean(0)).square().sum()), abs=1e-5)
    active = (auto(x) > 0).double()
    assert codes.history[-1].active == pytest.approx(float(active[held].sum(1).mean()))
    assert torch.equal(codes.counts, active[~held].sum(0).long())
    assert codes.explained_variance < codes.train_explained_variance


def test_normalised_rows_are_centred_and_of_mean_squared_norm_d(store):
    codes = fit_codes(store, replace(QUICK, epochs=1))
    rows = torch.cat([*SplitRows(store, 0.1, 0, torch.device("cpu")).batches(False)])
    x = codes.autoencoder.normalized(rows)
    torch.testing.assert_close(x.mean(0), torch.zeros(16), atol=1e-5, rtol=0)
    assert float(x.square().sum(1).mean()) == pytest.approx(16, rel=1e-5)


def test_rows_held_out_do_not_move_the_codes(tmp_path, store):
    x, labels = signed_rows()
    held = SplitRows(store, QUICK.validation_share, QUICK.seed, torch.device("cpu")).held
    x[held] = 100.0
    first, second = fit_codes(store, QUICK), fit_codes(store_of(tmp_path / "other", x, labels), QUICK)
    assert first.hash == second.hash and first.explained_variance != second.explained_variance


def test_dead_latents_come_back_by_the_auxiliary_loss(tmp_path, monkeypatch):
    """A third of the latents begins with a bias that nothing overcomes."""
    from sslk.codes import fitting
    from sslk.codes.autoencoder import SparseAutoencoder

    class Silenced(SparseAutoencoder):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            with torch.no_grad():
                self.encoder_bias[:13] = -4.5

    monkeypatch.setattr(fitting, "SparseAutoencoder", Silenced)
    x, _ = sparse_rows(2000)
    silenced = store_of(tmp_path / "s", x, shard_rows=1000)
    settings = CodesSettings(latents=ATOMS, k=ACTIVE, epochs=12, batch_size=128, learning_rate=5e-3, dead_after=300)
    dead = {weight: int(fit_codes(silenced, replace(settings, aux_weight=weight)).dead[:13].sum()) for weight in (0.0, 1 / 32)}
    assert dead[0.0] >= 8 and dead[1 / 32] <= 2, dead


def test_the_same_seed_gives_the_same_codes_and_another_gives_others(store):
    first, second, third = fit_codes(store, QUICK), fit_codes(store, QUICK), fit_codes(store, replace(QUICK, seed=1))
    assert same(first, second) and first.hash != third.hash


class Stop(Exception):
    """What stands for a kill."""


@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_an_interrupted_fit_goes_on_to_the_same_codes(tmp_path, store, epoch):
    settings = replace(QUICK, latents=96, k=2, dead_after=70)  # some latents are dead at every interruption
    whole, file = fit_codes(store, settings, out=tmp_path / "whole.safetensors"), tmp_path / "codes.safetensors"
    steps = []

    def stop(done, total, stage):
        if done > (epoch + 0.5) * 400:
            raise Stop

    with pytest.raises(Stop):
        fit_codes(store, settings, out=file, progress=stop)
    assert not file.exists() and file.with_name("codes.safetensors.part").exists() == (epoch > 0)
    again = fit_codes(store, settings, out=file, progress=lambda done, total, stage: steps.append(done))
    assert same(whole, again) and steps[0] == epoch * 400 + 64
    assert file.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codes.safetensors", "store", "whole.safetensors"]


def test_a_state_of_other_settings_is_begun_anew_and_a_damaged_one_refused(tmp_path, store):
    file, part = tmp_path / "codes.safetensors", tmp_path / "codes.safetensors.part"

    def stop(done, total, stage):
        if done > 500:
            raise Stop

    with pytest.raises(Stop):
        fit_codes(store, replace(QUICK, seed=5), out=file, progress=stop)
    kept = part.read_bytes()
    with pytest.warns(UserWarning, match="is of a fit with other settings or on another store: it is begun anew"):
        assert same(fit_codes(store, QUICK, out=file), fit_codes(store, QUICK))
    file.unlink()
    part.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(ValueError, match=r"the unfinished fit .* cannot be read as safetensors"):
        fit_codes(store, replace(QUICK, seed=5), out=file)


def test_a_finished_file_is_read_and_one_of_other_settings_refused(tmp_path, store):
    file, calls = tmp_path / "codes.safetensors", []
    first = fit_codes(store, QUICK, out=file)
    assert same(first, fit_codes(store, QUICK, out=file, progress=lambda *state: calls.append(state))) and not calls
    with pytest.raises(ValueError, match="holds codes of other settings or of another store"):
        fit_codes(store, replace(QUICK, k=7), out=file)


def test_a_file_comes_back_whole_and_a_damaged_one_is_refused(tmp_path, store):
    file = tmp_path / "codes.safetensors"
    codes = fit_codes(store, QUICK, out=file)
    again = Codes.load(file)
    assert same(codes, again) and again.hash == codes.hash
    assert (again.settings, again.source) == (codes.settings, codes.source)
    assert again.train_explained_variance == codes.train_explained_variance
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"the codes .* cannot be read as safetensors"):
        Codes.load(file)
    with pytest.raises(FileNotFoundError, match=r"No sparse codes at .*none"):
        Codes.load(tmp_path / "none")
    codes.autoencoder.encoder.fill_(math.nan)
    with pytest.raises(ValueError, match="its tensors must be finite, of one M and one D"):
        Codes.load(codes.save(tmp_path / "nan.safetensors"))


def test_rows_that_are_not_finite_are_left_out_and_counted(tmp_path):
    x, labels = signed_rows()
    x[[3, 77]] = math.nan
    x[200, 5] = math.inf
    with pytest.warns(UserWarning, match="3 of 400 rows"):
        codes = fit_codes(store_of(tmp_path / "s", x, labels), QUICK)
    assert codes.source.nonfinite == 3 and codes.source.rows + codes.source.held_out == 397
    assert all(math.isfinite(epoch.loss) and math.isfinite(epoch.explained_variance) for epoch in codes.history)


def test_what_cannot_be_fitted_is_refused(tmp_path, store):
    with pytest.raises(ValueError, match="k must be at most the 64 latents, got 65"):
        fit_codes(store, CodesSettings(k=65))
    with pytest.raises(ValueError, match="must have features that vary, got 90 equal rows"):
        fit_codes(store_of(tmp_path / "flat", torch.ones(100, 4)), QUICK)
    with pytest.raises(ValueError, match="must have finite rows to fit codes on and to hold out, got 0 and 1"):
        fit_codes(store_of(tmp_path / "one", torch.ones(1, 4)), QUICK)
    with pytest.raises(StoreError, match="is not a feature store"):
        fit_codes(tmp_path, QUICK)
    with pytest.raises(ValueError, match=r"the loss is not finite in epoch .: lower learning_rate"):
        fit_codes(store, replace(QUICK, learning_rate=1e30))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"latents": 4, "k": 5}, "k must be at most the 4 latents, got 5"),
        ({"learning_rate": -1.0}, "learning_rate must be positive"),
        ({"validation_share": 1.0}, "validation_share must lie between 0 and 1"),
        ({"aux_weight": math.nan}, "aux_weight must be zero or positive"),
    ],
)
def test_settings_out_of_range_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        CodesSettings(**changes)
