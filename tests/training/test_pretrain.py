"""`examples/pretrain.py`: encoders kept by epoch, other widths, and a new schedule from what another run has kept."""

import json
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from sslk.models import load_backbone, project

EXAMPLES = Path(__file__).parents[2] / "examples"
TINY = ["--data", "sample", "--images", "32", "--batch-size", "16", "--size", "16"]


@pytest.fixture
def call(monkeypatch):
    """Runs an example's `main` in this process."""
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])

    def run(script, *words):
        monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
        __import__(script).main()

    return run


def last(folder):
    return torch.load(folder / "last.ckpt", weights_only=True)


def test_every_turn_keeps_its_encoder_of_any_width(call, tmp_path):
    call("pretrain", *TINY, "--out", tmp_path, "--methods", "simsiam", "--epochs", 3, "--keep", "--channels", 16, 32, 64, 128)
    kept = [load_file(tmp_path / "simsiam" / f"epoch-{epoch:03d}.safetensors") for epoch in (1, 2, 3)]
    model = load_file(tmp_path / "simsiam" / "model.safetensors")
    encoder = {name.removeprefix("backbone."): tensor for name, tensor in model.items() if name.startswith("backbone.")}
    assert set(kept[2]) == set(encoder) and all(torch.equal(kept[2][name], encoder[name]) for name in encoder)
    assert not any(torch.equal(a["stem.0.weight"], b["stem.0.weight"]) for a, b in pairwise(kept))
    with safe_open(tmp_path / "simsiam" / "epoch-001.safetensors", "pt") as file:
        about = file.metadata()
    assert (about["epochs"], about["schedule"]) == ("1", "3") and json.loads(about["architecture"])["channels"] == [
        16,
        32,
        64,
        128,
    ]
    backbone = load_backbone("cifar:compact128", tmp_path / "simsiam" / "epoch-003.safetensors")
    assert backbone.num_features == 128 and not backbone.checkpoint.missing
    with pytest.raises(ValueError, match=r"holds a run with channels = \[16, 32, 64, 128\], this one has \[16, 32, 64, 256\]"):
        call("pretrain", *TINY, "--out", tmp_path, "--methods", "simsiam", "--epochs", 3)


@pytest.fixture
def first_step(monkeypatch):
    """What a run's optimiser has before its first step: every weight with its momentum."""
    seen = []
    step = torch.optim.SGD.step

    def watched(self, *arguments, **named):
        if not seen:
            weights = [weight for group in self.param_groups for weight in group["params"]]
            pairs = [(weight.detach().clone(), self.state.get(weight, {}).get("momentum_buffer")) for weight in weights]
            seen.extend((weight, None if buffer is None else buffer.clone()) for weight, buffer in pairs)
        return step(self, *arguments, **named)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    return seen


@pytest.mark.parametrize("packed", [False, True], ids=["run", "packed"])
@pytest.mark.parametrize("method", ["moco", "byol", "dino", "vicreg"])
def test_a_new_schedule_begins_with_all_that_was_kept(method, packed, call, first_step, tmp_path, monkeypatch):
    """Encoder, heads, copies, queue and centre before the first step, and each weight's momentum."""
    call("pretrain", *TINY, "--out", tmp_path / "first", "--methods", method, "--epochs", 1)
    kept, start = last(tmp_path / "first" / method), str(tmp_path / "first" / method)
    exact = not packed
    if packed:
        call("pack_encoders", "--runs", tmp_path / "first", "--into", tmp_path / "models")
        monkeypatch.setattr(project, "WEIGHTS", tmp_path / "models" / "weights")
        monkeypatch.setattr(project, "STATES", tmp_path / "models" / "states")
        start = f"project:{method}-cifar10"
    tensors, built = {}, sys.modules["pretrain"].Kept.build

    def build(self, seed=0):
        made = built(self, seed)
        tensors.update({f"method.{name}": tensor.clone() for name, tensor in made.state_dict().items()})
        return made

    monkeypatch.setattr(sys.modules["pretrain"].Kept, "build", build)
    first_step.clear()
    call("pretrain", *TINY, "--out", tmp_path / "second", "--epochs", 2, "--start", start)
    assert set(tensors) == set(kept["state_dict"])
    for name, tensor in kept["state_dict"].items():
        assert torch.equal(tensors[name], tensor if exact or not tensor.is_floating_point() else tensor.half().float()), name
    buffers = kept["optimizer_states"][0]["state"]
    assert len(first_step) >= 40
    for number, (_, buffer) in enumerate(first_step):  # the same groups in the same order
        old = buffers[number]["momentum_buffer"] if number in buffers else None
        assert (buffer is None) == (old is None) and (old is None or torch.equal(buffer, old if exact else old.half().float()))
    assert len(last(tmp_path / "second" / method)["lr_schedulers"]) == 1
    assert last(tmp_path / "second" / method)["global_step"] == 4  # a schedule of its own
    with safe_open(tmp_path / "second" / method / "model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["start"])["from"] == start.rpartition("/")[2]


def test_a_run_from_a_start_goes_on_as_if_never_interrupted(call, tmp_path):
    call("pretrain", *TINY, "--out", tmp_path / "first", "--methods", "byol", "--epochs", 1)
    words = [*TINY, "--start", tmp_path / "first" / "byol", "--epochs", 2]
    call("pretrain", *words, "--out", tmp_path / "whole", "--round", 2)
    call("pretrain", *words, "--out", tmp_path / "parts", "--stop", 1)
    call("pretrain", *words, "--out", tmp_path / "parts")
    whole, parts = (last(tmp_path / name / "byol")["state_dict"] for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    plain = [*TINY, "--out", tmp_path / "plain", "--methods", "byol", "--epochs", 2]
    call("pretrain", *plain)
    with pytest.raises(ValueError, match="holds a run with start = None, this one has "):
        call("pretrain", *words, "--out", tmp_path / "plain")


def test_a_start_that_does_not_fit_is_refused(call, tmp_path, monkeypatch):
    call("pretrain", *TINY, "--out", tmp_path, "--methods", "byol", "--epochs", 1)
    start = ["--start", tmp_path / "byol"]
    with pytest.raises(SystemExit, match=r"is byol with the channels \[16, 32, 64, 256\], name no others"):
        call("pretrain", *TINY, "--out", tmp_path / "b", *start, "--methods", "moco")
    with pytest.raises(SystemExit, match="name no others"):
        call("pretrain", *TINY, "--out", tmp_path / "b", *start, "--channels", 16, 32, 64, 512)
    with pytest.raises(SystemExit, match="--out must be another folder"):
        call("pretrain", *TINY, "--out", tmp_path, *start)
    call("pack_encoders", "--runs", tmp_path, "--into", tmp_path / "models")
    monkeypatch.setattr(project, "WEIGHTS", tmp_path / "models" / "weights")
    monkeypatch.setattr(project, "STATES", tmp_path / "nowhere")
    with pytest.raises(ValueError, match="--start project:byol-cifar10 brings no heads to train further"):
        call("pretrain", *TINY, "--out", tmp_path / "b", "--start", "project:byol-cifar10")
