"""k-means over two processes equals one process on all rows."""

import torch
from torch import distributed, multiprocessing

from sslk.reverse.quantizer import quantize
from sslk.reverse.settings import KMeansSettings

SETTINGS = [
    KMeansSettings(clusters=8, clusterings=2, restarts=2, iterations=20, start=start) for start in ("random", "k-means++")
]


def data() -> torch.Tensor:
    x = torch.randn(400, 5, generator=torch.Generator().manual_seed(0)) + 50
    x[:100] = x[0]  # copies: clusters run empty and are repaired
    return x


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    rows = data()[:150] if rank == 0 else data()[150:]
    for number, settings in enumerate(SETTINGS):
        quantize(rows, settings).save(f"{folder}/{number}-{rank}")
    distributed.destroy_process_group()


def test_two_ranks_equal_one(tmp_path):
    from sslk.reverse.quantizer import Clusterings

    multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    for number, settings in enumerate(SETTINGS):
        alone = quantize(data(), settings)
        parts = [Clusterings.load(tmp_path / f"{number}-{rank}") for rank in range(2)]
        assert torch.equal(parts[0].centroids, parts[1].centroids)
        torch.testing.assert_close(parts[0].centroids, alone.centroids, rtol=1e-5, atol=1e-6)
        assert torch.equal(torch.cat([part.assignments for part in parts], 1), alone.assignments)
        assert torch.cat([part.samples for part in parts]).tolist() == list(range(400))
        torch.testing.assert_close(parts[0].inertia, alone.inertia, rtol=1e-6, atol=0)
