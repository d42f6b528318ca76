"""README, tutorial and how-tos do what they say: every `sslk` line of theirs is run, in order, on small stand-ins."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslk.cli import main
from sslk.data.sample import load_sample
from sslk.models.embedded import load_embedded
from tests.documented import documented_commands

# What a reader has, and what stands for it here: a network that is small, with weights in a file.
STAND_INS = {
    "torchvision:resnet50@resnet50.pth": "cifar:compact@encoder.pth",
    "torchvision:resnet50@checkpoint_0199.pth.tar": "cifar:compact@encoder.pth",
    "timm:vit_small_patch16_224@dino_vits16.pth": "timm:vit_tiny_patch16_224@random",
    "hf:facebook/dinov2-small@pretrained": "cifar:compact@encoder.pth",
}
RUN = ("README.md", "docs/tutorial.md", "docs/howto/")
LINES = [(file, line) for file, line in documented_commands() if file.startswith(RUN)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with photos in classes, a checkpoint, and two parts of a store."""
    folder = tmp_path_factory.mktemp("reader")
    for split, count in (("train", 24), ("test", 12)):
        images, labels = load_sample(split)
        for name, label in (("cat", 3), ("dog", 5)):
            (folder / "photos" / split / name).mkdir(parents=True)
            for number, row in enumerate((labels == label).nonzero().flatten()[:count].tolist()):
                pixels = images[row].permute(1, 2, 0).numpy().astype(np.uint8)
                Image.fromarray(pixels).resize((64, 64)).save(folder / "photos" / split / name / f"{number:03d}.png")
    torch.save(load_embedded()[0].state_dict(), folder / "encoder.pth")
    tutorial = (Path(__file__).parents[1] / "docs/tutorial.md").read_text()
    (folder / "mine.py").write_text(re.search(r"```python\n(# mine\.py\n.*?)```", tutorial, re.S)[1])
    return folder


def test_something_is_documented():
    assert {file for file, _ in LINES} >= {"README.md", "docs/tutorial.md", "docs/howto/vits.md", "docs/howto/cluster.md"}


@pytest.mark.parametrize("file", sorted({file for file, _ in LINES}))
def test_every_line_runs(file, place, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(place)
    if file.endswith("cluster.md"):  # the parts that two machines have extracted
        for part, split in (("part-0", "train"), ("part-1", "test")):
            words = f"store extract --model embedded --data folder:photos --split {split} --out {part} --workers 0 --quiet"
            assert main(words.split()) == 0
    for line in [line for name, line in LINES if name == file]:
        for theirs, ours in STAND_INS.items():
            line = line.replace(theirs, ours)
        words = shlex.split(line)[1:]
        status = main(words)
        assert status == 0, (line, capsys.readouterr().err)
