"""Findings of studies on little data say so, and give no verdict."""

import torch

from sslk.cli import main
from sslk.report.run import Run
from sslk.report.small_data import empty_sets, small_data, standard_error, tied_settings
from tests.probes.stores import write_store


def test_nothing_is_said_of_enough_data():
    assert small_data(train=50_000, features=512, test=10_000, classes=10) == []
    assert tied_settings([0.2, 0.4, 0.3], 500) == [] and empty_sets(0.05, 0.06) == []
    assert standard_error(10_000) == 0.5


def findings(folder):
    return " ".join(Run.load(folder).findings)


def test_studies_of_few_photos_with_many_features(tmp_path):
    """Sixty separable samples of 200 features: ties, N < D, and a standard error far above a point."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(120) % 3
    x = torch.relu(torch.randn(120, 200, generator=generator) + 3 * torch.randn(3, 200, generator=generator)[y])
    write_store(tmp_path / "train", x[:60], y[:60])
    write_store(tmp_path / "test", x[60:], y[60:])
    pair = ["--train", str(tmp_path / "train"), "--test", str(tmp_path / "test"), "--quiet"]
    assert main(["compression", *pair, "--eps", "1", "--seeds", "2", "--reductions", "0", "60",
                 "--out", str(tmp_path / "c")]) == 0  # fmt: skip
    said = findings(tmp_path / "c")
    assert "cannot be said" in said and "can be left out within one point" in said and "up to 60" not in said
    assert "60 training samples have 200 features" in said
    assert Run.load(tmp_path / "c").summary["lossless_discriminative"] is None
    assert main(["probe", "linear", *pair, "--epochs", "5", "--out", str(tmp_path / "l")]) == 0
    said = findings(tmp_path / "l")
    assert "settings tie for the best accuracy on 6 validation samples" in said
    assert "60 training samples have 200 features" in said


def test_sets_that_are_empty_for_the_test_samples_only(tmp_path):
    """Test samples whose features are all but alike: eps auto, fitted to the training samples, leaves them empty."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.relu(torch.randn(400, 64, generator=generator)), torch.arange(400) % 2
    x[200:260] = torch.tensor([1.0, 2.0]).repeat(32)  # z-scores of -1 and 1 only
    write_store(tmp_path / "train", x[:200], y[:200])
    write_store(tmp_path / "test", x[200:], y[200:])
    pair = ["--train", str(tmp_path / "train"), "--quiet"]
    test = str(tmp_path / "test")
    assert main(["probe", "linear", *pair, "--test", test, "--epochs", "2", "--out", str(tmp_path / "l")]) == 0
    words = ["failure", test, *pair, "--outputs", str(tmp_path / "l"), "--resamples", "20", "--out"]
    assert main([*words, str(tmp_path / "f")]) == 0
    run = Run.load(tmp_path / "f")
    train, share = run.summary["empty_share_train"], run.summary["empty_share"]
    assert train <= 0.05 and share >= 0.3
    assert f"{100 * train:.1f} % of the training samples but {100 * share:.1f} % of the test samples" in findings(
        tmp_path / "f"
    )
