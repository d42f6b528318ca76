"""The monitor in loops as people write them: Lightning modules, compiled encoders, autocast, maps and tokens, loggers."""

import csv
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from lightly.loss import BarlowTwinsLoss
from lightly.models.modules.heads import BarlowTwinsProjectionHead
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.tensorboard import SummaryWriter

from sslk.results import Run
from sslk.training import Monitor, MonitorCallback, MonitorSettings, QScoreCallback
from tests.training.monitored import CLASSES, FEATURES, batches, encoder, expected, train

SETTINGS = MonitorSettings(input="backbone", target=1, every_n_steps=3, queue_length=64, k=5, num_classes=CLASSES, eps=1.0)


class BarlowTwins(pl.LightningModule):
    """As lightly's examples are written; `together` encodes both views in one pass, as solo-learn's and SwAV's do."""

    def __init__(self, together: bool = False, by_hand: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.backbone, self.head = encoder(), BarlowTwinsProjectionHead(FEATURES, 32, 16)
        self.loss, self.together, self.automatic_optimization = BarlowTwinsLoss(), together, not by_hand

    def training_step(self, batch, batch_idx):
        x, _ = batch if isinstance(batch, list | tuple) else (batch["image"], None)
        views = [x, x + 0.1]
        h = self.backbone(torch.cat(views)).chunk(2) if self.together else [self.backbone(view) for view in views]
        loss = self.loss(*map(self.head, h))
        if not self.automatic_optimization:
            self.optimizers().zero_grad()
            self.manual_backward(loss)
            self.optimizers().step()
        return loss

    def validation_step(self, batch, batch_idx):
        with torch.enable_grad():  # is not training all the same
            self.backbone(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def loader(count: int = 12, keys: tuple[str, ...] = ()) -> DataLoader:
    x, y = (torch.cat(parts) for parts in zip(*batches(count), strict=True))
    rows = [dict(zip(keys, row, strict=True)) for row in zip(x, y, strict=True)] if keys else TensorDataset(x, y)
    return DataLoader(rows, 16)


def fit(module, callbacks, folder=None, loggers=False, ckpt_path=None, data=None, **options):
    trainer = pl.Trainer(
        accelerator="cpu",
        callbacks=callbacks,
        logger=loggers,
        default_root_dir=folder,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 1, **options},
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(does not have many workers|logging interval|treespec|val_dataloader).*")
        trainer.fit(module, data or loader(), ckpt_path=ckpt_path)
    return trainer


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("by_hand", [False, True])
def test_a_lightning_module_is_watched_and_left_as_it_is(together, by_hand):
    plain, watched = BarlowTwins(together, by_hand).train(), BarlowTwins(together, by_hand).train()
    pl.seed_everything(0, verbose=False)
    fit(plain, [])
    pl.seed_everything(0, verbose=False)
    callback = MonitorCallback(SETTINGS)
    trainer = fit(watched, [callback])
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), watched.state_dict().values(), strict=True))
    monitor = callback.monitor
    assert [row["step"] for row in monitor.rows] == [3, 6, 9, 12] and len(watched.backbone._forward_hooks) == 0
    last, columns = monitor.rows[-1], monitor.queue.columns()
    assert last["monitor/rankme"] == pytest.approx(expected(columns["features"].double().numpy(), 1.0)["rankme"], rel=1e-5)
    assert 0 < last["monitor/alignment"] < 1 and last["monitor/rows"] == 64
    assert torch.equal(columns["labels"], torch.cat([y for _, y in batches(12)])[-64:])
    assert trainer.callback_metrics["monitor/rankme"] == pytest.approx(last["monitor/rankme"], rel=1e-6)


def test_loggers_of_lightning_and_choice_of_a_checkpoint(tmp_path):
    loggers = [CSVLogger(tmp_path, "csv", version=0), TensorBoardLogger(tmp_path, "board", version=0)]
    best = ModelCheckpoint(tmp_path / "best", monitor="monitor/rankme", mode="max", every_n_train_steps=3, save_top_k=1)
    callback = MonitorCallback(SETTINGS, folder=tmp_path)
    fit(BarlowTwins().train(), [callback, best], tmp_path, loggers, log_every_n_steps=5)
    rows = callback.monitor.rows
    with open(tmp_path / "csv/version_0/metrics.csv") as file:
        logged = {int(row["step"]): row for row in csv.DictReader(file) if row["monitor/rankme"]}
    events = EventAccumulator(str(tmp_path / "board/version_0")).Reload()
    scalars = {event.step: event.value for event in events.Scalars("monitor/mean_qscore")}
    with open(tmp_path / "monitor.csv") as file:
        own = list(csv.DictReader(file))
    assert [int(row["step"]) for row in own] == [row["step"] for row in rows] == [3, 6, 9, 12]
    for row, mine in zip(rows, own, strict=True):
        assert float(mine["monitor/uniformity"]) == row["monitor/uniformity"]
        assert float(logged[row["step"]]["monitor/rankme"]) == pytest.approx(row["monitor/rankme"])
        assert scalars[row["step"]] == pytest.approx(row["monitor/mean_qscore"], rel=1e-6)
    assert float(best.best_model_score) == pytest.approx(max(row["monitor/rankme"] for row in rows))


def test_epochs_accumulation_and_a_dictionary():
    callback = MonitorCallback(replace(SETTINGS, target="label", every_n_steps=0, every_n_epochs=2))
    data = loader(8, keys=("image", "label"))
    fit(BarlowTwins().train(), [callback], data=data, max_epochs=5, accumulate_grad_batches=4)
    assert [(row["step"], row["epoch"]) for row in callback.monitor.rows] == [(4, 2), (8, 4)]
    both = MonitorCallback(replace(SETTINGS, target="label", every_n_steps=2, every_n_epochs=1))
    fit(BarlowTwins().train(), [both], data=data, max_epochs=2, accumulate_grad_batches=4)
    assert [row["step"] for row in both.monitor.rows] == [2, 4]  # the end of an epoch adds no second row


def test_validation_within_an_epoch_is_not_training():
    queues = []
    for validated in (False, True):
        callback, module = MonitorCallback(SETTINGS), BarlowTwins().train()
        module.backbone[3].p = 0.0  # a loader's iterator draws a random number too
        if validated:
            module.val_dataloader = lambda: loader(2)
        penalty = QScoreCallback(torch.arange(FEATURES) < 12, eps=1.0)  # beside another hook
        fit(module, [callback, penalty], accumulate_grad_batches=2, val_check_interval=2, num_sanity_val_steps=0)
        assert [row["step"] for row in callback.monitor.rows] == [3, 6]
        queues.append(callback.monitor.queue.columns())
    assert torch.equal(queues[1]["labels"], torch.cat([y for _, y in batches(12)])[-64:])
    assert all(torch.equal(queues[0][name], queues[1][name]) for name in queues[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": "encoder"}, "sub-module of BarlowTwins, got 'encoder'; it has backbone, head, loss"),
        ({"target": "label"}, "target='label' must be where a batch has its labels, got a list of 2"),
        ({"target": None}, "labels must be given for the online probe"),
        ({"input": "unused"}, "input 'unused' gave no representations"),
    ],
)
def test_errors_in_lightning(changes, message):
    module = BarlowTwins()
    module.unused = nn.Identity() if changes.get("input") == "unused" else None
    with pytest.raises(ValueError, match=message):
        fit(module, [MonitorCallback(replace(SETTINGS, **changes))])


def test_held_out_images_of_a_lightning_module_in_bfloat16():
    seen = []
    module = BarlowTwins().train()
    module.backbone[0].register_forward_hook(lambda m, a, output: seen.append((output.dtype, module.backbone.training)))
    callback = MonitorCallback(SETTINGS, held_out=loader(2))
    fit(module, [callback], precision="bf16-mixed")
    assert set(seen) == {(torch.bfloat16, True), (torch.bfloat16, False)} and module.backbone.training
    assert callback.monitor.rows[-1]["monitor/rows"] == 32


@pytest.mark.parametrize("how", ["wrapped", "in place", "outside"])
def test_a_compiled_encoder(how):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    net = encoder().train()
    compiled = net
    if how == "wrapped":
        compiled = torch.compile(net, backend="eager")
        monitor = Monitor(compiled, replace(SETTINGS, input="", every_n_steps=4))
    else:
        monitor = Monitor(net, replace(SETTINGS, input="", every_n_steps=4))
        if how == "in place":
            net.compile(backend="eager", fullgraph=True)
        else:
            compiled = torch.compile(net, backend="eager", fullgraph=True)
    seen = train(compiled, batches(8), lambda h, y: (h, monitor.step(labels=y)))
    assert [bool(values) for _, values in seen] == [False, False, False, True] * 2
    assert torch.equal(monitor.queue.columns()["features"], torch.cat([h[0] for h, _ in seen])[-64:])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2  # no step compiles anew


@pytest.mark.parametrize(
    ("shape", "pool"),
    [((6, 5, 3, 3), lambda x: x.mean((2, 3))), ((6, 7, 5), lambda x: x[:, 0]), ((6, 5), lambda x: x)],
    ids=["map", "tokens", "vector"],
)
def test_maps_and_tokens(shape, pool):
    class Net(nn.Module):
        def forward(self, x):
            return x * 2

    net, x = Net(), torch.rand(shape)
    monitor = Monitor(net)
    output = net(x)
    output.mul_(0)  # what follows may work in place
    monitor.step()
    torch.testing.assert_close(monitor.queue.columns()["features"], pool(2 * x))
    own = Monitor(net, read=lambda output: output.flatten(1)[:, :2])
    net(x)
    own.step()
    torch.testing.assert_close(own.queue.columns()["features"], 2 * x.flatten(1)[:, :2])


def test_two_views_in_one_output_without_labels():
    h = torch.rand(32, FEATURES)
    monitor = Monitor(views=2)
    monitor.step(h)
    columns = monitor.queue.columns()
    assert torch.equal(columns["features"], h[:16]) and torch.equal(columns["second"], h[16:])


def test_tensorboard_functions_and_the_report_of_a_plain_loop(tmp_path):
    got, net = [], encoder().train()
    with SummaryWriter(tmp_path / "board") as writer:
        monitor = Monitor(
            net, replace(SETTINGS, input=""), folder=tmp_path, loggers=[writer, lambda values, step: got.append((step, values))]
        )
        train(net, batches(9), lambda h, y: monitor.step(labels=y))
    events = EventAccumulator(str(tmp_path / "board")).Reload()
    assert [(event.step, pytest.approx(event.value)) for event in events.Scalars("monitor/knn_top1")] == [
        (row["step"], row["monitor/knn_top1"]) for row in monitor.rows
    ]
    assert got == [(row["step"], {k: v for k, v in row.items() if "/" in k}) for row in monitor.rows]
    monitor.run("net", "noise").save(tmp_path / "run")
    run = Run.load(tmp_path / "run")
    assert run.measures[0].metric == "RankMe" and run.measures[0].value == monitor.rows[-1]["monitor/rankme"]
    assert {(m.model, m.data, m.task, m.samples) for m in run.measures} == {("net", "noise", "monitored training", 64)}
    with open(tmp_path / "run" / run.figures[0].data) as file:
        drawn = list(csv.DictReader(file))
    assert [float(row["rankme"]) for row in drawn] == [row["monitor/rankme"] for row in monitor.rows]
    assert "RankMe went from" in run.findings[0] and len(run.tables[0].rows) == 3
    assert np.isfinite(run.summary["mean_qscore"])


def test_the_documented_loops_run(tmp_path, monkeypatch, capsys):
    """The blocks of "Watch it while it trains", one after another, as a reader would copy them."""
    page = (Path(__file__).parents[2] / "docs/howto/training_loop.md").read_text()
    section = page.partition("## Watch it while it trains")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks:
        exec(compile(block, "training_loop.md", "exec"), names)
    assert len(blocks) == 2 and "100 monitor/rankme" in capsys.readouterr().out
    assert len(names["callback"].monitor.rows) == 2 and Run.load(tmp_path / "watched/run").measures


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")
    import monitor as example

    rows = example.main(steps=20, out=str(tmp_path), batch_size=16)
    assert [row["step"] for row in rows] == [20] and rows[0]["monitor/rows"] == 1000
    assert (tmp_path / "run/monitor.svg").exists() and "monitor/knn_top1" in capsys.readouterr().out
