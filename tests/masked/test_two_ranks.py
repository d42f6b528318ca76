"""Two gloo processes with half of the rows each give the similarities of one process that sees all."""

import torch
from torch import distributed, multiprocessing

from sslk.metrics import Similarity
from tests.masked.test_similarity import arrays, oracle, representations


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    parts = [part[:30] if rank == 0 else part[30:] for part in representations(90, 8, 0)]
    metric = Similarity([8, 8, 8])
    for batch in zip(*(part.split(13) for part in parts), strict=True):
        metric.update(*batch)
    together = metric.compute()
    # Its own rows are still its own: another batch and another synchronisation count nothing twice.
    metric.update(*(part[:0] for part in parts))
    torch.save((together, metric.compute()), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_ranks_equal_the_oracle(tmp_path):
    multiprocessing.spawn(_rank, args=(str(tmp_path),), nprocs=2)
    xs = arrays(representations(90, 8, 0))
    wanted = {
        "debiased": oracle.cka(oracle.linear_grams(xs), oracle.hsic_unbiased),
        "biased": oracle.cka(oracle.linear_grams(xs), oracle.hsic_biased),
        "r2": oracle.cca(xs),
    }
    for rank in range(2):
        for answer in torch.load(tmp_path / f"{rank}.pt"):
            for name, expected in wanted.items():
                torch.testing.assert_close(answer[name], torch.from_numpy(expected), atol=1e-8, rtol=0)
