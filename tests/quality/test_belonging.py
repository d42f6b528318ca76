"""A discriminative set remembers the model it was found on, and is refused for every other one."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sslk.cli import main
from sslk.features import StoreError
from sslk.models import load_backbone
from sslk.probes.outputs import ProbeOutputs
from sslk.quality.before_after import before_after
from sslk.quality.belonging import check_set, load_set
from sslk.quality.discovery import discover
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.quality.score import qscore
from tests.probes.stores import features, write_store

OTHER = "1" * 64
SENTENCE = r"found on 'm' with weights 000000000000 but .* has 111111111111: it belongs to another model"


@pytest.fixture
def stores(tmp_path):
    """A store, one of the same rows under other weights of the same D, and the set of the first."""
    x, y = features(300)
    first = write_store(tmp_path / "first", x, y)
    second = write_store(tmp_path / "second", x + 0.1, y, model="n", weights=OTHER)
    discover(first, 1.5).save(tmp_path / "set")
    return first, second, tmp_path / "set"


def test_set_of_a_store_names_its_model_and_scores_no_other(stores):
    first, second, path = stores
    found = DiscriminativeFeatures.load(path)
    assert (found.model, found.weights_hash) == ("m", "0" * 64)
    assert discover(first, "auto").model == "m"
    qscore(first, found)
    with pytest.raises(StoreError, match=SENTENCE):
        qscore(second, found)
    with pytest.raises(StoreError, match=SENTENCE):
        load_set(path, second)
    assert not torch.equal(qscore(second, found, further_trained=True).scores, qscore(first, found).scores)


def test_file_without_a_model_loads_as_unknown_and_compares_d_alone(stores, tmp_path):
    first, second, path = stores
    with safe_open(path, "pt") as file:
        header = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in ("mask", "activation_percent")}
    settings = json.loads(header["settings"])
    assert {"model", "weights_hash"} <= set(settings)
    for gone in (("model",), ("model", "weights_hash")):
        old = {key: value for key, value in settings.items() if key not in gone}
        save_file(tensors, tmp_path / "old", header | {"settings": json.dumps(old)})
        found = DiscriminativeFeatures.load(tmp_path / "old")
        assert found.model is None
        check_set(found, first)
    check_set(found, second)  # of unknown weights: nothing to compare
    with pytest.raises(StoreError, match="found on an unknown model with weights 0000"):
        check_set(replace(found, weights_hash="0" * 64), second)
    x, y = features(60, d=40)
    with pytest.raises(StoreError, match=r"found for D=48 features but .* has D=40"):
        check_set(found, write_store(tmp_path / "narrow", x, y), further_trained=True)


def test_before_after_compares_the_set_with_the_encoder_before(stores):
    first, second, path = stores
    outputs = []
    for store in (first, second):
        batch = store.load()
        logits = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
        source = {"weights_hash": store.spec.weights_hash}
        outputs.append(ProbeOutputs.from_logits(logits, torch.tensor([3, 7, 40]), batch.labels, batch.indices, source=source))
    found = DiscriminativeFeatures.load(path)
    before_after(first, second, *outputs, found, resamples=10)
    with pytest.raises(StoreError, match=SENTENCE):
        before_after(second, first, *outputs[::-1], found, resamples=10)


def test_commands_refuse_the_set_in_one_sentence(stores, tmp_path, capsys):
    first, second, path = stores
    mine = ["--discriminative", str(path)]
    assert main(["qscore", "score", str(first.path), *mine, "--quiet"]) == 0
    capsys.readouterr()
    commands = {
        "qscore score": [str(second.path)],
        "train finetune": ["--method", "simclr", "--out", f"{tmp_path}/f"],
        "interpret heatmaps": ["--model", "embedded", "--data", "sample", "--out", f"{tmp_path}/h"],
        "interpret gallery": ["--kind", "samples", "--model", "embedded", "--data", "sample", "--out", f"{tmp_path}/g"],
    }
    wide = replace(DiscriminativeFeatures.from_counts(torch.arange(256), 300, eps=2.0), model="m", weights_hash="0" * 64)
    wide.save(tmp_path / "wide")
    for name, words in commands.items():
        chosen = mine if name == "qscore score" else ["--discriminative", f"{tmp_path}/wide"]
        assert main([*name.split(), *words, *chosen]) == 1, name
        said = capsys.readouterr().err.splitlines()
        # Where a network is loaded, its line comes first.
        assert "found on 'm' with weights 000000000000" in said[-1] and len(said) <= 2, (name, said)
    assert main(["qscore", "score", str(second.path), *mine, "--further-trained", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 300


def test_failure_refuses_the_set_of_other_weights(stores, tmp_path, capsys):
    _, second, path = stores
    words = ["probe", "kfold", str(second.path), "--l2", "1e-2", "--out", f"{tmp_path}/kfold", "--quiet"]
    assert main(words) == 0
    words = [
        "qscore",
        "failure",
        str(second.path),
        "--outputs",
        f"{tmp_path}/kfold",
        "--discriminative",
        str(path),
        "--out",
        f"{tmp_path}/failure",
        "--resamples",
        "10",
        "--quiet",
    ]
    capsys.readouterr()
    assert main(words) == 1
    assert "belongs to another model" in capsys.readouterr().err
    assert main([*words, "--further-trained"]) == 0


def test_network_under_two_names_is_one_model():
    backbone = load_backbone("embedded")
    found = DiscriminativeFeatures.from_counts(torch.arange(256), 300, eps=2.0)
    check_set(replace(found, model="cifar:compact", weights_hash=backbone.weights_hash), backbone)
    check_set(found, backbone)
