"""Two stores are joined by the names of their classes: a folder more or less in one of them moves no label."""

import json

import pytest
import torch

from sslk.cli import main
from sslk.features import FeatureStore, StoreSpec, StoreWriter
from sslk.features.manifest import StoreError
from sslk.probes.linear import linear_probe
from sslk.probes.settings import LinearSettings
from sslk.quality.linear_evaluation import _evaluated
from tests.probes.stores import features, write_store

NAMES = ("cat", "dog", "owl")
SHIFTED = (".ipynb_checkpoints", "cat", "dog", "empty", "owl")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Training rows; test rows numbered alike; the same test rows numbered among two classes more."""
    place = tmp_path_factory.mktemp("stores")
    train = write_store(place / "train", *features(400, classes=(0, 1, 2)), names=NAMES)
    x, y = features(160, classes=(0, 1, 2), seed=1)
    y[:3] = -1  # unlabelled
    shifted = y.clone()
    for label, name in enumerate(NAMES):
        shifted[y == label] = SHIFTED.index(name)
    return train, write_store(place / "test", x, y, names=NAMES), write_store(place / "more", x, shifted, names=SHIFTED)


def test_labels_are_joined_by_name(stores):
    train, test, more = stores
    joined = more.with_classes_of(train)
    assert joined.labels().tolist() == test.labels().tolist()
    assert more.labels().tolist() != test.labels().tolist() and test.with_classes_of(train) is test


def test_the_probe_is_as_good_and_says_what_is_lacking(stores):
    train, test, more = stores
    same = linear_probe(train, test, LinearSettings(epochs=3))
    with pytest.warns(UserWarning, match=r"train lacks 2 of the classes of .*more \(.ipynb_checkpoints, empty\)"):
        other = linear_probe(train, more, LinearSettings(epochs=3))
    assert other.top1 == same.top1 > 0.6 and other.outputs.labels.tolist() == same.outputs.labels.tolist()


@pytest.mark.parametrize("command", [["probe", "linear", "--epochs", "3"], ["probe", "knn", "--neighbors", "5"]])
def test_commands_join_by_name(stores, tmp_path, command, recwarn):
    train, *tests = stores
    found = []
    for number, test in enumerate(tests):
        words = ["--train", str(train.path), "--test", str(test.path), "--out", str(tmp_path / str(number)), "--quiet"]
        assert main([*command, *words]) == 0
        found.append(json.loads((tmp_path / str(number) / "results.json").read_text())["summary"])
    assert found[0] == found[1]
    assert any("Labels are joined by class name" in str(warning.message) for warning in recwarn)


def test_the_order_of_training_classes_may_differ(stores, tmp_path):
    _, test, _ = stores
    x, y = features(400, classes=(0, 1, 2))
    turned = write_store(tmp_path / "turned", x, 2 - y, names=NAMES[::-1])
    found = linear_probe(turned, test, LinearSettings(epochs=3))
    assert found.top1 == pytest.approx(linear_probe(stores[0], test, LinearSettings(epochs=3)).top1, abs=0.05)


def test_a_label_without_a_name(stores, tmp_path):
    train, _, _ = stores
    x, y = features(20, classes=(0, 7))
    with pytest.raises(StoreError, match="holds the label 7, and the store names 5 classes"):
        write_store(tmp_path / "odd", x, y, names=SHIFTED).with_classes_of(train).labels()


def test_a_shard_of_which_every_image_was_unreadable(stores, tmp_path):
    train, _, _ = stores
    spec = StoreSpec("m", "0" * 64, "d", "0" * 64, "none", samples=4, num_features=2, shard_rows=2, classes=SHIFTED)
    with StoreWriter(tmp_path / "holes", spec) as writer:
        writer.write(
            0, torch.zeros(0, 2), torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long), ((0, "x"), (1, "x"))
        )
        writer.write(1, torch.zeros(2, 2), torch.tensor([1, 4]), torch.tensor([2, 3]))
    assert FeatureStore(tmp_path / "holes").with_classes_of(train).labels().tolist() == [0, 2]


def test_transfer_does_not_answer_from_a_result_of_other_rules(stores, tmp_path):
    train, test, _ = stores
    found = _evaluated("d", train, test, tmp_path, LinearSettings(epochs=2), None, None)
    content = json.loads((tmp_path / "result.json").read_text())
    content["result"]["top1"] = 0.085  # as labels joined by number gave it
    (tmp_path / "result.json").write_text(json.dumps(content))
    assert (
        _evaluated("d", train, test, tmp_path, LinearSettings(epochs=2), None, None).top1 == 0.085
    )  # the same rules: not measured again
    del content["key"]["rules"]
    (tmp_path / "result.json").write_text(json.dumps(content))
    assert _evaluated("d", train, test, tmp_path, LinearSettings(epochs=2), None, None) == found


def test_samples_of_classes_that_training_lacks_are_counted_and_said(tmp_path):
    """Owls in the test data only: wrong by construction, and the findings say how many."""
    train = write_store(tmp_path / "train", *features(200, classes=(0, 1)), names=("cat", "dog"))
    x, y = features(120, classes=(0, 1, 2), seed=1)
    test = write_store(tmp_path / "test", x, y, names=NAMES)
    owls = int((y == 2).sum())
    for command in (["probe", "linear", "--epochs", "3"], ["probe", "knn", "--neighbors", "5"]):
        out = tmp_path / command[1]
        words = ["--train", str(train.path), "--test", str(test.path), "--out", str(out), "--quiet"]
        with pytest.warns(UserWarning, match="joined by class name"):
            assert main([*command, *words]) == 0
        found = json.loads((out / "results.json").read_text())
        said = " ".join(found["findings"])
        assert "train lacks 1 of the classes of" in said and "(owl)" in said
        assert f"{owls} of 120 test samples are of one class that training lacks (2) and count as wrong" in said
        assert found["summary"]["unknown_class"] == owls
        assert found["summary"]["samples"] == 120 and found["summary"]["top1"] <= 1 - owls / 120
