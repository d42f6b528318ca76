"""Two gloo processes that each see half of every batch give the values of one process that sees all of it."""

import pytest
import torch
from torch import distributed, multiprocessing

from sslk.training import Monitor, MonitorSettings
from tests.training.monitored import CLASSES, FEATURES, batches, encoder

SETTINGS = MonitorSettings(
    every_n_steps=5, queue_length=64, k=5, num_classes=CLASSES, eps=1.0, probe_lr=0.05, target=1, two_sided=False
)
CASES = {
    "queue": {},
    "not full": {"queue_length": 256},
    "held out": {"held_out": batches(3, seed=9)},
    "unlabelled on one": {"unlabelled": 8},
    "auto": {"auto": True},
    "half": {"dtype": torch.bfloat16},
}


def watch(case: str, rank: int = 0, size: int = 1) -> list[dict[str, float]]:
    changes = dict(CASES[case])
    unlabelled, dtype = changes.pop("unlabelled", 0), changes.pop("dtype", torch.float32)
    if changes.pop("auto", False):
        changes |= {"settings": MonitorSettings(every_n_steps=5, queue_length=64, k=5)}
    net = encoder().eval()  # batch statistics of half a batch would be others
    monitor = Monitor(net, **{"settings": SETTINGS, **changes})
    for x, y in batches(10):
        y = torch.where(torch.arange(16) < unlabelled, -1, y)
        with torch.no_grad():
            h = [net(view).to(dtype) for view in (x, x + 0.1)]
        monitor.step([part.chunk(size)[rank] for part in h], y.chunk(size)[rank])
    return monitor.rows


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.save({case: watch(case, rank, 2) for case in CASES}, f"{folder}/rank{rank}.pt")
    resumed = Monitor(settings=SETTINGS)
    state = {"h": torch.rand(32, FEATURES) + rank, "y": torch.arange(32) % CLASSES}
    resumed.step(state["h"], state["y"])
    saved = [resumed.state_dict()]
    distributed.broadcast_object_list(saved, 0)  # what a checkpoint of the first process holds
    fresh = Monitor(settings=SETTINGS)
    fresh.load_state_dict(saved[0])
    fresh.step(state["h"][:4] + 7, state["y"][:4])
    torch.save((fresh.queue.filled, fresh.probe.weight, fresh.evaluate()), f"{folder}/resumed{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gloo")
    multiprocessing.spawn(_rank, args=(str(folder),), nprocs=2)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_equal_one_process(folder, case):
    one = watch(case)
    assert len(one) == 2 and one[1]["monitor/rows"] == {"not full": 160, "held out": 48}.get(case, 64)
    for rank in range(2):
        for mine, theirs in zip(one, torch.load(folder / f"rank{rank}.pt")[case], strict=True):
            assert theirs == pytest.approx(mine, rel=1e-5, abs=1e-8, nan_ok=True)


def test_the_state_of_one_process_is_not_taken_twice(folder):
    (filled, weight, values), (other_filled, other_weight, other_values) = (
        torch.load(folder / f"resumed{rank}.pt") for rank in range(2)
    )
    assert (filled, other_filled) == (32, 4) and values == other_values and values["monitor/rows"] == 36
    assert torch.equal(weight, other_weight)
