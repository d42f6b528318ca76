"""Discriminative features, eps, scores and their file, against numpy and on real images."""

import math
import os

import numpy as np
import pytest
import torch

import sslk
from sslk.quality.discriminative import DiscriminativeFeatures
from tests.ops import oracle
from tests.ops.test_rows import representations


def test_set_lies_between_the_percentiles_of_the_activation_percentages():
    h = representations(500, 60)
    found = sslk.discover(h, eps=1.5, lower=30, upper=90)
    percent = 100 * oracle.active_set(h, 1.5).double().mean(0).numpy()
    low, high = np.percentile(percent, [30, 90])
    np.testing.assert_allclose(found.activation_percent.numpy(), percent)
    assert found.mask.tolist() == [bool(low <= a <= high and a > 0) for a in percent]
    assert (found.lower_percent, found.upper_percent) == (low, high)
    assert found.mean_active == pytest.approx(oracle.active_set(h, 1.5).sum(1).double().mean().item())
    inside = oracle.active_set(h, 1.5) & found.mask
    assert found.empty_share == pytest.approx((~inside.any(1)).double().mean().item())
    together = found.mask.int() + found.lower_tail.int() + found.upper_tail.int()
    assert torch.equal(together, torch.ones_like(together))


def test_auto_eps_is_the_largest_that_leaves_few_empty_sets():
    h = representations(400, 128, seed=3)
    found = sslk.discover(h, eps="auto")
    assert found.eps % 0.25 == 0 and found.empty_share <= 0.05
    above = sslk.eps_sweep(h, [found.eps + 0.25 * k for k in range(1, 12)])
    assert all(other.empty_share > 0.05 for other in above)


def test_two_sided_sets_serve_signed_features():
    h = representations(300, 64, signed=True)
    found = sslk.discover(h, eps=1.5, two_sided=True)
    expected = oracle.active_set(h, 1.5, two_sided=True).double().mean(0) * 100
    torch.testing.assert_close(found.activation_percent, expected)
    assert sslk.qscore(h, found).eps == 1.5
    torch.testing.assert_close(
        sslk.qscore(h, found).scores.double(), oracle.scores(h, found.mask, 1.5, True, True), rtol=1e-5, atol=1e-7
    )


def test_every_result_carries_its_statistics():
    h = representations(300, 64)
    found = sslk.discover(h, eps=1.5)
    result = sslk.qscore(h[:50], found)
    assert result.num_discriminative == found.num_discriminative == int(found.mask.sum())
    assert result.mean_active == pytest.approx(oracle.active_set(h[:50], 1.5).sum(1).double().mean().item())
    assert "eps 1.5" in found.summary() and "empty sets" in found.summary()


def test_file_round_trip(tmp_path):
    found = sslk.discover(representations(300, 64), eps=1.5)
    path = tmp_path / "set.safetensors"
    found.save(path)
    again = DiscriminativeFeatures.load(path)
    for name, value in vars(found).items():
        other = getattr(again, name)
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
    assert os.listdir(tmp_path) == [path.name]


def test_damaged_missing_and_foreign_files_are_refused_by_name(tmp_path):
    found = sslk.discover(representations(300, 64), eps=1.5)
    path = tmp_path / "set.safetensors"
    found.save(path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"set\.safetensors cannot be read as discriminative features, it is damaged"):
        DiscriminativeFeatures.load(path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        DiscriminativeFeatures.load(tmp_path / "none")
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="holds no discriminative features"):
        DiscriminativeFeatures.load(path)


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    found = sslk.discover(representations(300, 64), eps=1.5)
    path = tmp_path / "set.safetensors"
    found.save(path)
    before = path.read_bytes()

    def full_disk(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        found.save(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda h: sslk.discover(h[0]), ValueError, "must be a matrix"),
        (lambda h: sslk.discover(h[:, :0]), ValueError, "D > 0"),
        (lambda h: sslk.discover(h.long()), TypeError, "must be floating point, got torch.int64"),
        (lambda h: sslk.discover(h[:0]), ValueError, "at least one sample"),
        (lambda h: sslk.discover(h, lower=95, upper=50), ValueError, "lower < upper"),
        (lambda h: sslk.discover(h, lower=50, upper=50), ValueError, "lower < upper"),
        (lambda h: sslk.discover(h, lower=-1), ValueError, "percentiles"),
        (lambda h: sslk.discover(h, eps=-1.0), ValueError, "eps must be zero or positive"),
        (lambda h: sslk.discover(torch.ones(10, 5), eps=1.0), ValueError, "No feature is discriminative"),
        (lambda h: sslk.discover(torch.ones(10, 5), eps="auto"), ValueError, "eps='auto' found no eps"),
        (lambda h: sslk.qscore(h, torch.ones(3, dtype=torch.bool)), ValueError, "D=3 features but these have D=64"),
        (lambda h: sslk.qscore(h, torch.ones(64)), TypeError, "must be a bool mask"),
        (lambda h: sslk.qscore(h, [True] * 64), TypeError, "got list"),
        (lambda h: sslk.qscore(h, torch.zeros(64, dtype=torch.bool)), ValueError, "selects no feature"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call(representations(100, 64))


def test_unreachable_eps_warns():
    h = representations(100, 17)
    with pytest.warns(UserWarning, match=r"largest z-score among D=17 features is sqrt\(D - 1\) = 4.00"):
        result = sslk.qscore(h, torch.ones(17, dtype=torch.bool), eps=4.0)
    assert result.scores.abs().max() == 0 and result.empty_share == 1.0
    with pytest.warns(UserWarning, match="cannot be reached"), pytest.raises(ValueError, match="No feature"):
        sslk.discover(h, eps=math.sqrt(16))
