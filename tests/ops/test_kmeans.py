"""kmeans_assign against a float64 search over all distances, under every CPU build."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ssl_kernels

ops = torch.ops.sslk
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def points(n, k, d, dtype=torch.float32, device="cpu", seed=0, offset=0.0):
    generator = torch.Generator().manual_seed(seed)
    centroids = torch.randn(k, d, generator=generator)
    x = torch.randn(n, d, generator=generator) + 0.5 * centroids[torch.randint(k, (n,), generator=generator)]
    return (x + offset).to(dtype).to(device), (centroids + offset).to(dtype).to(device)


def oracle(x, centroids):
    """Nearest by sum (x - c)^2 in float64, the first of equals."""
    x, centroids = x.cpu().double().numpy(), centroids.cpu().double().numpy()
    index, distance = np.zeros(len(x), dtype=np.int32), np.zeros(len(x))
    for i, row in enumerate(x):
        squared = np.square(row - centroids).sum(axis=1)
        index[i] = squared.argmin()
        distance[i] = squared[index[i]]
    return torch.from_numpy(index), torch.from_numpy(distance)


def check(x, centroids):
    index, distance = ops.kmeans_assign(x, centroids)
    expected_index, expected_distance = oracle(x, centroids)
    assert index.dtype == torch.int32
    assert torch.equal(index.cpu(), expected_index)
    rtol = 1e-13 if x.dtype == torch.float64 else 6e-8  # rounded once
    assert distance.dtype == (torch.float64 if x.dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(distance.double().cpu(), expected_distance, rtol=rtol, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "k", "d"), [(1, 1, 1), (7, 3, 5), (300, 10, 64), (65, 257, 33), (129, 1000, 19), (40, 2100, 8), (9, 5, 1031)]
)
def test_equals_the_search_over_all_distances(device, isa, dtype, n, k, d):
    check(*points(n, k, d, dtype, device))


@pytest.mark.parametrize("offset", [50.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_offset_does_not_drown_the_distances(device, isa, offset, dtype):
    check(*points(200, 60, 24, dtype, device, offset=offset))


def test_ties_go_to_the_lowest_index(device, isa):
    x, centroids = points(50, 20, 12, device=device)
    doubled = torch.cat([centroids, centroids.flip(0), centroids])
    index, _ = ops.kmeans_assign(x, doubled)
    assert torch.equal(index, ops.kmeans_assign(x, centroids)[0])
    assert (ops.kmeans_assign(x, centroids[:1].expand(500, -1))[0] == 0).all()  # more ties than candidates are kept
    between = (centroids[3] + centroids[7]).round()[None]
    pair = torch.stack([between[0] - 1, between[0] + 1])
    assert ops.kmeans_assign(between, pair)[0].tolist() == [0]


def test_near_ties_are_decided_exactly(device, isa):
    """Centroids one unit in the last place apart: float32 products cannot tell them from each other."""
    x, _ = points(64, 1, 200, device=device, offset=3.0)
    one = torch.full((200,), 3.0, device=device)
    copies = one.repeat(400, 1)
    for k in range(1, 400):
        copies[k, k % 200] = torch.nextafter(one[0], torch.tensor(4.0 if k % 3 else 0.0, device=device))
    check(x, copies)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e15, 1e18])
def test_huge_and_tiny_scales(device, isa, scale):
    x, centroids = points(30, 8, 6, torch.float64, device)
    x, centroids = (scale * x).float(), (scale * centroids).float()
    index, _ = ops.kmeans_assign(x, centroids)
    assert torch.equal(index.cpu(), oracle(x, centroids)[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_non_finite_rows_and_centroids(device, isa, dtype):
    x, centroids = points(40, 12, 17, dtype, device)
    clean = ops.kmeans_assign(x, centroids)
    x[3, 2], x[5, 16], x[8, 0] = torch.nan, torch.inf, -torch.inf
    index, distance = ops.kmeans_assign(x, centroids)
    bad = torch.zeros(40, dtype=torch.bool, device=device)
    bad[[3, 5, 8]] = True
    assert torch.equal(index[~bad], clean[0][~bad])
    assert torch.equal(distance[~bad], clean[1][~bad])
    assert (index[bad] == 0).all()
    assert distance[bad].isnan().all()
    centroids[4, 1], centroids[0, 0] = torch.nan, torch.inf
    keep = [k for k in range(12) if k not in (0, 4)]
    expected = torch.tensor(keep, device=device)[ops.kmeans_assign(x[~bad], centroids[keep])[0].long()]
    assert torch.equal(ops.kmeans_assign(x[~bad], centroids)[0].long(), expected)
    index, distance = ops.kmeans_assign(x, torch.full_like(centroids, torch.nan))
    assert (index == 0).all()
    assert distance.isnan().all()


def test_strides(device, isa):
    x, centroids = points(50, 9, 14, device=device)
    expected = ops.kmeans_assign(x, centroids)
    wide = torch.zeros(100, 40, device=device)
    wide[::2, 5:19] = x
    for a, c in [(wide[::2, 5:19], centroids), (x.T.contiguous().T, centroids.T.contiguous().T)]:
        for actual, wanted in zip(ops.kmeans_assign(a, c), expected, strict=True):
            assert torch.equal(actual, wanted)
    assert torch.equal(ops.kmeans_assign(x[:1].expand(5, -1), centroids)[0], expected[0][:1].expand(5))


def test_empty(device):
    x, centroids = points(5, 3, 4, device=device)
    index, distance = ops.kmeans_assign(x[:0], centroids)
    assert index.shape == distance.shape == (0,)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 60), st.integers(1, 70), st.integers(1, 40), st.sampled_from(DTYPES), st.integers(0, 2**31))
def test_any_size(n, k, d, dtype, seed):
    x, centroids = points(n, k, d, dtype, seed=seed)
    check(x, centroids)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(ops.kmeans_assign(x[order], centroids)[0], ops.kmeans_assign(x, centroids)[0][order])


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 30), st.integers(2, 20), st.integers(1, 6), st.integers(0, 2**31))
def test_integers_full_of_exact_ties(n, k, d, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-2, 3, (n, d), generator=generator).float()
    centroids = torch.randint(-2, 3, (k, d), generator=generator).float()
    check(x, centroids)


def test_opcheck(device):
    torch.library.opcheck(ops.kmeans_assign.default, points(6, 3, 5, device=device))


def test_compiles_as_one_graph():
    x, centroids = points(30, 4, 6)
    compiled = torch.compile(lambda x, c: ssl_kernels.kmeans_assign(x * 2, c), fullgraph=True)
    for actual, expected in zip(compiled(x, centroids), ops.kmeans_assign(x * 2, centroids), strict=True):
        assert torch.equal(actual, expected)


def test_autocast_computes_in_float32(device):
    x, centroids = points(30, 4, 6, device=device)
    with torch.autocast(device, dtype=torch.bfloat16):
        mixed = ops.kmeans_assign(x, centroids.bfloat16())
    expected = ops.kmeans_assign(x, centroids.bfloat16().float())
    assert torch.equal(mixed[0], expected[0])
    assert torch.equal(mixed[1], expected[1])


X, C = points(5, 3, 4)
BAD = [
    (lambda: ops.kmeans_assign(X[0], C), r"x must be a matrix \[N, D\], got shape \[4\]"),
    (lambda: ops.kmeans_assign(X[:, :0], C[:, :0]), "x must have at least one feature"),
    (lambda: ops.kmeans_assign(X.int(), C.int()), "x must be float64, .* got int32"),
    (lambda: ops.kmeans_assign(X, C[0]), r"centroids must be a matrix with the features of x, \[K, 4\]"),
    (lambda: ops.kmeans_assign(X, C[:, :3]), r"centroids must be a matrix with the features of x, \[K, 4\]"),
    (lambda: ops.kmeans_assign(X, C[:0]), "centroids must hold between 1 and"),
    (lambda: ops.kmeans_assign(X, C.double()), "centroids must have the dtype of x, float32, got float64"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_names_the_argument(call, message):
    with pytest.raises(RuntimeError, match=message):
        call()
