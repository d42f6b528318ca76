"""Accuracy over pre-training: which epochs, measured once, by the images and the probe that the page names."""

import csv

import numpy as np
import pytest
import torch

from examples.reproduce import curves
from examples.reproduce.curves_run import Curve, curves_run
from sslk.data.sample import load_sample
from sslk.features.by_name import extract_pair
from sslk.features.settings import ExtractSettings
from sslk.models import ModelSource
from sslk.models.cifar_resnet import CifarResNet
from sslk.probes import ProbeOutputs, logreg_probe
from sslk.results.run import Run
from sslk.training.checkpoints import save_method


def keep(folder, epoch, schedule, width=256):
    """An encoder as `examples/pretrain.py --keep` leaves it, of its initial values."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(epoch)
    about = {"epochs": str(epoch), "schedule": str(schedule)}
    save_method(CifarResNet((16, 32, 64, width)), folder / f"epoch-{epoch:03d}.safetensors", about, half=True)


def rows_of(out, method):
    """What the table of numbers says of a method."""
    lines = (out / "curves.csv").read_text().splitlines()
    return [row for row in csv.DictReader(lines) if row["method"] == method]


@pytest.fixture
def place(tmp_path):
    for split, count in (("train", 90), ("test", 40), ("first", 60)):
        images, labels = load_sample("test" if split == "test" else "train")
        rows = torch.arange(count) * 701 % len(images)  # of all classes: the sample lies in their order
        np.savez(tmp_path / f"{split}.npz", images=images[rows].permute(0, 2, 3, 1).numpy(), labels=labels[rows].numpy())
    for epoch in (1, 2):
        keep(tmp_path / "runs" / "byol", epoch, 10)
    keep(tmp_path / "runs" / "simclr", 1, 1, width=128)
    return tmp_path


def test_the_command_measures_what_is_missing_and_nothing_twice(place, monkeypatch):
    measured, probe = [], curves.logreg_probe

    def counted(train, test, **more):
        measured.append(tuple(train[0].shape))
        return probe(train, test, **more)

    monkeypatch.setattr(curves, "logreg_probe", counted)
    data = f"npz:{place}/train.npz+npz:{place}/test.npz"
    words = ["--runs", str(place / "runs"), "--data", data, "--out", str(place / "out"), "--train-images", "60"]
    curves.main(words)
    assert measured == [(60, 256), (60, 256), (60, 128)]
    first = rows_of(place / "out", "byol")
    for epoch in (3, 9, 10):
        keep(place / "runs" / "byol", epoch, 10)
    curves.main(words)
    assert measured[3:] == [(60, 256)] * 3  # 9 is where the last tenth begins
    rows = rows_of(place / "out", "byol")
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "9", "10"] and rows[:2] == first
    torch.manual_seed(99)  # trained again: another file
    save_method(CifarResNet(), place / "runs" / "byol" / "epoch-002.safetensors", {"schedule": "10"}, half=True)
    curves.main(words)
    assert len(measured) == 7
    run = Run.load(place / "out")
    assert run.tables[0].rows[0][:3] == ["BYOL", 10, 10] and run.tables[0].rows[1][-1] is None
    assert "the first 60 training images, tested on 40" in run.findings[0]
    assert "%" in (place / "out" / "curves.svg").read_text() and len(run.measures) == 6
    with pytest.raises(SystemExit, match="holds no METHOD/epoch-NNN"):
        curves.main([*words[:1], str(place), *words[2:]])


def test_a_point_is_the_probe_of_the_first_images(place):
    data = f"npz:{place}/train.npz+npz:{place}/test.npz"
    curves.measure_curves(place / "runs", data, place / "out", 60)
    model = ModelSource(f"cifar:compact@{place}/runs/byol/epoch-002.safetensors")
    stores = extract_pair(model, f"npz:{place}/first.npz+npz:{place}/test.npz", place / "features", ExtractSettings(workers=0))
    expected = logreg_probe(*stores).outputs
    found = ProbeOutputs.load(place / "out" / "points" / "byol-002.safetensors")
    assert torch.equal(found.labels, expected.labels) and torch.allclose(found.logits, expected.logits, atol=2e-2)
    assert float((found.predictions == expected.predictions).float().mean()) > 0.97


def test_epochs_and_the_last_tenth():
    assert curves.wanted_epochs(range(1, 101), 100)[-9:] == [25, 30, 40, 50, 60, 70, 80, 90, 100]
    assert curves.wanted_epochs(range(1, 31), 30)[-4:] == [20, 25, 27, 30]
    assert curves.wanted_epochs(range(1, 28), 30)[-2:] == [20, 25]
    hits = torch.arange(1000) < 500
    gains = {"up": hits | (torch.arange(1000) >= 960), "down": hits & (torch.arange(1000) >= 40), "same": ~hits}
    for name, last in gains.items():
        curve = Curve(name, 30, {27: hits, 30: last})
        gain = curve.last_tenth()
        assert gain.value == pytest.approx(100 * (float(last.double().mean()) - 0.5))
        # Of pairs: 40 of 1,000 images changed, so the difference of two shares is far more certain than each.
        assert name == "same" or gain.high - gain.low == pytest.approx(2 * 1.96 * 100 * (0.04 * 0.96 / 1000) ** 0.5, rel=0.1)
        words = {"up": "still rising: +4.00", "down": "falling: -4.00", "same": "no rise that these images could tell"}
        assert words[name] in curves_run([curve], 10).findings[1]
    assert Curve("x", 30, {20: hits, 25: hits}).last_tenth() is None
    assert "not at its end yet" in curves_run([Curve("x", 30, {25: hits})], 10).findings[1]
