"""kmeans_assign against the bare matrix product, faiss and torch.cdist."""

import pytest
import torch

import ssl_kernels  # noqa: F401  (registers the ops)

ops = torch.ops.sslk


@pytest.mark.parametrize("shape", [(20_000, 512, 1000), (8_000, 2048, 1000), (50_000, 64, 1000), (50_000, 128, 100)], ids=str)
def test_kmeans_assign(beside, shape):
    faiss = pytest.importorskip("faiss")
    faiss.omp_set_num_threads(torch.get_num_threads())
    n, d, k = shape
    generator = torch.Generator().manual_seed(0)
    x, centroids = torch.randn(n, d, generator=generator), torch.randn(k, d, generator=generator)
    index = faiss.IndexFlatL2(d)
    index.add(centroids.numpy())
    # Interleaved with faiss, round by round: `share` is the time of faiss over that of the op, at least 1.
    beside(
        lambda: ops.kmeans_assign(x, centroids),
        x.nbytes,
        lambda: index.search(x.numpy(), 1),
        x.nbytes,
        "faiss",
        {"mm": lambda: x @ centroids.T, "cdist": lambda: torch.cdist(x, centroids).min(1)},
    )
