"""An interrupted training goes on with its curve: the same rows in one CSV, once each."""

import csv
from dataclasses import replace

import pytest
import torch

from sslk.training import Monitor, MonitorCallback, MonitorSettings
from tests.training.monitored import CLASSES, batches, encoder
from tests.training.test_monitor_loops import SETTINGS, BarlowTwins, fit, loader


def read(path):
    with open(path) as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def plain(folder, data, state=None):
    """Features that do not depend on the loop: the net is not trained."""
    net = encoder().eval()
    settings = MonitorSettings(every_n_steps=3, queue_length=64, k=5, num_classes=CLASSES, probe_lr=0.05)
    monitor = Monitor(net, settings, folder=folder)
    if state is not None:
        monitor.load_state_dict(state)
    for x, y in data:
        net(x), net(x + 0.1)
        monitor.step(labels=y)
    return monitor


def test_a_plain_loop_goes_on(tmp_path):
    data = batches(14)
    whole = plain(tmp_path / "whole", data)
    early = plain(tmp_path / "cut", data[:7])
    torch.save(early.state_dict(), tmp_path / "state.pt")
    late = plain(tmp_path / "late", data[7:10], early.state_dict())  # killed after more rows than the checkpoint knows of
    (tmp_path / "late/monitor.csv").rename(tmp_path / "cut/monitor.csv")
    assert [row["step"] for row in late.rows] == [3, 6, 9]
    resumed = plain(tmp_path / "cut", data[7:], torch.load(tmp_path / "state.pt", weights_only=True))
    assert resumed.rows == whole.rows and [row["step"] for row in whole.rows] == [3, 6, 9, 12]
    assert read(tmp_path / "cut/monitor.csv") == read(tmp_path / "whole/monitor.csv") == whole.rows
    assert all(torch.equal(whole.queue.columns()[name], column) for name, column in resumed.queue.columns().items())


def test_a_curve_of_another_run_is_not_overwritten(tmp_path):
    plain(tmp_path, batches(3))
    before = (tmp_path / "monitor.csv").read_bytes()
    with pytest.raises(ValueError, match=r"monitor.csv holds the curve of another run: load its state to go on"):
        plain(tmp_path, batches(3, seed=4))
    assert (tmp_path / "monitor.csv").read_bytes() == before


def test_a_state_that_was_loaded_can_be_saved_again_and_another_probe_is_refused(tmp_path):
    state = plain(None, batches(5)).state_dict()
    again = Monitor(settings=MonitorSettings(num_classes=CLASSES))
    again.load_state_dict(state)
    other = again.state_dict()
    assert torch.equal(other["queue"]["features"], state["queue"]["features"]) and other["rows"] == state["rows"]
    more = Monitor(settings=MonitorSettings(num_classes=CLASSES + 1, queue_length=32, k=5))
    more.load_state_dict(state)
    with pytest.raises(ValueError, match="the state's probe must be"):
        more.step(torch.rand(4, 24), torch.zeros(4))


class Killed(Exception):
    pass


def test_lightning_goes_on_from_its_checkpoint(tmp_path):
    """Killed in an epoch after rows that the last checkpoint does not know of; the data are the same in every epoch."""
    settings, modules = replace(SETTINGS, every_n_steps=4), [BarlowTwins().train() for _ in range(3)]
    for module in modules:
        module.backbone[3].p = 0.0
    data = loader(6)
    whole = MonitorCallback(settings, folder=tmp_path / "whole")
    fit(modules[0], [whole], data=data, max_epochs=4)

    class Dies(MonitorCallback):
        def on_train_batch_end(self, trainer, *args):
            super().on_train_batch_end(trainer, *args)
            if trainer.global_step == 12:
                trainer.save_checkpoint(tmp_path / "last.ckpt")
            if trainer.global_step == 17:
                raise Killed

        state_key = "MonitorCallback[name=monitor]"

    with pytest.raises(Killed):
        fit(modules[1], [Dies(settings, folder=tmp_path / "cut")], data=data, max_epochs=4)
    assert [row["step"] for row in read(tmp_path / "cut/monitor.csv")] == [4, 8, 12, 16]
    resumed = MonitorCallback(settings, folder=tmp_path / "cut")
    fit(modules[2], [resumed], data=data, max_epochs=4, ckpt_path=tmp_path / "last.ckpt")
    rows = resumed.monitor.rows
    assert [row["step"] for row in rows] == [4, 8, 12, 16, 20, 24] and read(tmp_path / "cut/monitor.csv") == rows
    assert rows == whole.monitor.rows
