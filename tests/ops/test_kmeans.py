"""kmeans_assign against a float64 search over all distances, under every CPU build."""

import numpy as np
import pytest
import torch

import ssl_kernels
from tests.conftest import available_isas
from tests.ops.properties import given, settings, st

ops = torch.ops.sslk
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def points(n, k, d, dtype=torch.float32, device="cpu", seed=0, offset=0.0):
    generator = torch.Generator().manual_seed(seed)
    centroids = torch.randn(k, d, generator=generator)
    x = torch.randn(n, d, generator=generator) + 0.5 * centroids[torch.randint(k, (n,), generator=generator)]
    return (x + offset).to(dtype).to(device), (centroids + offset).to(dtype).to(device)


def times_power(t, exponent):
    """t * 2^exponent, exact."""
    return torch.from_numpy(np.ldexp(t.cpu().numpy(), exponent)).to(t.device)


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
    """Twenty copies of each centroid, one unit in the last place apart here and there: products cannot tell them apart."""
    x, centroids = points(100, 30, 200, device=device)
    copies = centroids.repeat_interleave(20, dim=0)
    generator = torch.Generator().manual_seed(1)
    moved = torch.rand(copies.shape, generator=generator).to(device) < 0.3
    copies = torch.where(moved, torch.nextafter(copies, torch.full_like(copies, torch.inf)), copies)
    check(x, copies[torch.randperm(len(copies), generator=generator).to(device)])


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e15, 1e18])
def test_huge_and_tiny_scales(device, isa, scale):
    x, centroids = points(30, 8, 6, torch.float64, device)
    x, centroids = (scale * x).float(), (scale * centroids).float()
    index, _ = ops.kmeans_assign(x, centroids)
    assert torch.equal(index.cpu(), oracle(x, centroids)[0])


@pytest.mark.parametrize("exponent", [-1000, -530, -300, 300, 530, 1010])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_every_scale_of_float64(device, isa, exponent, offset):
    """A power of two in front changes no index; a squared distance that the type holds is that times its square."""
    x, centroids = points(60, 40, 21, torch.float64, device, offset=offset)
    x, centroids = times_power(x, exponent), times_power(centroids, exponent)
    wide_x, wide_c = x.cpu().numpy().astype(np.longdouble), centroids.cpu().numpy().astype(np.longdouble)
    squared = np.square(wide_x[:, None] - wide_c[None]).sum(axis=2)
    index, distance = ops.kmeans_assign(x, centroids)
    assert torch.equal(index.cpu(), torch.from_numpy(squared.argmin(axis=1)).int())
    with np.errstate(over="ignore", under="ignore"):
        expected = torch.from_numpy(squared.min(axis=1).astype(np.float64))
    torch.testing.assert_close(distance.cpu(), expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_float32_rows_whose_squares_overflow(device, isa, offset):
    """Far from centroids of any scale, moved or not."""
    x, centroids = points(30, 8, 6, torch.float64, device, offset=offset)
    for scale in (1e20, 1e36):
        for of_centroids in (1.0, scale):
            a, c = (scale * x).float(), (of_centroids * centroids).float()
            index, distance = ops.kmeans_assign(a, c)
            expected_index, expected = oracle(a, c)
            assert torch.equal(index.cpu(), expected_index)
            assert torch.equal(distance.cpu(), expected.float())


def test_rows_and_centroids_of_all_scales_at_once(device, isa):
    x, centroids = points(200, 30, 7, torch.float64, device)
    exponents = np.array([-1022, -700, -300, 0, 300, 700, 1010])
    x = times_power(x, exponents[np.arange(200) % 7, None])
    centroids = times_power(centroids, exponents[np.arange(30) % 7, None])
    wide_x, wide_c = x.cpu().numpy().astype(np.longdouble), centroids.cpu().numpy().astype(np.longdouble)
    squared = np.square(wide_x[:, None] - wide_c[None]).sum(axis=2)
    index = ops.kmeans_assign(x, centroids)[0].cpu().long()
    found = np.take_along_axis(squared, index.numpy()[:, None], axis=1)[:, 0]
    assert (found <= squared.min(axis=1) * (1 + 1e-13)).all()


@pytest.mark.skipif(len(available_isas()) == 1, reason="one CPU build here")
@pytest.mark.parametrize("d", [2, 15, 37, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_instruction_sets_agree_where_centroids_are_equally_near(d, dtype):
    """Rows midway between two centroids: rounding decides, and decides the same everywhere."""
    generator = torch.Generator().manual_seed(d)
    centroids = torch.randint(0, 4, (20, d), generator=generator).to(dtype)
    centroids = torch.cat([centroids + 1, centroids - 1]) * 0.1
    place = torch.arange(4000)
    x = 0.5 * (centroids[place % 40] + centroids[(7 * place + 3) % 40])
    results = []
    before = ssl_kernels.cpu_isa()
    try:
        for name in available_isas():
            ssl_kernels.set_cpu_isa(name)
            results.append(ops.kmeans_assign(x, centroids))
    finally:
        ssl_kernels.set_cpu_isa(before)
    for index, distance in results[1:]:
        assert torch.equal(index, results[0][0])
        assert torch.equal(distance, results[0][1])


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


@pytest.mark.slow
def test_more_than_2_31_elements(device):
    rows, centroids = points(1024, 3, 1024, torch.bfloat16, device)
    x = rows.repeat(2049, 1)
    assert x.numel() > 2**31
    index, distance = ops.kmeans_assign(x, centroids)
    expected = ops.kmeans_assign(rows, centroids)
    assert torch.equal(index.view(2049, 1024)[[0, 1024, 2048]], expected[0].expand(3, -1))
    assert torch.equal(distance.view(2049, 1024)[[0, 1024, 2048]], expected[1].expand(3, -1))


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
