"""`sslk ablation lambdas --method`: pairs are trained and judged on held-out images, resumed, and never mixed up."""

import json

import numpy as np
import pytest
import torch

from sslk.cli import main
from sslk.data import load_dataset
from sslk.data.sample import load_sample
from sslk.features import FeatureStore
from sslk.models import load_backbone
from sslk.probes.outputs import ProbeOutputs
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.results.run import Run
from sslk.training.config import TrainingConfig
from sslk.training.search import lambda_trainer
from sslk.training.start import TrainingStart

SETTINGS = {"epochs": 1, "batch_size": 32, "learning_rate": 0.3, "view_size": 16}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    file = tmp_path_factory.mktemp("images") / "few.npz"
    pixels, labels = load_sample("train")
    np.savez(file, images=pixels[::14].permute(0, 2, 3, 1).numpy(), labels=labels[::14].numpy())
    return file


def test_search_trains_each_pair_once_on_the_rest_and_judges_on_what_is_held_out(images, tmp_path, capsys):
    words = [
        "train",
        "lambdas",
        "--method",
        "simclr",
        "--data",
        f"npz:{images}",
        "--out",
        str(tmp_path / "run"),
        "--lambda1",
        "0",
        "0.1",
        "--lambda2",
        "0",
        "--quiet",
    ]
    words += [word for key, value in SETTINGS.items() for word in (f"--training.{key}", str(value))]
    assert main(words) == 0, capsys.readouterr().err
    run = Run.load(tmp_path / "run")
    trained = {(row[1], row[2]): row[4] for row in run.tables[0].rows}
    trainings = tmp_path / "run" / "trainings"
    assert {folder.name for folder in trainings.iterdir()} == {"0-0-0", "0.1-0-0"}
    assert set(trained) == {(0.0, 0.0), (0.1, 0.0)}
    for (first, _), top1 in trained.items():
        folder = trainings / f"{first:g}-0-0" / "qscore"
        config = json.loads((folder / "config.json").read_text())
        assert (config["arm"], config["config"]["lambda1"]) == ("qscore", first)
        assert 100 * ProbeOutputs.load(folder).accuracy == pytest.approx(top1)
        held_out = sum(int(0.2 * count) for count in np.bincount(load_sample("train")[1][::14]))  # of every class
        assert (len(FeatureStore(folder / "train")), len(FeatureStore(folder / "test"))) == (143 - held_out, held_out)
        assert not (folder.parent / "before").exists() or not (folder.parent / "before" / "test").exists()
    sets = [DiscriminativeFeatures.load(folder / "discriminative.safetensors") for folder in trainings.iterdir()]
    assert sets[0].summary() == sets[1].summary()  # found once
    assert torch.equal(sets[0].activation_percent, sets[1].activation_percent)
    journal = (tmp_path / "run" / "journal.json").read_text()
    assert main(words) == 0
    assert (tmp_path / "run" / "journal.json").read_text() == journal
    capsys.readouterr()
    assert main(["0.2" if word == "0.3" else word for word in words]) == 1
    assert "learning_rate = 0.3, this one has 0.2" in capsys.readouterr().err


def test_search_refuses_what_it_cannot_judge(images, tmp_path, capsys):
    assert main(["train", "lambdas", "--out", str(tmp_path / "x")]) == 1
    assert "give either --method" in capsys.readouterr().err
    data = load_dataset(f"npz:{images}", "train")
    start = TrainingStart("simclr", load_backbone("embedded"), {}, data)
    with pytest.raises(ValueError, match="must leave images on both sides, got 1"):
        lambda_trainer(start, tmp_path, TrainingConfig(), validation_share=1)
    data._labels = None
    with pytest.raises(ValueError, match="data must have labels"):
        lambda_trainer(start, tmp_path, TrainingConfig())


def test_subset_keeps_images_labels_and_names_together(images):
    data = load_dataset(f"npz:{images}", "train")
    part = data.subset(torch.tensor([5, 3]))
    assert part.labels.tolist() == [data.labels[5], data.labels[3]]
    assert part[1][0].tobytes() == data[3][0].tobytes() and part.image_name(0) == data.image_name(5)
    assert part.fingerprint != data.fingerprint != data.subset([3, 5]).fingerprint != part.fingerprint
    assert len(data) == 143
