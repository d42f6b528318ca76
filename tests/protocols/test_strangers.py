"""What strangers bring goes to a report: a network of fifty lines, a solo-learn checkpoint with OmegaConf, messy photos."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from sslk.cli import main
from sslk.data.sample import load_sample

NETWORK = '''
"""A small network with a class token, written by someone who has never heard of this package."""

import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        n, t, d = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, d))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        x = x + self.attention(self.before(x))
        return x + self.mlp(self.after(x))


class Tokens(nn.Module):
    def __init__(self, width=48, depth=3, heads=3):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, stride=8)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.place = nn.Parameter(torch.randn(1, 17, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.place
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def tokens():
    torch.manual_seed(1)
    return Tokens()
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strangers")
    (folder / "stranger.py").write_text(NETWORK)
    turned = Image.Exif()
    turned[0x0112] = 6
    for split, count in (("train", 24), ("test", 10)):
        images, labels = load_sample(split)
        for name, label in (("2", 3), ("10", 5)):
            inside = folder / "photos" / split / name
            inside.mkdir(parents=True)
            for number, row in enumerate((labels == label).nonzero().flatten()[:count].tolist()):
                pixels = images[row].permute(1, 2, 0).numpy().astype(np.uint8)
                image = Image.fromarray(pixels).resize((48, 40))
                match number % 6:
                    case 0:
                        image.save(inside / f"{number}.jpg", exif=turned)
                    case 1:
                        grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
                        Image.fromarray(grey).save(inside / f"{number}.png")
                    case 2:
                        image.convert("RGBA").save(inside / f"=a,b {number}.png")
                    case 3:
                        image.convert("CMYK").save(inside / f"{number}.JPG")
                    case _:
                        image.save(inside / f"Grüße {number}.webp")
            (inside / "._0.jpg").write_bytes(b"\0\5\26\7junk")
            (inside / "Thumbs.db").write_bytes(b"junk")
            (inside / "notes.txt").write_text("to do")
        (folder / "photos" / split / ".ipynb_checkpoints").mkdir()
        Image.new("RGB", (9, 9)).save(folder / "photos" / split / ".ipynb_checkpoints" / "x.png")
    (folder / "photos" / ".DS_Store").write_bytes(b"junk")
    (folder / "photos" / "train" / "2" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    return folder


def evaluated(place: Path, monkeypatch: pytest.MonkeyPatch, model: str, out: str, *more: str) -> None:
    monkeypatch.chdir(place)
    words = f"evaluate {model} --data folder:photos --systems qscore --workers 0 --out {out} --quiet --on-corrupt skip"
    assert main([*words.split(), *more]) == 0
    page = (place / out / "report.html").read_text()
    assert "broken.jpg" in page
    assert "Representations: " in page


def test_a_strangers_network_and_a_messy_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated(place, monkeypatch, "stranger=python:stranger.py:tokens", "own", "--image-size", "32")
    spec = json.loads((place / "own" / "stranger" / "train" / "manifest.json").read_text())["spec"]
    assert (spec["num_features"], spec["classes"], spec["samples"], spec["signed"]) == (48, ["2", "10"], 49, True)
    assert spec["feature"] == "cls"
    assert (
        main(
            f"depth --model python:stranger.py:tokens --image-size 32 --data folder:photos --out {place}/deep --quiet "
            "--epochs 1 --extraction.workers 0 --extraction.on-corrupt skip".split()
        )
        == 0
    )


@pytest.fixture(scope="module")
def checkpoint(place: Path) -> Path:
    omegaconf = pytest.importorskip("omegaconf")
    net = torchvision.models.resnet18()
    net.conv1 = torch.nn.Conv2d(3, 64, 3, stride=1, padding=2, bias=False)
    state = {f"backbone.{k}": v for k, v in net.state_dict().items() if not k.startswith("fc.")}
    state |= {
        "classifier.weight": torch.zeros(10, 512),
        "classifier.bias": torch.zeros(10),
        "projector.0.weight": torch.zeros(8, 512),
    }
    settings = omegaconf.OmegaConf.create({"method": "simclr", "optimizer": {"lr": 0.3, "betas": [0.9, 0.99]}})
    torch.save({"state_dict": state, "hyper_parameters": settings, "callbacks": {Path: 1}, "epoch": 9}, place / "solo.ckpt")
    return place / "solo.ckpt"


@pytest.mark.usefixtures("checkpoint")
def test_a_solo_learn_checkpoint_with_omegaconf(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated(place, monkeypatch, "solo=cifar:resnet18@solo.ckpt", "solo")
    spec = json.loads((place / "solo" / "solo" / "test" / "manifest.json").read_text())["spec"]
    assert (spec["num_features"], spec["feature"]) == (512, "mean of layer4")


def test_nothing_of_the_checkpoint_is_imported(checkpoint: Path) -> None:
    code = (
        "import sys\nfrom sslk.models import load_backbone\n"
        "b = load_backbone('cifar:resnet18', 'solo.ckpt')\n"
        "assert 'omegaconf' not in sys.modules\nprint(b.checkpoint.layout, b.checkpoint.share_matched, *b.checkpoint.ignored)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=checkpoint.parent, capture_output=True, text=True, env=dict(os.environ)
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("solo-learn 1.0")
    assert "omegaconf.dictconfig.DictConfig" in found.stdout
