"""SIGKILL at any step: the resumed run ends with bitwise the weights, queues and centres of an undisturbed one."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from sslk.training.checkpoints import NonFiniteError
from sslk.training.run import Carrying, train
from tests.training.small import small_config, small_images, small_method, small_set, small_views, train_logging, train_small


def steps_done(log: Path) -> int:
    return len(log.read_text().split()) if log.exists() else 0


@pytest.mark.parametrize("name", ["moco", "dino"])
def test_killed_at_random_moments_and_resumed(tmp_path, spawn, name):
    """Momentum encoder, queue, centre, optimiser, schedule, order and views all go on where they were."""
    torch.set_num_threads(1)
    whole = train_small(name, tmp_path / "whole").state_dict()
    log, chance = tmp_path / "log", random.Random(name)
    for _ in range(2):
        before = steps_done(log)
        child = spawn(target=train_logging, args=(name, tmp_path / "killed", log, 0.1))
        child.start()
        while steps_done(log) < before + 2 and child.is_alive():
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.15))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL, "the run ended before it was killed"
        assert not (tmp_path / "killed" / "final.pt").exists()
    child = spawn(target=train_logging, args=(name, tmp_path / "killed", log, 0.0))
    child.start()
    child.join()
    assert child.exitcode == 0
    resumed = torch.load(tmp_path / "killed" / "final.pt", weights_only=True)
    assert resumed.keys() == whole.keys()
    for key, value in whole.items():
        assert torch.equal(resumed[key], value), key
    seen = [int(step) for step in log.read_text().split()]
    assert max(seen) == 9 and len(seen) < 9 + 2 * 3, "a kill costs no more than the steps since the last checkpoint"


@pytest.mark.parametrize("name", ["simclr", "swav", "byol", "simsiam", "vicreg", "barlow-twins"])
def test_stopping_and_going_on_changes_nothing(tmp_path, name):
    torch.set_num_threads(1)
    images, config = small_images(), small_config(epochs=2)
    states = []
    for folder, stops in ((tmp_path / "whole", [None]), (tmp_path / "parts", [1, None])):
        for stop in stops:
            method = small_method(name)
            train(method, small_views(images, config), folder, config, "qscore", small_set(), Carrying(stop_epoch=stop))
        states.append(method.state_dict())
    for key, value in states[0].items():
        assert torch.equal(states[1][key], value), key


def test_finished_run_is_read_and_not_repeated(tmp_path):
    first = train_small("simsiam", tmp_path, epochs=1).state_dict()
    changed = (tmp_path / "last.ckpt").stat().st_mtime_ns
    again = train_small("simsiam", tmp_path, epochs=1).state_dict()
    assert (tmp_path / "last.ckpt").stat().st_mtime_ns == changed
    assert all(torch.equal(again[key], value) for key, value in first.items())


def test_another_run_in_the_folder_is_refused_by_the_setting_that_differs(tmp_path):
    train_small("simsiam", tmp_path, epochs=1)
    with pytest.raises(ValueError, match=r"holds a run with config.learning_rate = 0.2, this one has 0.1"):
        train_small("simsiam", tmp_path, epochs=1, learning_rate=0.1)
    train_small("simsiam", tmp_path, epochs=1, checkpoint_every=7)  # how a run is carried out may change


def test_nan_loss_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    config, images = small_config(), small_images()
    method, views = small_method("simclr"), small_views(images, config)

    def poison(step, total, stage):
        if step == 4:
            with torch.no_grad():
                method.projection_head.layers[0].weight.fill_(float("nan"))

    with pytest.raises(NonFiniteError, match=r"not finite (at|after) step 4.*last good checkpoint is .*last.ckpt"):
        train(method, views, tmp_path, config, "qscore", small_set(), progress=poison)
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 4 and all(v.isfinite().all() for v in kept["state_dict"].values())


def test_weights_that_become_infinite_are_not_saved(tmp_path):
    config, images = small_config(learning_rate=1e30, optimizer="sgd"), small_images()
    with pytest.raises(NonFiniteError, match=r"not finite (at|after) step \d+"):
        train(small_method("vicreg"), small_views(images, config), tmp_path, config, "baseline", small_set())
    if (tmp_path / "last.ckpt").exists():
        kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
        assert all(v.isfinite().all() for v in kept["state_dict"].values())


def test_logs_hold_every_step_once_after_an_interruption(tmp_path):
    images, config = small_images(), small_config()
    for stop in (1, 2, None):
        method = small_method("simsiam")
        rows = train(method, small_views(images, config), tmp_path, config, "qscore", small_set(), Carrying(stop_epoch=stop))
    assert [row["step"] for row in rows] == list(range(9))
    assert rows[0].keys() >= {
        "loss",
        "penalty",
        "mean_q",
        "below_alpha",
        "mean_active",
        "column_l1_tail",
        "q_term",
        "column_term",
    }
    assert all(row["penalty"] == pytest.approx(row["q_term"] + row["column_term"], rel=1e-4) for row in rows)
    assert list((tmp_path / "tensorboard").rglob("events.*"))
    assert json.loads((tmp_path / "config.json").read_text())["arm"] == "qscore"
