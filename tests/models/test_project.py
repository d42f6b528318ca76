"""Encoders by name: packed from runs, loaded by `project:NAME`, taken up again with all that was kept; and what wheels hold."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from examples.reproduce.encoders import controls, find_encoders
from sslk.cli import main
from sslk.data import load_dataset
from sslk.data.sample import load_sample
from sslk.features import FeatureStore
from sslk.models import ModelSource, load_backbone, project, project_encoders
from sslk.models.checkpoints import CheckpointError
from sslk.training import load_start
from sslk.training.heads import build_method
from sslk.training.methods import METHODS

ROOT = Path(__file__).parents[2]
TINY = ["--data", "sample", "--images", "32", "--epochs", "1", "--batch-size", "16", "--size", "16"]


def call(script: str, *words: str | Path) -> None:
    """Run an example's `main` in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(ROOT / "examples"), *sys.path])
        patch.setattr(sys, "argv", [script, *map(str, words)])
        __import__(script).main()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Eight runs of two steps, one of D = 512, and a supervised one of one epoch."""
    place = tmp_path_factory.mktemp("runs")
    call("pretrain", *TINY, "--out", place / "eight")
    call("pretrain", *TINY, "--out", place / "wide", "--methods", "simclr", "--channels", 16, 32, 64, 512)
    from examples.reproduce.supervised import SupervisedConfig, supervised

    images, labels = load_sample("train")
    np.savez(place / "train.npz", images=images[::50].permute(0, 2, 3, 1).numpy(), labels=labels[::50].numpy())
    config = SupervisedConfig(epochs=1, crop_epochs=0, batch_size=16)
    supervised(str(place / "train.npz"), str(place / "eight" / "supervised" / "model.safetensors"), config)
    return place


@pytest.fixture(scope="module")
def packed(runs):
    for folder in ("eight", "wide"):
        call("pack_encoders", "--runs", runs / folder, "--into", runs / "models")
    return runs / "models"


@pytest.fixture
def package(packed, tmp_path, monkeypatch):
    """The packed files as if they were the package's; may be damaged."""
    shutil.copytree(packed, tmp_path / "models")
    monkeypatch.setattr(project, "WEIGHTS", tmp_path / "models" / "weights")
    monkeypatch.setattr(project, "STATES", tmp_path / "models" / "states")
    return tmp_path / "models"


@pytest.mark.parametrize("method", METHODS)
def test_an_encoder_by_name_is_the_one_of_its_run(method, runs, package):
    backbone = load_backbone(f"project:{method}-cifar10")
    of_run = load_backbone("cifar:compact", runs / "eight" / method / "model.safetensors")
    images = load_sample("test")[0][:8].float() / 255
    assert torch.equal(backbone(images), of_run(images)) and backbone.weights_hash == of_run.weights_hash
    assert (backbone.mean, backbone.std, backbone.input_size) == (of_run.mean, of_run.std, (32, 32))
    entry = project_encoders()[f"{method}-cifar10"]
    assert (entry.method, entry.epochs, entry.features) == (method, 1, 256)


@pytest.mark.parametrize("method", METHODS)
def test_heads_copies_queue_and_centre_come_back(method, runs, package, recwarn):
    """Every tensor of the run's method, and not one of them twice."""
    start = load_start(method, ModelSource(f"project:{method}-cifar10"), load_dataset("sample", "train"))
    again, fresh = build_method(method, start.backbone.net, start.backbone.num_features, start.parts)
    kept = load_file(runs / "eight" / method / "model.safetensors")
    state = again.state_dict()
    assert not fresh and set(state) == set(kept)
    # Of batch norms' counters, which only a cumulative average would use, heads have none to bring.
    for name, tensor in kept.items():
        assert name.endswith("num_batches_tracked") or torch.equal(state[name].half(), tensor.half()), name
    files = [load_file(package / folder / f"{method}-cifar10.safetensors") for folder in ("weights", "states")]
    assert not set(files[1]) & {f"backbone.{name}" for name in files[0]}
    momentum = {name for name in files[1] if name.startswith(project.BUFFER)}
    trained = {name for name, parameter in again.named_parameters() if parameter.requires_grad}
    frozen = {name for name in trained if method == "dino" and "last_layer" in name}  # in the first steps
    assert {name.removeprefix(project.BUFFER) for name in momentum} == trained - frozen
    assert not [str(warning.message) for warning in recwarn if "heads" in str(warning.message)]


def test_momentum_is_that_which_the_optimiser_had_for_each_weight(tmp_path, monkeypatch):
    seen = []
    step = torch.optim.SGD.step

    def watched(self, *arguments, **named):
        result = step(self, *arguments, **named)
        seen[:] = [(weight.detach().clone(), state["momentum_buffer"].clone()) for weight, state in self.state.items()]
        return result

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    call("pretrain", *TINY, "--out", tmp_path, "--methods", "byol")
    call("pack_encoders", "--runs", tmp_path, "--into", tmp_path / "models")
    weights = torch.load(tmp_path / "byol" / "last.ckpt", weights_only=True)["state_dict"]
    stored = {
        name: t for name, t in load_file(tmp_path / "models/states/byol-cifar10.safetensors").items() if project.BUFFER in name
    }
    assert len(stored) == len(seen) > 40
    for name, tensor in stored.items():
        weight = weights["method." + name.removeprefix(project.BUFFER)]
        buffers = [buffer for value, buffer in seen if value.shape == weight.shape and torch.equal(value, weight)]
        # A bias and that of the shortcut beside it have always had the same gradients, so they are the same.
        assert buffers and all(torch.equal(buffer.half(), tensor) for buffer in buffers), name


def test_without_the_source_tree_heads_begin_fresh_and_it_is_said(package):
    (package / "states" / "byol-cifar10.safetensors").unlink()
    with pytest.warns(UserWarning, match=r"heads of project:byol-cifar10 are in the source tree alone .* they begin fresh\.$"):
        start = load_start("byol", ModelSource("project:byol-cifar10"), load_dataset("sample", "train"))
    assert start.parts == {}


def test_a_damaged_missing_or_unknown_encoder_is_one_sentence(package, monkeypatch):
    file = package / "weights" / "moco-cifar10.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    with pytest.raises(CheckpointError, match=r"weights of project:moco-cifar10 are damaged: .* the registry has \w{12}\.\.\.$"):
        load_backbone("project:moco-cifar10")
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"weights of project:moco-cifar10 are missing: .*, install it again\.$"):
        load_backbone("project:moco-cifar10")
    (package / "states" / "byol-cifar10.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="heads of project:byol-cifar10 are damaged"):
        load_start("byol", ModelSource("project:byol-cifar10"), load_dataset("sample", "train"))
    with pytest.raises(ValueError, match=r"unknown model 'project:simclr-cifar', near ones: project:simclr-cifar10, "):
        load_backbone("project:simclr-cifar")
    with pytest.raises(ValueError, match=r"unknown model 'swav-cifar10', near ones: project:swav-cifar10; "):
        load_backbone("swav-cifar10")
    with pytest.raises(
        ValueError, match=r"'project:simclr512-cifar10', which brings its own, got 'x.pth'; see cifar:compact512$"
    ):
        ModelSource("project:simclr512-cifar10@x.pth").load()
    (package / "weights" / "registry.json").write_text("{}")
    assert project_encoders() == {}
    with pytest.raises(ValueError, match="unknown model 'project:simclr-cifar10', near ones: none"):
        load_backbone("project:simclr-cifar10")


def test_a_wide_and_a_supervised_encoder_have_names_of_their_own(runs, package):
    wide, labelled = load_backbone("project:simclr512-cifar10"), load_backbone("project:supervised-cifar10")
    assert (wide.num_features, labelled.num_features) == (512, 256)
    assert wide.weights_hash == load_backbone("cifar:compact512", runs / "wide" / "simclr" / "model.safetensors").weights_hash
    assert (
        labelled.weights_hash == load_backbone("cifar:compact", runs / "eight" / "supervised" / "model.safetensors").weights_hash
    )
    found = {encoder.name: encoder for encoder in find_encoders(None)}
    assert list(found) == ["simclr-embedded", "simclr", "simclr512", *list(METHODS)[1:], "supervised"]
    assert found["byol"].training == "1 epochs on train, 32 images" and found["byol"].model == "project:byol-cifar10"
    assert (found["simclr512"].kind, found["simclr512"].method, found["simclr512"].features) == ("self-supervised", "simclr", 512)
    assert (found["supervised"].kind, found["supervised"].method, found["supervised"].weights) == ("supervised", "", None)
    assert [encoder.name for encoder in controls(package, list(found.values()))] == ["untrained"]
    assert [(item.name, item.model) for item in find_encoders(runs / "wide")[1:]] == [("simclr", "cifar:compact512")]


def test_commands_take_the_names(package, tmp_path, capsys):
    words = "--data sample --split test --workers 0 --quiet"
    assert main(["store", "extract", "--model", "project:byol-cifar10", "--out", f"{tmp_path}/s", *words.split()]) == 0
    assert FeatureStore(tmp_path / "s").spec.model == "project:byol-cifar10"
    source = ModelSource("project:byol-cifar10")
    assert (source.label, source.folder) == ("project:byol-cifar10", "project-byol-cifar10")
    assert main(["store", "extract", "--model", "project:byl-cifar10", "--out", f"{tmp_path}/t", *words.split()]) == 1
    assert "near ones: project:byol-cifar10" in capsys.readouterr().err


def test_packing_again_gives_the_same_bytes_and_no_path(runs, packed, tmp_path):
    before = {file.relative_to(packed): file.read_bytes() for file in packed.rglob("*.*")}
    assert len(before) == 2 * 10 + 1
    for folder in ("wide", "eight"):
        call("pack_encoders", "--runs", runs / folder, "--into", tmp_path)
    assert before == {file.relative_to(tmp_path): file.read_bytes() for file in tmp_path.rglob("*.*")}
    assert not [name for name, content in before.items() if str(runs).encode() in content]
    with safe_open(packed / "weights" / "byol-cifar10.safetensors", "pt") as file:
        about = json.loads(file.metadata()["about"])
    assert about["dataset"] == "train, 32 images" and about["options"]["momentum"] == 0.99 and about["schedule"] == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("steps", "has done 2 of 4 steps: finish it, or add --unfinished"),
        ("files", "are of different steps"),
        ("large", "does not fit float16: its largest value is 1e"),
        ("size", "must be at most 1 MB, they would be 1.7 MB"),
        ("channels", r"channels must be 16 32 64 D, got \[8, 32, 64, 256\]"),
    ],
)
def test_runs_that_are_not_done_or_damaged_are_refused(damage, message, runs, packed, tmp_path, monkeypatch):
    place = tmp_path / "simsiam"
    shutil.copytree(runs / "eight" / "simsiam", place)
    if damage == "steps":
        settings = json.loads((place / "config.json").read_text())
        settings["config"]["epochs"] = 2
        (place / "config.json").write_text(json.dumps(settings))
    elif damage == "files":
        shutil.copy(runs / "eight" / "byol" / "model.safetensors", place)
    elif damage == "large":
        last = torch.load(place / "last.ckpt", weights_only=True)
        last["optimizer_states"][0]["state"][0]["momentum_buffer"][0] = 1e9
        torch.save(last, place / "last.ckpt")
    elif damage == "size":
        monkeypatch.setattr(sys.modules["pack_encoders"], "MOST_MEGABYTES", 1)
    else:
        shutil.rmtree(place)
        call("pretrain", *TINY, "--out", tmp_path, "--methods", "simsiam", "--channels", 8, 32, 64, 256)
    with pytest.raises(SystemExit, match=message):
        call("pack_encoders", "--runs", tmp_path, "--into", tmp_path / "models", "--methods", "simsiam")
    assert not (tmp_path / "models" / "weights" / "registry.json").exists()
    if damage == "steps":  # without its name it is left out
        shutil.copytree(runs / "eight" / "swav", tmp_path / "swav")
        call("pack_encoders", "--runs", tmp_path, "--into", tmp_path / "models")
        assert names(tmp_path / "models") == ["swav-cifar10"]
        call("pack_encoders", "--runs", tmp_path, "--into", tmp_path / "models", "--unfinished")
        assert json.loads((tmp_path / "models" / "weights" / "registry.json").read_text())["simsiam-cifar10"]["epochs"] == 1


def test_wheels_hold_the_encoders_and_not_their_states(packed, tmp_path):
    """The package's own build, on its own tree with packed encoders."""
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        if not (ROOT / name).is_file():
            pytest.skip("needs the source tree")
        shutil.copy(ROOT / name, tmp_path)
    for folder in ("ssl_kernels", "python_api/sslk"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.so", "__pycache__", "states"))
    shutil.copytree(packed, tmp_path / "python_api" / "sslk" / "models", dirs_exist_ok=True)
    setup = [sys.executable, "setup.py", "-q"]
    for command in (["build_py", "--build-lib", "wheel"], ["egg_info"]):
        subprocess.run([*setup, *command], check=True, cwd=tmp_path, capture_output=True)
    (listing,) = tmp_path.glob("*.egg-info/SOURCES.txt")
    for held in ([str(file) for file in (tmp_path / "wheel").rglob("*.*")], listing.read_text().splitlines()):
        ours = [name.partition("sslk/models/")[2] for name in held if "cifar10.safetensors" in name or "registry.json" in name]
        assert sorted(ours) == sorted(["weights/registry.json", *(f"weights/{name}.safetensors" for name in names(packed))])


def names(models: Path) -> list[str]:
    return list(json.loads((models / "weights" / "registry.json").read_text()))


def test_what_is_packaged_here_is_whole_and_small():
    """The encoders of this tree, as many as there are."""
    for name, entry in project_encoders().items():
        backbone = load_backbone(f"project:{name}")
        assert backbone.num_features == entry.features and project.same_network(f"project:{name}").startswith("cifar:compact")
    weights = list(project.WEIGHTS.glob("*.safetensors"))
    assert {file.stem for file in weights} == {"encoder", "projector", *project_encoders()}
    assert sum(file.stat().st_size for file in weights) < 25e6


def test_weights_of_other_bytes_than_the_registry_names_are_never_used(package):
    """Whole, readable, and of the same network: the hash alone tells."""
    file = package / "weights" / "simclr-cifar10.safetensors"
    tensors = load_file(file)
    save_file({name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}, file)
    with pytest.raises(CheckpointError, match="weights of project:simclr-cifar10 are damaged"):
        load_backbone("project:simclr-cifar10")
