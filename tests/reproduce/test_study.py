"""The study as a user runs it: steps, subset, controls, resumption, and a page whose numbers are those of the runs."""

import json

import numpy as np
import pytest
import torch

from examples.reproduce import study as command
from examples.reproduce.controls import supervised, untrained
from examples.reproduce.encoders import METHODS, controls, find_encoders, missing_methods
from examples.reproduce.page import write_page
from examples.reproduce.reverse import ATTRIBUTES
from examples.reproduce.steps import StudyConfig, arms, make_steps
from examples.reproduce.subset import CIFAR10_CLASSES, write_subset
from sslk.concepts import ClassAttributes
from sslk.models import load_backbone
from tests.reproduce import synthetic as made


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 10
    # Brightness tells the classes apart, so that a few steps with labels can learn something.
    images = (labels[:, None, None, None] * 25 + rng.integers(0, 20, (400, 32, 32, 3))).astype(np.uint8)
    np.savez(tmp_path / "cifar10_train.npz", images=images, labels=labels)
    np.savez(tmp_path / "cifar10_test.npz", images=images, labels=labels)
    return tmp_path


def test_a_subset_is_balanced_and_belongs_to_its_seed(data):
    source = str(data / "cifar10_train.npz")
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_subset(source, str(data / f"{name}.npz"), 50, seed)
    a, b, c = (np.load(data / f"{name}.npz") for name in "abc")
    assert np.bincount(a["labels"]).tolist() == [5] * 10
    assert (a["source_index"] == b["source_index"]).all()
    assert not (a["source_index"] == c["source_index"]).all()
    assert (a["images"] == np.load(source)["images"][a["source_index"]]).all()
    assert tuple(a["classes"]) == CIFAR10_CLASSES
    with pytest.raises(ValueError, match="multiple of the 10 classes, got 55"):
        write_subset(source, str(data / "d.npz"), 55, 0)
    with pytest.raises(ValueError, match="has 40 images of class 0, 50 are needed"):
        write_subset(source, str(data / "d.npz"), 500, 0)


def test_controls_are_read_as_encoders_and_labels_teach(data):
    supervised(str(data / "cifar10_train.npz"), str(data / "s.safetensors"), epochs=2, batch_size=50)
    untrained(str(data / "u.safetensors"), seed=3)
    untrained(str(data / "v.safetensors"), seed=3)
    found = [load_backbone("cifar:compact", data / f"{name}.safetensors") for name in "suv"]
    assert [backbone.checkpoint.share_matched for backbone in found] == [1.0, 1.0, 1.0]
    assert found[0].weights_hash != found[1].weights_hash == found[2].weights_hash
    assert found[0].net.stem[1].running_mean.abs().max() > 0  # it was trained
    assert torch.equal(found[1].net.stem[1].running_mean, torch.zeros(16))


def test_every_class_has_attributes():
    assert len(ClassAttributes(ATTRIBUTES, CIFAR10_CLASSES).names) == 12


def test_encoders_of_a_folder_join_the_embedded_one(tmp_path):
    untrained_file = tmp_path / "byol" / "model.safetensors"
    untrained(str(untrained_file))
    found = find_encoders(tmp_path)
    assert [encoder.name for encoder in found] == ["simclr-embedded", "byol"]
    assert missing_methods(found) == [method for method in METHODS if method not in ("simclr", "byol")]
    untrained_file.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is damaged"):
        find_encoders(tmp_path)
    with pytest.raises(ValueError, match="holds no METHOD"):
        find_encoders(tmp_path / "byol")


def test_steps_come_after_those_they_need(tmp_path):
    steps = make_steps(find_encoders(None) + controls(tmp_path), [tmp_path, tmp_path], tmp_path, StudyConfig())
    seen = set()
    for step in steps:
        assert set(step.needs) <= seen, step.name
        assert step.name not in seen
        seen.add(step.name)
    assert sum(step.call is arms for step in steps) == 3


def test_the_command_lists_its_steps_and_refuses_what_does_not_fit(data, capsys):
    arguments = [
        "--data",
        str(data),
        "--out",
        str(data / "run"),
        "--train-images",
        "200",
        "--test-images",
        "100",
        "--supervised-epochs",
        "1",
        "--masked-images",
        "60",
        "--clusters",
        "5",
        "--arm-seeds",
        "0",
        "--no-imagenet-concepts",
    ]
    assert command.main([*arguments, "--steps"]) == 0
    steps = capsys.readouterr().out.splitlines()
    assert len(steps) == 3 + 9 + 2 * 10 and all(line.startswith("open") for line in steps)
    assert command.main(["--data", str(data / "none"), "--out", str(data / "run")]) == 2
    assert "needs cifar10_train.npz" in capsys.readouterr().err
    state = {"format": "sslk-evaluation-1", "about": {"seed": 7}, "steps": {}}
    (data / "other").mkdir()
    (data / "other" / "evaluation.json").write_text(json.dumps(state))
    assert command.main([*arguments, "--out", str(data / "other")]) == 2
    assert "seed 7, not 0" in capsys.readouterr().err


def test_the_page_shows_the_numbers_of_the_runs(tmp_path):
    runs = {
        "linear": made.probe(0.7123),
        "failure": made.failure(0.6321),
        "masked": made.masked(),
        "compression": made.compression(70.0, discriminative=69.5),
        "reverse": made.reverse(all=[0.41, 0.43]),
    }
    seeds = {seed: made.arms(60.0, 59.0, 61.0 + 0.1 * seed) for seed in range(3)}
    whole = made.study((made.encoder(name="simclr-embedded"), runs, seeds), (made.encoder("untrained"), runs))
    made.save(whole, tmp_path / "run")
    made.save(made.study((made.encoder(name="simclr-embedded"), {"linear": made.probe(0.9)}), seed=1), tmp_path / "second")
    page = write_page(tmp_path / "run", tmp_path / "docs", tmp_path / "second").read_text()
    assert "71.2 [69.2, 73.2]" in page and "0.632 [0.612, 0.652]" in page and "0.420" in page
    assert "**Missing:** 7 of the eight methods (swav, moco" in page
    assert "0 of 1 numbers have overlapping" in page
    verdicts = {v["key"]: v["state"] for v in json.loads((tmp_path / "docs/reproduction/verdicts.json").read_text())}
    assert verdicts["q-auroc"] == "holds" and verdicts["q-top1"] == "holds" and verdicts["q-supervised"] == "not tested"
    for name in ("compression", "cka", "failure"):
        assert (tmp_path / f"docs/reproduction/{name}.svg").stat().st_size > 1000
        assert f"reproduction/{name}.svg" in page
