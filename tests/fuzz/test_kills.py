"""SIGKILL at random moments, then the same call again: every resumable job ends as an undisturbed one, with less to do."""

import os
import random
import signal
import time
from multiprocessing import get_context

import pytest
import torch

from tests.fuzz.resumable import JOBS, clusterings, run_logging

KILLS = int(os.environ.get("SSLK_TEST_KILLS", 2))
REST = 0.02  # seconds at every step of a job that is to be killed


@pytest.fixture(scope="module")
def spawn():
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.fuzz.resumable"])
    return context.Process


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def steps(log):
    return log.stat().st_size if log.exists() else 0


@pytest.mark.parametrize("number", range(len(JOBS)), ids=[job.__name__ for job in JOBS])
def test_killed_again_and_again(tmp_path, spawn, number):
    job, chance = JOBS[number], random.Random(number)
    (tmp_path / "given").mkdir()
    count = []
    whole = job(tmp_path / "given", tmp_path / "out", lambda *unused: count.append(0))
    (tmp_path / "out").rename(tmp_path / "whole")
    log, killed = tmp_path / "log", 0
    for _ in range(KILLS):
        before = steps(log)
        child = spawn(target=run_logging, args=(number, tmp_path / "given", tmp_path / "out", log, REST))
        child.start()
        wanted = before + max(1, len(count) // (2 * KILLS))
        while steps(log) < wanted and child.is_alive():
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 2 * REST))
        child.kill()
        child.join()
        killed += child.exitcode == -signal.SIGKILL
    assert killed >= 1, "every run ended before it was killed"
    left = []
    assert job(tmp_path / "given", tmp_path / "out", lambda *unused: left.append(0)) == whole
    assert len(left) < len(count) or job is clusterings, "nothing was kept of the killed runs"  # it ticks for kept ones too
