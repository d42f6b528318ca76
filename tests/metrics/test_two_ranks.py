"""Two gloo processes that see different rows give the answer of one process that sees all."""

import warnings

import pytest
import torch
from torch import distributed, multiprocessing

from tests.metrics.cases import CASES, answers, assert_answer

FIRST = 7  # rows of rank 0; the other has the rest, or none


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    results = {}
    for name, case in CASES.items():
        for idle in (False, True):
            metric = case.make()
            if idle:
                mine = case.rows if rank == 0 else ()
            else:
                mine = [rows[:FIRST] if rank == 0 else rows[FIRST:] for rows in case.rows]
            for batch in zip(*(rows.split(4) for rows in mine), strict=True):
                metric.update(*batch)
            results[name, idle] = answers(metric.compute())
            # The synchronised value must not have been added to this rank's own state.
            with metric.sync_context(should_sync=False):
                results[name, idle, "again"] = answers(metric.compute())
    torch.save(results, f"{folder}/rank{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gloo")
    multiprocessing.spawn(_rank, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("idle", [False, True], ids=["both", "one_without_rows"])
@pytest.mark.parametrize("name", CASES)
def test_two_ranks_equal_one_process(results, name, idle):
    case = CASES[name]
    for rank in range(2):
        expected = case.oracle(*case.rows)
        assert_answer(results[rank][name, idle], expected, 1e-6 if name == "qscore" else 1e-9)
        assert_answer(results[rank][name, idle, "again"], results[rank][name, idle], 0)
