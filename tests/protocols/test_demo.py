"""The embedded data and encoder, further training, and the whole demo on a small budget."""

import re

import pytest
import torch

import sslk
from sslk.data.sample import load_sample
from sslk.models.embedded import load_embedded
from sslk.probes.settings import LinearSettings
from sslk.results.run import Run
from sslk.training.config import ARMS


def test_embedded_sample_is_balanced():
    for split, count in (("train", 200), ("test", 100)):
        images, labels = load_sample(split)
        assert images.dtype == torch.uint8 and images.shape == (10 * count, 3, 32, 32)
        assert labels.bincount().tolist() == [count] * 10
    with pytest.raises(ValueError, match="split must be 'train' or 'test'"):
        load_sample("validation")


def test_embedded_encoder_is_what_its_metadata_says():
    encoder, metadata = load_embedded()
    assert encoder.num_features == 256 and metadata["method"] == "SimCLR" and int(metadata["epochs"]) >= 30
    assert float(metadata["probe_top1"]) > 0.6
    from sslk.evaluation.demo import extract_features

    data = {split: load_sample(split) for split in ("train", "test")}
    train, test = (extract_features(encoder, data[split][0]) for split in ("train", "test"))
    assert (train >= 0).all()
    probe = sslk.linear_probe((train, data["train"][1]), (test, data["test"][1]), LinearSettings(epochs=30))
    assert probe.top1 > 0.5  # 2,000 labels; an untrained network of this size stays below 0.4


def test_demo_end_to_end(tmp_path, capsys):
    from sslk.cli import main

    assert main(["demo", "--out", str(tmp_path), "--epochs", "1"]) == 0
    run = Run.load(tmp_path)
    arms = {row[0]: dict(zip(run.tables[0].columns, row, strict=True)) for row in run.tables[0].rows}
    assert set(arms) == {"before", *ARMS}
    for numbers in arms.values():
        assert 40 < numbers["probe top-1 [%]"] < 100 and 0 < numbers["AUROC"] < 1 and numbers["empty sets [%]"] <= 100
    for figure in run.figures:
        assert (tmp_path / figure.file).stat().st_size > 1000 and len(figure.alt) > 20
    page = (tmp_path / "index.html").read_text()
    assert page.count('<img src="data:image/') == len(run.figures) >= 5
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)  # nothing is fetched
    assert sslk.DiscriminativeFeatures.load(tmp_path / "discriminative.safetensors").eps == run.summary["eps"]
    output = capsys.readouterr().out
    assert "probe top-1" in output and "random (trivial)" in output and "empty sets" in output
    assert not list(tmp_path.glob("*.tmp"))


def test_command_line_usage(capsys):
    from sslk.cli import main

    assert main(["--help"]) == 0 and "demo" in capsys.readouterr().out
    assert main(["demmo"]) == 2 and 'Did you mean "demo"?' in capsys.readouterr().err
