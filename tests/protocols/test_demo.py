"""The embedded data and encoder, further training, and the whole demo on a small budget."""

import re

import pytest
import torch

import sslk
from sslk.data.sample import load_sample
from sslk.models.embedded import load_embedded, load_embedded_projector
from sslk.quality.finetune import ARMS, FinetuneConfig, _parameter_groups, further_train
from sslk.report.run import Run


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
    from sslk.demo import extract_features

    data = {split: load_sample(split) for split in ("train", "test")}
    train, test = (extract_features(encoder, data[split][0]) for split in ("train", "test"))
    assert (train >= 0).all()
    probe = sslk.linear_probe(train, data["train"][1], test, data["test"][1], epochs=30)
    assert probe.top1 > 0.5  # 2,000 labels; an untrained network of this size stays below 0.4


@pytest.fixture(scope="module")
def setting():
    encoder, _ = load_embedded()
    images = load_sample("train")[0][:256]
    from sslk.demo import extract_features

    found = sslk.discover(extract_features(encoder, images), eps="auto")
    return encoder, load_embedded_projector(), images, found


SHORT = FinetuneConfig(epochs=2, batch_size=64, learning_rate=0.1)


@pytest.mark.parametrize("arm", ARMS)
def test_arms_train_and_leave_the_original_alone(setting, arm):
    encoder, projector, images, found = setting
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    one = further_train(encoder, projector, images, arm, SHORT, found)
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
    assert any(not torch.equal(v, before[k]) for k, v in one.encoder.state_dict().items())
    assert len(one.log["loss"]) == 8 and all(map(lambda p: (p == 0) == (arm == "baseline"), one.log["penalty"]))
    other = further_train(encoder, projector, images, arm, SHORT, found)
    assert one.log == other.log  # same seed, same numbers


def test_arms_see_the_same_batches(setting):
    first_losses = {arm: further_train(*setting[:3], arm, SHORT, setting[3]).log["loss"][0] for arm in ARMS}
    assert len(set(first_losses.values())) == 1


def test_lars_scales_matrices_and_leaves_biases_and_norms_to_sgd(setting):
    from lightly.utils.lars import LARS

    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    optimizer = LARS(_parameter_groups(module, torch.nn.Identity(), 1e-6), lr=0.5)
    before = [p.detach().clone() for p in module.parameters()]
    for p in module.parameters():
        p.grad = torch.full_like(p, 3.0)
    optimizer.step()
    for p, old in zip(module.parameters(), before, strict=True):
        step = old - p.detach()
        if p.ndim > 1:  # trust coefficient 0.001 times |w| / |g|
            torch.testing.assert_close(step, 0.5 * 0.001 * old.norm() / p.grad.norm() * p.grad, rtol=1e-3, atol=1e-8)
        else:
            torch.testing.assert_close(step, 0.5 * p.grad)


def test_bad_training_settings(setting):
    with pytest.raises(ValueError, match="arm must be one of baseline, lasso, qscore, got 'ridge'"):
        further_train(*setting[:3], "ridge", SHORT, setting[3])
    with pytest.raises(ValueError, match="at least one batch of 64, got 10"):
        further_train(setting[0], setting[1], setting[2][:10], "baseline", SHORT, setting[3])
    from dataclasses import replace

    with pytest.raises(ValueError, match="not finite at step"):
        further_train(*setting[:3], "qscore", replace(SHORT, lambda2=float("inf")), setting[3])


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
    assert main(["demmo"]) == 2 and "did you mean 'demo'?" in capsys.readouterr().err
