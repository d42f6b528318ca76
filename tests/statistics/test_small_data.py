"""Findings of studies on little data say so, and give no verdict."""

import torch

from sslk.cli import main
from sslk.results.run import Run
from sslk.statistics.small_data import (
    auroc_standard_error,
    empty_sets,
    few_rows,
    lost_in_noise,
    small_data,
    standard_error,
    tied_settings,
)
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
    assert (
        main(
            [
                "qscore",
                "compression",
                *pair,
                "--eps",
                "1",
                "--seeds",
                "2",
                "--reductions",
                "0",
                "60",
                "--out",
                str(tmp_path / "c"),
            ]
        )
        == 0
    )
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
    words = ["qscore", "failure", test, *pair, "--outputs", str(tmp_path / "l"), "--resamples", "20", "--out"]
    assert main([*words, str(tmp_path / "f")]) == 0
    run = Run.load(tmp_path / "f")
    train, share = run.summary["empty_share_train"], run.summary["empty_share"]
    assert train <= 0.05 and share >= 0.3
    assert f"{100 * train:.1f} % of the training samples but {100 * share:.1f} % of the test samples" in findings(tmp_path / "f")


def test_standard_error_of_an_auroc():
    """Against the deviation over many draws of two normals a unit apart."""
    generator = torch.Generator().manual_seed(0)
    right, wrong = torch.randn(2000, 60, generator=generator) + 1, torch.randn(2000, 40, generator=generator)
    areas = (right[:, :, None] > wrong[:, None, :]).double().mean((1, 2))
    assert abs(auroc_standard_error(float(areas.mean()), 60, 40) / float(areas.std()) - 1) < 0.1
    assert auroc_standard_error(0.7, 5, 0) == float("inf")
    assert few_rows(500, 100) == [] and lost_in_noise(0.1, 0.02, "an AUROC", 100) == []


def test_sweeps_sides_and_sets_of_few_samples_say_so(tmp_path, capsys):
    """Sixty samples of 200 features, half of them answered rightly by chance."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.relu(torch.randn(120, 200, generator=generator)), torch.arange(120) % 3
    write_store(tmp_path / "train", x[:60], y[:60])
    write_store(tmp_path / "test", x[60:], y[60:])
    train, test, head = (str(tmp_path / name) for name in ("train", "test", "l"))
    assert main(["probe", "linear", "--train", train, "--test", test, "--epochs", "2", "--out", head, "--quiet"]) == 0
    few = "60 samples choose among 200 features: an activation percentage is uncertain by up to 6.5 points"
    words = ["qscore", "thresholds", "--train", train, "--test", test, "--outputs", head, "--eps", "0.5", "0.55"]
    assert main([*words, "--bands", "50-100", "--out", str(tmp_path / "sweep"), "--quiet"]) == 0
    said = findings(tmp_path / "sweep")
    assert few in said and "is less than two standard errors of an AUROC on 60 samples" in said
    words = ["qscore", "sides", test, "--train", train, "--outputs", head, "--eps", "1", "--resamples", "20", "--quiet"]
    assert main([*words, "--out", str(tmp_path / "sides")]) == 0
    assert few in findings(tmp_path / "sides")
    capsys.readouterr()
    assert main(["qscore", "discover", train, "--out", str(tmp_path / "set.safetensors"), "--eps", "2", "--quiet"]) == 0
    assert few in capsys.readouterr().out
    words = [
        "qscore",
        "before-after",
        "--before",
        test,
        "--after",
        test,
        "--before-outputs",
        head,
        "--after-outputs",
        head,
        "--discriminative",
        str(tmp_path / "set.safetensors"),
        "--resamples",
        "20",
    ]
    assert main([*words, "--out", str(tmp_path / "change")]) == 0
    assert "may be nothing" in findings(tmp_path / "change")
