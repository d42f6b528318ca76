"""Two gloo processes train like one: loss and weights after three steps, for every method and arm."""

import os
from pathlib import Path

import pytest
import torch
from torch import multiprocessing, nn

from sslk.training.methods import METHODS, MomentumMethod
from sslk.training.run import train
from tests.training.small import small_config, small_images, small_method, small_set, small_views

CASES = [*((name, "qscore") for name in METHODS), ("simsiam", "lasso"), ("simsiam", "baseline")]


def without_batch_statistics(module: nn.Module) -> nn.Module:
    """Batch norm of one process's rows differs from that of all rows; on GPUs Lightning makes it global."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            setattr(module, name, nn.GroupNorm(1, child.num_features))
        else:
            without_batch_statistics(child)
    return module


def three_steps(name: str, arm: str, folder: str) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    config = small_config(epochs=1, optimizer="sgd", learning_rate=0.02)
    images, method = small_images(), without_batch_statistics(small_method(name))
    if isinstance(method, MomentumMethod):
        method.reset_momentum()
    log = train(method, small_views(images, config), _path(folder, name, arm), config, arm, small_set())
    return {key: value.detach().clone() for key, value in method.state_dict().items()}, log


def _path(folder: str, name: str, arm: str) -> Path:
    return Path(folder) / f"{name}-{arm}"


def _rank(rank: int, folder: str, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    results = {case: three_steps(*case, f"{folder}/two") for case in CASES}
    torch.save(results, f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gloo")
    port = 20000 + os.getpid() % 20000
    multiprocessing.spawn(_rank, args=(str(folder), port), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize(("name", "arm"), CASES)
def test_two_ranks_equal_one_process(results, tmp_path, name, arm):
    torch.set_num_threads(1)
    state, log = three_steps(name, arm, str(tmp_path))
    assert len(log) == 3
    for rank in range(2):
        other, other_log = results[rank][name, arm]
        for key, value in state.items():
            if "memory_bank" not in key:  # the queue holds the same keys in another order
                torch.testing.assert_close(other[key], value, rtol=2e-4, atol=2e-6, msg=lambda m, k=key: f"{k}: {m}")
        if rank == 0:
            for mine, theirs in zip(log, other_log, strict=True):
                assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-4)
                assert theirs["penalty"] == pytest.approx(mine["penalty"], rel=1e-4, abs=1e-8)
