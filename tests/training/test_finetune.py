"""`sslk finetune` end to end, its bad inputs, and the regulariser in other people's modules."""

import json
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import sslk
from sslk.cli import main
from sslk.features import FeatureStore
from sslk.models import load_backbone, read_checkpoint
from sslk.probes.outputs import ProbeOutputs
from sslk.quality.belonging import check_set
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.results.run import Run
from sslk.training.callback import QScoreCallback
from sslk.training.config import TrainingConfig
from sslk.training.differences import arm_difference
from sslk.training.module import TrainingModule
from sslk.training.samples import SAMPLES, ArmSamples
from tests.ops import oracle
from tests.training.small import small_method, small_set, small_views

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def few_images(tmp_path):
    from sslk.data.sample import load_sample

    for split, step in (("train", 10), ("test", 10)):
        images, labels = load_sample(split)
        np.savez(tmp_path / f"{split}.npz", images=images[::step].permute(0, 2, 3, 1).numpy(), labels=labels[::step].numpy())
    return tmp_path


def test_command_trains_all_arms_goes_on_and_reports(few_images, capsys):
    data = ["--data", f"npz:{few_images}/train.npz", "--test_data", f"npz:{few_images}/test.npz"]
    settings = {"epochs": 2, "batch_size": 32, "learning_rate": 0.3, "view_size": 16, "lambda1": 0.01}
    training = [word for key, value in settings.items() for word in (f"--training.{key}", str(value))]
    words = ["train", "finetune", "--method", "simclr", *data, "--out", f"{few_images}/run", *training, "--quiet"]
    assert main(words) == 0, capsys.readouterr().err
    run = Run.load(few_images / "run")
    assert [row[0] for row in run.tables[0].rows] == ["before", "baseline", "lasso", "qscore"]
    by_arm = {row[0]: row for row in run.tables[0].rows}
    assert all(0.2 < row[1] / 100 < 1 for row in by_arm.values())
    assert by_arm["qscore"][3] != by_arm["baseline"][3]
    assert run.tables[1].paper == "tableA1" and run.tables[1].rows[0][0] == "SimCLR"
    assert run.provenance["config"]["training"]["lambda1"] == 0.01
    backbone = load_backbone("cifar:compact", few_images / "run" / "qscore" / "model.safetensors")
    assert read_checkpoint(few_images / "run" / "qscore" / "model.safetensors").parts["projector"]
    assert not backbone.checkpoint.missing
    # The encoder was loaded for evaluation; training is training mode: batch statistics have moved.
    before, after = load_backbone("embedded").state_dict(), backbone.state_dict()
    assert all(not torch.equal(before[name], after[name]) for name in after if name.endswith("running_mean"))
    check_table_against_the_stores(few_images / "run", run, by_arm)
    before_after = ["qscore", "before-after", "--discriminative", f"{few_images}/run/discriminative.safetensors"]
    for side, arm in (("before", "before"), ("after", "qscore")):
        before_after += [f"--{side}", f"{few_images}/run/{arm}/test", f"--{side}_outputs", f"{few_images}/run/{arm}"]
    assert main([*before_after, "--out", f"{few_images}/change", "--resamples", "50"]) == 0, capsys.readouterr().err
    assert Run.load(few_images / "change").summary["accuracy_change"] == pytest.approx(
        (by_arm["qscore"][1] - by_arm["before"][1]) / 100
    )
    first = (few_images / "run" / "results.json").read_text()
    assert main(words) == 0  # finished: read, not trained again
    again = json.loads((few_images / "run" / "results.json").read_text())
    assert again["tables"] == json.loads(first)["tables"]
    capsys.readouterr()
    assert main([*words, "--training.seed", "1"]) == 1
    assert "seed = 0, this one has 1" in capsys.readouterr().err


def check_table_against_the_stores(out, run, by_arm):
    """The numbers of the arms and their differences, from the stored features and answers with numpy and scikit-learn."""
    found = DiscriminativeFeatures.load(out / "discriminative.safetensors")
    hits, scores = {}, {}
    for arm, row in by_arm.items():
        batch, answers = FeatureStore(out / arm / "test").load(), ProbeOutputs.load(out / arm)
        hits[arm], scores[arm] = answers.correct.numpy(), sslk.qscore(batch.features, found).scores.numpy()
        h = batch.features.double().numpy()
        columns = np.abs(h / np.linalg.norm(h, axis=1, keepdims=True)).sum(0)
        tail = 100 * columns[columns > columns.mean()].sum() / columns.sum()
        expected = [100 * hits[arm].mean(), roc_auc_score(hits[arm], scores[arm]), scores[arm].mean()]
        assert row[1:4] == pytest.approx(expected, rel=1e-5) and row[6] == pytest.approx(tail, rel=1e-5)
    table = {(arm, name): rest for arm, name, *rest in run.tables[2].rows}
    for arm in ("lasso", "qscore"):
        value, low, high = table[arm, "probe top-1 [points]"]
        paired = 100 * (hits[arm].astype(float) - hits["baseline"])
        assert value == pytest.approx(paired.mean(), abs=1e-9) and low <= value <= high
        normal = 1.96 * paired.std() / len(paired) ** 0.5  # pairing shows in the width
        assert high - low == pytest.approx(2 * normal, rel=0.25, abs=1.0)
        areas = [roc_auc_score(hits[name], scores[name]) for name in (arm, "baseline")]
        assert table[arm, "Q-Score AUROC"][0] == pytest.approx(areas[0] - areas[1], abs=1e-6)
        assert table[arm, "mean Q"][0] == pytest.approx((scores[arm] - scores["baseline"]).mean(), abs=1e-6)
    twice = arm_difference(*([ArmSamples.load(out / arm / SAMPLES)] * 2 for arm in ("qscore", "baseline")))
    assert twice.top1.value == pytest.approx(table["qscore", "probe top-1 [points]"][0] / 100)
    assert twice.by_run == pytest.approx([twice.top1.value] * 2)


def test_set_of_another_model_is_refused_by_name():
    backbone = load_backbone("cifar:compact", "random")
    found = sslk.DiscriminativeFeatures.from_counts(torch.arange(256), 300, eps=2.0)
    check_set(found, backbone)
    check_set(replace(found, weights_hash=backbone.weights_hash), backbone)
    with pytest.raises(
        ValueError, match=r"with weights abcdef but 'cifar:compact \(random weights\)' has [0-9a-f]{12}: it belongs to another"
    ):
        check_set(replace(found, weights_hash="abcdef"), backbone)
    other = sslk.DiscriminativeFeatures.from_counts(torch.arange(64), 300, eps=2.0)
    with pytest.raises(ValueError, match="found for D=64 features but 'cifar:compact \(random weights\)' has D=256"):
        check_set(other, backbone)
    with pytest.raises(ValueError, match="found for D=64 features but the encoder has D=32"):
        TrainingModule(small_method("simsiam"), nn.Identity(), "qscore", TrainingConfig(), 1, Path(), other)
    with pytest.raises(ValueError, match="discriminative is needed for the arm qscore"):
        TrainingModule(small_method("simsiam"), nn.Identity(), "qscore", TrainingConfig(), 1, Path())


def test_set_remembers_its_model(tmp_path):
    found = replace(small_set(), weights_hash="0" * 64)
    found.save(tmp_path / "s")
    assert DiscriminativeFeatures.load(tmp_path / "s").weights_hash == "0" * 64


class Foreign(pl.LightningModule):
    """Encodes its views one by one, as lightly's examples do, and returns what `form` says."""

    def __init__(self, form="tensor"):
        super().__init__()
        self.backbone, self.form = nn.Sequential(nn.Flatten(), nn.Linear(12, 32), nn.ReLU()), form
        self.momentum = nn.Sequential(nn.Flatten(), nn.Linear(12, 32))
        self.seen, self.losses = [], []

    def training_step(self, batch, index):
        with torch.no_grad():
            self.backbone(batch[0])  # a target without a gradient is no representation
        h = [self.backbone(view) for view in (batch[0], batch[0] + 1)]
        self.seen.append(torch.cat(h).detach())
        loss = h[0].square().mean() + h[1].mean()
        self.losses.append(loss.item())
        return {"loss": loss} if self.form == "dict" else loss

    def on_train_batch_end(self, outputs, batch, index):
        self.losses[-1] = outputs["loss"].item() - self.losses[-1]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(module, callback, steps=2):
    data = DataLoader(TensorDataset(torch.rand(16, 3, 2, 2, generator=torch.Generator().manual_seed(0))), 8)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_steps=steps, callbacks=[callback], accelerator="cpu", log_every_n_steps=1, **options)
    trainer.fit(module, data)
    return trainer


@pytest.mark.parametrize("form", ["tensor", "dict"])
def test_callback_adds_the_penalty_of_all_views_and_leaves_no_trace(form):
    found, module = small_set(), Foreign(form)
    callback = QScoreCallback(found, lambda1=0.3, lambda2=0.02)
    trainer = fit(module, callback)
    for h, added in zip(module.seen, module.losses, strict=True):
        q, c = oracle.scores(h.double(), found.mask, 0.5).numpy(), oracle.column_norms(h.double()).numpy()
        assert added == pytest.approx(oracle.penalty(q, c, 0.3, 0.02, q.mean(), c.mean()), rel=1e-3)
    assert "training_step" not in vars(module) and not module.backbone._forward_hooks
    assert trainer.callback_metrics["qscore/mean_q"].item() == pytest.approx(q.mean(), rel=1e-4)


def test_callback_names_what_is_wrong():
    with pytest.raises(ValueError, match=r"must name a sub-module of Foreign, got 'encoder'; it has backbone, momentum"):
        fit(Foreign(), QScoreCallback(small_set(), "encoder"))
    with pytest.raises(ValueError, match="'momentum' gave no representations with a gradient"):
        fit(Foreign(), QScoreCallback(small_set(), "momentum"))
    by_hand = Foreign()
    by_hand.automatic_optimization = False
    with pytest.raises(ValueError, match="Foreign optimises by hand"):
        fit(by_hand, QScoreCallback(small_set()))


def test_example_of_a_plain_loop():
    history = runpy.run_path(str(EXAMPLES / "plain_loop.py"))["main"](steps=4, backend="aot_eager", batch_size=32)
    assert len(history) == 4 and all(0 < q < 1 for q in history)


def test_example_of_the_callback():
    logged = runpy.run_path(str(EXAMPLES / "lightning_callback.py"))["main"](steps=2, backend="aot_eager", batch_size=32)
    assert logged["qscore/penalty"] != 0 and 0 < logged["qscore/mean_q"] < 1


def test_local_crops_only_where_a_method_uses_them():
    views = small_views(torch.zeros(16, 3, 32, 32, dtype=torch.uint8), TrainingConfig(batch_size=16, local_views=2))
    assert [tuple(view.shape[2:]) for view in views(next(views.batches(iter([(torch.arange(4), torch.arange(4), 0)]))))] == [
        (16, 16),
        (16, 16),
        (8, 8),
        (8, 8),
    ]


def test_pretraining_takes_turns_and_goes_on(tmp_path, monkeypatch, capsys):
    words = [
        "pretrain.py",
        "--data",
        "sample",
        "--out",
        str(tmp_path),
        "--methods",
        "simsiam",
        "byol",
        "--images",
        "32",
        "--epochs",
        "2",
        "--batch-size",
        "16",
        "--size",
        "16",
    ]
    pretrain = runpy.run_path(str(EXAMPLES / "pretrain.py"))["main"]
    for more in (["--stop", "1"], []):
        monkeypatch.setattr("sys.argv", [*words, *more])
        pretrain()
    turns = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    order = [("simsiam", 1), ("byol", 1), ("simsiam", 1), ("byol", 1), ("simsiam", 2), ("byol", 2)]
    assert [(turn["method"], turn["epoch"]) for turn in turns] == order
    backbone = load_backbone("cifar:compact", tmp_path / "byol" / "model.safetensors")
    assert not backbone.checkpoint.missing and read_checkpoint(tmp_path / "byol" / "model.safetensors").parts["predictor"]
