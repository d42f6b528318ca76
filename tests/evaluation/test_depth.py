"""A network layer by layer: the numbers of the table, against the definitions."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import sslk
from sslk.cli import main
from sslk.evaluation import DepthSettings, depth_study
from sslk.features import FeatureStore, StoreSpec, StoreWriter
from sslk.models import ModelSource


def store(path, features, labels, data="a") -> FeatureStore:
    spec = StoreSpec("tiny", "0" * 64, "noise", data * 64, "none", samples=len(features), num_features=features.shape[1])
    with StoreWriter(path, spec) as writer:
        writer.write(0, features, labels, torch.arange(len(features)))
    return FeatureStore(path)


@pytest.fixture(scope="module")
def layers(tmp_path_factory):
    """Class means that stand out more and more from noise, of 12, 20 and 30 features."""
    folder, generator, found = tmp_path_factory.mktemp("depth"), torch.Generator().manual_seed(0), {}
    for place, (name, width) in enumerate((("first", 12), ("second", 20), ("third", 30))):
        centres = torch.randn(3, width, generator=generator) * place
        pair = []
        for role, count in (("train", 300), ("test", 90)):
            labels = torch.arange(count) % 3
            features = (centres[labels] + torch.randn(count, width, generator=generator)).relu()
            pair.append(store(folder / f"{name}-{role}", features, labels, "a" if role == "train" else "b"))
        found[name] = tuple(pair)
    return found


def debiased_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Song et al.'s estimator from the Gram matrices without their diagonals."""

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        n = len(k)
        one = np.ones(n)
        product = np.trace(k @ m) + one @ k @ one * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * one @ k @ m @ one
        return product / (n * (n - 3))

    k, m = (a @ a.T for a in (x.astype(float), y.astype(float)))
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def test_every_number_is_that_of_its_layer(layers) -> None:
    run = depth_study(layers, DepthSettings(epochs=5))
    rows = {row[0]: dict(zip(run.tables[0].columns, row, strict=True)) for row in run.tables[0].rows}
    assert list(rows) == ["first", "second", "third"]
    tests = {name: pair[1].load().features.numpy() for name, pair in layers.items()}
    for name, (train, test) in layers.items():
        assert rows[name]["D"] == train.num_features
        probe = sslk.linear_probe(train, test, sslk.LinearSettings(epochs=5))
        assert rows[name]["linear top-1 [%]"] == pytest.approx(100 * probe.top1)
        assert rows[name]["CKA with the last"] == pytest.approx(
            1 if name == "third" else debiased_cka(tests[name], tests["third"])
        )
    matrix = {row[0]: row[1:] for row in run.tables[1].rows}
    assert matrix["first"][1] == matrix["second"][0] == pytest.approx(debiased_cka(tests["first"], tests["second"]))
    assert rows["third"]["linear top-1 [%]"] > 90 > rows["first"]["linear top-1 [%]"]
    assert run.findings[0].startswith("The linear probe is best at third")


def test_layers_of_other_images_are_refused(layers, tmp_path) -> None:
    other = store(tmp_path / "other", torch.rand(90, 5), torch.arange(90) % 3, "c")
    with pytest.raises(ValueError, match=r"of the same images, .*other of 'x' is of others than"):
        depth_study({"first": layers["first"], "x": (layers["first"][0], other)})
    with pytest.raises(ValueError, match="at least two, got first"):
        depth_study({"first": layers["first"]})


def test_the_command_from_the_network_to_the_figure(tmp_path, capsys) -> None:
    words = f"depth --model cifar:compact@random --data sample --layer 1 -1 --epochs 1 --out {tmp_path} --quiet"
    assert main(words.split()) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["title"] == "cifar:compact (random weights) over depth"
    assert [row[:2] for row in results["tables"][0]["rows"]] == [["mean of stages.1", 32], ["mean of stages.3", 256]]
    assert (tmp_path / "depth.svg").stat().st_size > 1000
    spec = FeatureStore(tmp_path / "features" / "test" / "mean-of-stages.1").spec
    assert (spec.feature, spec.num_features) == ("mean of stages.1", 32)
    assert spec.weights_hash == ModelSource("cifar:compact@random", layer=("1",)).load().weights_hash  # as taken alone
    assert main(words.split()) == 0  # nothing is extracted again
    assert main(["depth", "--model", "cifar:compact@random", "--layer", "9", "1", "--data", "sample", "--out", "x"]) == 1
    assert "layer=9 is out of range: the network has 4 blocks" in capsys.readouterr().err
