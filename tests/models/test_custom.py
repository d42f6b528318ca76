"""Networks of one's own, their preprocessing, random weights that were asked for, and the line that says what was loaded."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from sslk.models import Backbone, ModelSource, Preprocessing, as_backbone, evaluation_transform, load_backbone
from tests.models.small_networks import small_resnet

MINE = """
import neighbour
from torch import nn
from sslk.models import Backbone

def network():
    return nn.Sequential(nn.Conv2d(3, neighbour.WIDTH, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

def backbone():
    return Backbone(network(), name="of no matter", input_size=(24, 24), mean=(0, 0, 0), std=(1, 1, 1), interpolation="bicubic")

class Network(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3))

ready = network()
number = 3

def broken():
    raise KeyError("lr")

def wrong():
    return "resnet"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text("WIDTH = 6")
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path / "mine.py"


@pytest.fixture(autouse=True)
def own_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("mine", "neighbour"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.parametrize(
    ("factory", "width", "size"), [("network", 6, 224), ("backbone", 6, 24), ("Network", 4, 224), ("ready", 6, 224)]
)
def test_functions_of_a_file(file: Path, factory: str, width: int, size: int) -> None:
    backbone = load_backbone(f"python:{file}:{factory}")
    assert (backbone.num_features, backbone.input_size, backbone.name) == (width, (size, size), f"python:{file}:{factory}")
    assert load_backbone(f"python:{file}:{factory}").weights_hash == backbone.weights_hash  # drawn alike
    if factory == "backbone":
        assert (backbone.mean, backbone.interpolation) == ((0, 0, 0), "bicubic")


def test_modules_of_the_working_directory_and_checkpoints(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    net = load_backbone("python:mine:network", image_size=16).net
    torch.save({"state_dict": {f"encoder.{k}": v + 1 for k, v in net.state_dict().items()}}, "own.pth")
    backbone = load_backbone("python:mine:network", "own.pth", image_size=16)
    assert backbone.checkpoint.share_matched == 1
    torch.testing.assert_close(backbone.net[0].bias, net[0].bias + 1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{}:netwrk", "names no function of .*mine.py; near ones: network"),
        ("{}:number", "must be a function that returns a network, got int"),
        ("{}:broken", "could not be built: KeyError: 'lr'"),
        ("{}:wrong", "must return an nn.Module or a Backbone, got str"),
        ("{}x.py:network", "there is no .*mine.pyx.py"),
        ("no.such.module:network", "could not be imported: ModuleNotFoundError: No module named 'no'"),
        ("network", "is python:PACKAGE.MODULE:FACTORY or python:FILE.py:FACTORY, got 'python:network'"),
    ],
)
def test_what_is_no_network_is_refused(file: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_backbone(f"python:{name.format(file)}")


def test_torch_hub_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "me_repo_main"
    folder.mkdir()
    (folder / "hubconf.py").write_text(
        "dependencies = ['torch']\n"
        "import torch\n"
        "def tiny(pretrained=True):\n"
        "    net = torch.nn.Conv2d(3, 5, 3)\n"
        "    if pretrained: torch.nn.init.constant_(net.weight, 0.25)\n"
        "    return net\n"
    )
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    for name in ("hub:me/repo:tiny", f"hub:{folder}:tiny"):
        trained, random = load_backbone(name, "pretrained", image_size=8), load_backbone(name, "random", image_size=8)
        assert (trained.network.weight == 0.25).all()
        assert not (random.network.weight == 0.25).any()
    with pytest.raises(ValueError, match=r"has no entry 'tny'; near ones: tiny"):
        load_backbone("hub:me/repo:tny", "pretrained")
    with pytest.raises(OSError, match=r"needs the repository on this machine.*me_other_main below"):
        load_backbone("hub:me/other:tiny", "pretrained")
    with pytest.raises(ValueError, match="weights must be named for 'hub:me/repo:tiny'"):
        load_backbone("hub:me/repo:tiny")


def test_a_bare_module_is_taken_with_what_its_library_says() -> None:
    import timm

    net = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, depth=1).train()
    backbone = as_backbone(net, image_size=32)
    assert (backbone.mean, backbone.interpolation, backbone.feature) == ((0.5, 0.5, 0.5), "bicubic", "cls")
    assert net.training
    assert as_backbone(backbone) is backbone
    with pytest.raises(TypeError, match=r"model must be an nn.Module or a Backbone, got str"):
        as_backbone("resnet50")


@pytest.mark.parametrize(("order", "scale"), [("rgb", 1.0), ("bgr", 255.0), ("bgr", 1.0)])
def test_preprocessing_is_the_networks(order: str, scale: float) -> None:
    """Pixels through transform and backbone, against the arithmetic of a Caffe network written out."""

    class Last(nn.Module):  # the network's input itself, averaged
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.one * x.mean((2, 3))

    mean, std = (104 / 255 * scale, 117 / 255 * scale, 123 / 255 * scale), (0.5 * scale, 0.25 * scale, 0.2 * scale)
    backbone = Backbone(Last(), name="caffe", input_size=(4, 4), mean=mean, std=std, channel_order=order, input_scale=scale)
    image = Image.new("RGB", (4, 4), (200, 30, 90))
    found = backbone(evaluation_transform(backbone)(image)[None])[0]
    pixel = np.array([200, 30, 90] if order == "rgb" else [90, 30, 200]) / 255 * scale
    np.testing.assert_allclose(found.detach().numpy(), (pixel - mean) / std, rtol=1e-5)


def test_preprocessing_by_name() -> None:
    source = ModelSource("cifar:compact@random", mean=(0, 0, 0), std=(1, 1, 1), input_scale=255, interpolation="bicubic")
    backbone = source.load()
    assert (backbone.mean, backbone.std, backbone.interpolation) == ((0, 0, 0), (1 / 255,) * 3, "bicubic")
    for options, message in (
        ({"mean": (0, 0), "std": (1, 1)}, "mean must hold three numbers"),
        ({"mean": (0, 0, 0)}, "must be given together"),
        ({"input_scale": 255}, "input_scale needs mean and std"),
        ({"mean": (0, 0, 0), "std": (1, 0, 1)}, "std must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            Preprocessing(**options)


@pytest.mark.parametrize(
    "name", ["torchvision:resnet18", "timm:resnet10t", "hf:anyone/anything", "cifar:compact", "lightly:resnet-9"]
)
def test_weights_have_to_be_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"weights must be named for '{name}': .*@pretrained.*@CHECKPOINT, or {name}@random"):
        load_backbone(name)


def test_random_weights_are_the_same_in_every_process() -> None:
    state = torch.get_rng_state()
    first = load_backbone("cifar:resnet18", "random:3")
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert load_backbone("cifar:resnet18", "random:3").weights_hash == first.weights_hash
    assert load_backbone("cifar:resnet18", "random").weights_hash != first.weights_hash
    assert first.name == "cifar:resnet18 (random weights, seed 3)"
    code = "from sslk.models import load_backbone; print(load_backbone('cifar:resnet18', 'random:3').weights_hash)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == first.weights_hash
    with pytest.raises(ValueError, match="random or random:SEED with a whole number, got 'random:x'"):
        load_backbone("cifar:resnet18", "random:x")


def test_weights_are_named_once() -> None:
    assert ModelSource("cifar:compact", weights="random") == ModelSource("cifar:compact@random")
    with pytest.raises(ValueError, match=r"named once, got 'random' behind the @ of the model and 'a.pth'"):
        ModelSource("cifar:compact@random", weights="a.pth")
    with pytest.raises(ValueError, match="weights must not be given for 'embedded'"):
        load_backbone("embedded", "random")


def test_the_line_tells_two_resnets_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Strides in the first convolution of a bottleneck, as in the ResNet of 2015, fit the same tensors."""
    torch.save(torchvision.models.resnet50().state_dict(), tmp_path / "r.pth")
    with caplog.at_level(logging.INFO, logger="sslk"):
        load_backbone("torchvision:resnet50", tmp_path / "r.pth", image_size=64)
    (line,) = caplog.messages
    assert line.startswith(
        f"torchvision:resnet50@{tmp_path}/r.pth: layout torchvision, 265 of 265 tensors; 64 x 64 bilinear, mean 0.485"
    )
    assert "feature: mean of layer4, 2048, not negative" in line
    assert line.endswith("bottleneck stride in conv2; batch norm eps 1e-05")
    from sslk.models.describe import loading_line

    old = torchvision.models.resnet50()
    for stage in (old.layer2, old.layer3, old.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    old.fc = nn.Identity()
    assert "bottleneck stride in conv1" in loading_line(Backbone(old, name="v1", input_size=(64, 64)))
    assert "bottleneck" not in loading_line(Backbone(small_resnet(), name="basic", input_size=(64, 64)))


def test_commands_say_what_they_load_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sslk.cli import main

    words = f"depth --model embedded --data sample --layer 2 3 --epochs 1 --extraction.workers 0 --out {tmp_path}".split()
    assert main(words) == 0
    assert capsys.readouterr().err.count("sslk depth: embedded: 32 x 32 bilinear") == 1  # loaded for both splits
    assert main([*words, "--quiet"]) == 0
    assert "bilinear" not in capsys.readouterr().err
