"""CKA and CCA against float64 oracles written from the N x N definitions, under every CPU build."""

import functools
import math

import numpy as np
import pytest
import torch

import ssl_kernels
from tests.ops.properties import given, settings, st

ops = torch.ops.sslk
# Samples and features: both sides of the choice between D x D products and N x N Gram matrices, odd sizes on purpose.
SHAPES = [(4, 3), (5, 1), (37, 19), (19, 37), (150, 64), (64, 150), (50, 50)]
CKA_TOLERANCE = 1e-5


def representations(v, n, d, dtype=torch.float32, device="cpu", seed=0, offset=0.0, shared=0.7):
    """V representations of the same samples, correlated through a shared latent."""
    generator = torch.Generator().manual_seed(seed)
    latent = torch.randn(n, max(1, d // 2), generator=generator, dtype=torch.float64)
    mix = torch.randn(v, latent.shape[1], d, generator=generator, dtype=torch.float64) / latent.shape[1] ** 0.5
    x = shared * latent @ mix + torch.randn(v, n, d, generator=generator, dtype=torch.float64) + offset
    return x.to(dtype).to(device)


def hsic_oracle(k, m, debiased):
    """From the definitions: tr(KHLH) / (n-1)^2, or HSIC_1 of Song et al. (2012), equation 5."""
    n = len(k)
    if not debiased:
        h = np.eye(n) - 1.0 / n
        return np.sum((h @ k @ h) * m) / (n - 1) ** 2  # tr(KHLH)
    k, m, one = k - np.diag(np.diag(k)), m - np.diag(np.diag(m)), np.ones(n)
    terms = np.sum(k * m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ k @ m @ one)
    return terms / (n * (n - 3))


def cka_oracle(x, y, debiased):
    """CKA of [N, D1] and [N, D2] through N x N Gram matrices in float64, of data centred so that they lose nothing."""
    x, y = x.detach().cpu().double().numpy(), y.detach().cpu().double().numpy()
    x, y = x - x.mean(0), y - y.mean(0)
    k, m = x @ x.T, y @ y.T
    return hsic_oracle(k, m, debiased) / math.sqrt(hsic_oracle(k, k, debiased) * hsic_oracle(m, m, debiased))


def cka_matrix_oracle(x, debiased):
    return torch.tensor([[cka_oracle(a, b, debiased) for b in x] for a in x], dtype=torch.float64)


def cca_oracle(x, y, rank_x, rank_y):
    """Mean squared canonical correlation of matrices of known rank, from orthonormal bases and their angles."""
    bases = []
    for z, rank in ((x, rank_x), (y, rank_y)):
        z = z.detach().cpu().double().numpy()
        u = np.linalg.svd(z - z.mean(0), full_matrices=False)[0]
        bases.append(u[:, :rank])
    rho = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    return (rho[: min(rank_x, rank_y)] ** 2).sum() / min(rank_x, rank_y)


# ---- CKA ----


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_cka_matrix_equals_the_definition(device, isa, shape, debiased, dtype):
    x = representations(3, *shape, dtype, device)
    actual = ops.cka_matrix(x, debiased)
    assert actual.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    tolerance = 1e-11 if dtype == torch.float64 else CKA_TOLERANCE
    torch.testing.assert_close(actual.double().cpu(), cka_matrix_oracle(x, debiased), rtol=0, atol=tolerance)
    assert torch.equal(actual, actual.T)
    assert (actual.diagonal() == 1).all()


@pytest.mark.parametrize(("n", "d1", "d2"), [(30, 7, 12), (30, 12, 70), (30, 90, 12), (33, 80, 65), (400, 30, 50)])
@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_cka_equals_the_definition(device, isa, n, d1, d2, debiased, dtype):
    x, y = representations(2, n, d1, dtype, device), representations(2, n, d2, dtype, device, seed=0)
    expected = torch.tensor([cka_oracle(a, b, debiased) for a, b in zip(x, y, strict=True)], dtype=torch.float64)
    tolerance = 1e-11 if dtype == torch.float64 else CKA_TOLERANCE
    torch.testing.assert_close(ops.linear_cka(x, y, debiased).double().cpu(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("shape", [(300, 48), (48, 300)])
@pytest.mark.parametrize("debiased", [True, False])
def test_an_offset_of_50_deviations_costs_nothing(device, isa, shape, debiased):
    x = representations(3, *shape, torch.float32, device, offset=50.0)
    torch.testing.assert_close(
        ops.cka_matrix(x, debiased).double().cpu(), cka_matrix_oracle(x, debiased), rtol=0, atol=CKA_TOLERANCE
    )


@pytest.mark.parametrize("exponent", [-1060, -700, -300, 300, 700, 1018])
@pytest.mark.parametrize("debiased", [False, True])
def test_every_scale_of_float64(device, isa, exponent, debiased):
    x = representations(2, 60, 8, torch.float64, device).mul(2**10).round().div(2**10)  # subnormal numbers hold it too
    scaled = torch.from_numpy(np.ldexp(x.cpu().numpy(), exponent)).to(device)
    torch.testing.assert_close(ops.cka_matrix(scaled, debiased), ops.cka_matrix(x, debiased), rtol=0, atol=1e-12)
    for actual, expected in zip(ops.cca_matrix(scaled), ops.cca_matrix(x), strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_differences_that_overflow(device, isa):
    """Both ends of the range in one column; sums of rows overflow too."""
    for dtype in (torch.float64, torch.float32):
        x = representations(2, 200, 5, dtype, device)
        x = x / x.abs().amax(dim=(1, 2), keepdim=True)
        huge = x * torch.finfo(dtype).max
        tolerance = 1e-12 if dtype == torch.float64 else 1e-5
        torch.testing.assert_close(ops.cka_matrix(huge), ops.cka_matrix(x), rtol=0, atol=tolerance)
        torch.testing.assert_close(ops.cca_matrix(huge)[0], ops.cca_matrix(x)[0], rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_huge_constant_feature_drowns_no_tiny_one(device, isa, dtype):
    x = representations(2, 60, 6, dtype, device)
    huge, tiny = (1e300, 1e-290) if dtype == torch.float64 else (1e37, 1e-30)
    constant = torch.full((2, 60, 1), huge, dtype=dtype, device=device)
    mixed = torch.cat([constant, x * tiny], dim=2)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(ops.cka_matrix(mixed), ops.cka_matrix(x), rtol=0, atol=tolerance)
    torch.testing.assert_close(ops.cca_matrix(mixed)[0], ops.cca_matrix(x)[0], rtol=0, atol=tolerance)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_huge_and_tiny_scales(device, isa, scale):
    x = representations(2, 40, 24, device=device)
    y = x.clone()
    y[1] *= scale
    torch.testing.assert_close(ops.cka_matrix(y), ops.cka_matrix(x), rtol=0, atol=CKA_TOLERANCE)


def test_debiased_is_about_zero_for_independent_data_and_never_clamped(device):
    """The biased value of independent Gaussians with D=2048 and n=64 is 0.968 (spec)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 64, 2048, generator=generator).to(device)
    off = ~torch.eye(12, dtype=torch.bool)
    debiased, biased = ops.cka_matrix(x, True).cpu()[off], ops.cka_matrix(x, False).cpu()[off]
    assert debiased.mean().abs() < 0.01
    assert debiased.abs().max() < 0.1
    assert (debiased < 0).any()
    assert abs(biased.mean() - 0.968) < 0.003


def test_more_rows_than_float_sums_hold(device):
    """Past 2^14 rows the sums go on in double: here after two panels, two more and a last one."""
    x = representations(2, 36_001, 12, device=device, offset=3.0)
    z = x.double() - x.double().mean(1, keepdim=True)
    products = torch.einsum("vnd,wne->vwde", z, z).square().sum((2, 3))
    a = z.square().sum(2)
    n = x.shape[1]
    hsic = products + torch.outer(a.sum(1), a.sum(1)) / ((n - 1) * (n - 2)) - n / (n - 2) * a @ a.T
    expected = hsic / torch.outer(hsic.diagonal(), hsic.diagonal()).sqrt()
    torch.testing.assert_close(ops.cka_matrix(x).double(), expected, rtol=0, atol=CKA_TOLERANCE)


FAR = {"one": [0], "another": [5], "three": [3, 70, 71]}


@pytest.mark.parametrize("shape", [(400, 32), (60, 90)])
@pytest.mark.parametrize("factor", [30.0, 1e3, 1e5])
@pytest.mark.parametrize("which", FAR)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_samples_far_from_the_rest_cost_no_digits(device, isa, shape, factor, which, dtype):
    """Their terms cancel in the debiased norm, and with them the digits of float32 products."""
    x = representations(3, *shape, torch.float64)
    x[0, [i % shape[0] for i in FAR[which]]] *= factor
    x = x.to(dtype).to(device)
    expected = cka_matrix_oracle(x, True)
    torch.testing.assert_close(ops.cka_matrix(x).double().cpu(), expected, rtol=1e-4, atol=CKA_TOLERANCE)
    pair = ops.linear_cka(x[:1], x[1:2]).double().cpu()
    torch.testing.assert_close(pair, expected[0, 1:2], rtol=1e-4, atol=CKA_TOLERANCE)
    torch.testing.assert_close(ops.cka_matrix(x, False).double().cpu(), cka_matrix_oracle(x, False), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(400, 32), (60, 90)])
def test_gradients_with_a_sample_far_from_the_rest(device, isa, shape):
    x = representations(2, *shape, torch.float64)
    x[0, 7] *= 1e4
    x = x.float().to(device)
    narrow, wide = x.clone().requires_grad_(), x.double().requires_grad_()
    ops.linear_cka(narrow[:1], narrow[1:]).backward()
    ssl_kernels.reference.linear_cka(wide[:1], wide[1:]).backward()
    assert narrow.grad.dtype == torch.float32
    for v in range(2):  # of very different sizes
        torch.testing.assert_close(narrow.grad[v].double(), wide.grad[v], rtol=1e-4, atol=1e-6 * wide.grad[v].abs().max().item())
    matrix, wide = x.clone().requires_grad_(), x.double().requires_grad_()
    ops.cka_matrix(matrix)[0, 1].backward()
    ssl_kernels.reference.cka_matrix(wide)[0, 1].backward()
    for v in range(2):
        torch.testing.assert_close(matrix.grad[v].double(), wide.grad[v], rtol=1e-4, atol=1e-6 * wide.grad[v].abs().max().item())


def test_one_pair_of_a_batch_may_need_double(device, isa):
    x, y = representations(3, 50, 8, device=device), representations(3, 50, 6, device=device)
    x[1, 7] *= 1e4
    narrow, wide = ((a.clone().requires_grad_(), b.clone().requires_grad_()) for a, b in ((x, y), (x.double(), y.double())))
    actual, expected = ops.linear_cka(*narrow), ssl_kernels.reference.linear_cka(*wide)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-4, atol=1e-6)
    actual.sum().backward()
    expected.sum().backward()
    for a, b in zip(narrow, wide, strict=True):
        for k in range(3):
            torch.testing.assert_close(a.grad[k].double(), b.grad[k], rtol=1e-4, atol=1e-5 * b.grad[k].abs().max().item())


@pytest.mark.parametrize("debiased", [True, False])
def test_the_reference_compiles_and_batches(debiased):
    x = torch.stack([representations(2, 30, 4) for _ in range(3)])
    reference = functools.partial(ssl_kernels.reference.linear_cka, debiased=debiased)
    looped = torch.stack([reference(v, v.flip(0)) for v in x])
    torch.testing.assert_close(torch.func.vmap(lambda v: reference(v, v.flip(0)))(x), looped)
    torch.testing.assert_close(torch.compile(reference, fullgraph=True, backend="eager")(x[0], x[0].flip(0)), looped[0])
    assert reference(x[0].to("meta"), x[0].to("meta")).shape == (2,)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_few_samples_of_many_features_and_orthogonal_ones(device, dtype):
    """What is left of the terms is little: float64 takes over, or nothing is left at all."""
    x = torch.randn(2, 4, 3_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype).to(device)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(ops.cka_matrix(x).double().cpu(), cka_matrix_oracle(x, True), rtol=0, atol=tolerance)
    apart = torch.eye(20, dtype=dtype, device=device)[None]
    assert ops.linear_cka(apart, apart).isnan().all() and abs(ops.linear_cka(apart, apart, False).item() - 1) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n", [6, 10, 50, 999])
def test_one_sample_apart_from_equal_ones_has_no_debiased_similarity(device, isa, dtype, n):
    """Its Gram matrix is zero off the diagonal: 0 / 0, and not what rounding leaves of it."""
    x = torch.zeros(3, n, 4, dtype=dtype, device=device)
    x[0, 1, 0], x[1, 3, 1] = 0.7, -3.0
    x[2] = representations(1, n, 4, dtype, device)[0]
    matrix = ops.cka_matrix(x)
    assert matrix[:2].isnan().all() and matrix[:, :2].isnan().all() and matrix[2, 2] == 1
    assert ops.linear_cka(x[:2], x[1:]).isnan().all()
    assert ssl_kernels.reference.linear_cka(x[:2], x[1:]).isnan().all()
    assert ops.cka_matrix(x, False).isfinite().all()


@pytest.mark.parametrize("debiased", [True, False])
def test_constant_and_non_finite_representations_are_nan_and_stay_alone(device, isa, debiased):
    for shape in [(20, 6), (6, 20)]:
        x = representations(4, *shape, device=device)
        clean = ops.cka_matrix(x, debiased)
        x[1] = 7.3
        x[2, 3, 1] = torch.nan
        x[3, 0, 0] = torch.inf
        actual = ops.cka_matrix(x, debiased)
        assert actual[1:].isnan().all()
        assert actual[0, 1:].isnan().all()
        assert actual[0, 0] == 1
        assert not clean.isnan().any()


def test_strides(device, isa):
    x = representations(3, 30, 20, device=device)
    expected = ops.cka_matrix(x)
    wide = torch.zeros(3, 60, 44, device=device)
    wide[:, ::2, 3:23] = x
    torch.testing.assert_close(ops.cka_matrix(wide[:, ::2, 3:23]), expected)
    torch.testing.assert_close(ops.cka_matrix(x.mT.contiguous().mT), expected)
    torch.testing.assert_close(ops.cka_matrix(x.permute(1, 0, 2).contiguous().permute(1, 0, 2)), expected)
    torch.testing.assert_close(ops.linear_cka(x[:1].expand(3, -1, -1), x), expected[0])


def test_empty(device):
    x = representations(3, 10, 4, device=device)
    assert ops.cka_matrix(x[:0]).shape == (0, 0)
    assert ops.linear_cka(x[:0], x[:0]).shape == (0,)
    assert ops.cca_matrix(x[:0])[0].shape == (0, 0)
    assert ops.cka_matrix(x[:1]).tolist() == [[1.0]]


@settings(deadline=None, max_examples=25)
@given(st.integers(5, 40), st.integers(1, 40), st.booleans(), st.integers(0, 2**31))
def test_cka_invariances(n, d, debiased, seed):
    """Orthogonal maps, scale, offsets and the order of the samples leave it alone; swapping x and y too."""
    x, y = representations(2, n, d, torch.float64, seed=seed, shared=1.0)
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q
    order = torch.randperm(n, generator=generator)
    expected = ops.linear_cka(x[None], y[None], debiased)
    for a, b in [(-3.5 * x @ q + 2.0, y), (x[order], y[order]), (y, x)]:
        torch.testing.assert_close(ops.linear_cka(a[None], b[None], debiased), expected, rtol=0, atol=1e-9)
    if not debiased:
        assert -1e-12 <= expected.item() <= 1 + 1e-12


@pytest.mark.parametrize("shape", [(9, 4), (6, 11), (30, 7)])
@pytest.mark.parametrize("debiased", [True, False])
def test_cka_gradients(device, isa, shape, debiased):
    x = representations(3, *shape, torch.float64, device, offset=2.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ops.cka_matrix(x, debiased), x)
    y = representations(3, shape[0], 5, torch.float64, device, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: ops.linear_cka(x, y, debiased), (x, y))


@pytest.mark.parametrize("shape", [(70, 33), (33, 70), (700, 40)])
@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_of_lower_precision(device, isa, shape, debiased, dtype):
    x = representations(3, *shape, dtype, device, offset=5.0)
    weights = torch.randn(3, 3, generator=torch.Generator().manual_seed(2)).to(device)

    def gradient(x, weights):
        x = x.clone().requires_grad_()
        (ops.cka_matrix(x, debiased) * weights).sum().backward()
        return x.grad

    actual, expected = gradient(x, weights), gradient(x.double(), weights.double())
    assert actual.dtype == dtype
    scale = expected.abs().max().item()
    tolerance = 2e-5 if dtype == torch.float32 else 4e-3  # half a unit in the last place of the largest entry
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=tolerance * scale)


# ---- CCA ----


@pytest.mark.parametrize(("n", "d"), [(60, 8), (300, 40), (30, 100), (20, 20), (5000, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_cca_matrix_equals_the_definition(device, isa, n, d, dtype):
    x = representations(3, n, d, dtype, device, offset=5.0)
    actual, ranks = ops.cca_matrix(x)
    full = min(n - 1, d)
    assert ranks.tolist() == [full] * 3
    expected = torch.tensor([[cca_oracle(a, b, full, full) for b in x] for a in x])
    tolerance = 1e-9 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(actual.double().cpu(), expected.double(), rtol=0, atol=tolerance)
    assert torch.equal(actual, actual.T)
    assert (actual.diagonal() == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cca_ranks_of_deficient_representations(device, dtype):
    """Constant, duplicated, dependent and dead columns, and an offset, as ReLU networks have them."""
    x = representations(6, 200, 12, torch.float64, device)
    x[1, :, 4] = 3.0
    x[2, :, 5] = x[2, :, 6]
    x[3, :, 7] = x[3, :, 0] - 2.0 * x[3, :, 1]
    x[4, :, 3:] = 0.0
    x[5] = x[5] + 50.0
    x[5, :, 11] = x[5, :, 0] + x[5, :, 1]
    x = x.to(dtype)
    actual, ranks = ops.cca_matrix(x)
    assert ranks.tolist() == [12, 11, 11, 11, 3, 11]
    expected = torch.tensor(
        [[cca_oracle(a, b, r, s) for b, s in zip(x, ranks.tolist(), strict=True)] for a, r in zip(x, ranks.tolist(), strict=True)]
    )
    torch.testing.assert_close(actual.double().cpu(), expected.double(), rtol=0, atol=1e-5)


def test_cca_does_not_square_the_condition_number(device):
    """Singular values down to 1e-9 of the largest count in float64; their squares would drown in rounding."""
    x = representations(2, 100, 6, torch.float64, device)
    y = x * torch.logspace(0, -9, 6, dtype=torch.float64, device=device)
    actual, ranks = ops.cca_matrix(y)
    assert ranks.tolist() == [6, 6]
    torch.testing.assert_close(actual, ops.cca_matrix(x)[0], rtol=0, atol=1e-5)


def test_cca_tolerance_is_relative_to_the_largest_singular_value(device):
    q = torch.linalg.qr(torch.randn(50, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    q = torch.linalg.qr(q - q.mean(0)).Q.to(device)
    x = (q * torch.tensor([1.0, 0.5, 0.2, 0.05, 0.01], device=device))[None]
    for rtol, rank in [(0.6, 1), (0.3, 2), (0.1, 3), (0.03, 4), (0.001, 5), (0.0, 5), (None, 5)]:
        assert ops.cca_matrix(x, rtol)[1].tolist() == [rank]
        assert ops.cca_matrix(1e8 * x, rtol)[1].tolist() == [rank]


def test_cca_rank_never_exceeds_the_dimensions_that_centring_leaves(device):
    for shape in [(10, 10), (10, 30), (30, 10)]:
        ranks = ops.cca_matrix(representations(2, *shape, device=device), 0.0)[1]
        assert ranks.tolist() == [min(shape[0] - 1, shape[1])] * 2


def test_cca_ridge(device):
    """Against the textbook form ||(C_x + a I)^-1/2 C_xy (C_y + b I)^-1/2||_F^2 / rank, a = ridge tr(C_x) / D."""
    x = representations(2, 80, 7, torch.float64, device)
    z = x - x.mean(1, keepdim=True)
    roots = []
    for a in z:
        c = a.T @ a
        values, vectors = torch.linalg.eigh(c + 0.3 * c.trace() / 7 * torch.eye(7, dtype=c.dtype, device=device))
        roots.append(vectors @ torch.diag(values.rsqrt()) @ vectors.T)
    expected = torch.tensor(
        [[(r @ a.T @ b @ s).square().sum() / 7 for b, s in zip(z, roots, strict=True)] for a, r in zip(z, roots, strict=True)]
    )
    actual = ops.cca_matrix(x, None, 0.3)[0]
    torch.testing.assert_close(actual.cpu(), expected.double(), rtol=0, atol=1e-7)
    torch.testing.assert_close(ops.cca_matrix(50 * x + 3, None, 0.3)[0], actual, rtol=0, atol=1e-10)
    assert (actual.diagonal() < 1).all()


def test_cca_without_rank_is_nan_and_stays_alone(device):
    x = representations(4, 30, 5, device=device)
    clean = ops.cca_matrix(x[::3])[0]
    x[1] = 4.0
    x[2, 7, 2] = torch.nan
    actual, ranks = ops.cca_matrix(x)
    assert ranks.tolist() == [5, 0, 0, 5]
    assert actual[1:3].isnan().all()
    assert actual[:, 1:3].isnan().all()
    torch.testing.assert_close(actual[::3, ::3], clean)


@settings(deadline=None, max_examples=20)
@given(st.integers(12, 50), st.integers(1, 10), st.integers(0, 2**31))
def test_cca_invariance_to_invertible_maps(n, d, seed):
    x, y = representations(2, n, d, torch.float64, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q
    m = q * torch.linspace(0.5, 2.0, d, dtype=torch.float64)
    order = torch.randperm(n, generator=generator)
    expected = ops.cca_matrix(torch.stack([x, y]))[0]
    for a, b in [(x @ m - 4.0, y), (x[order], y[order])]:
        torch.testing.assert_close(ops.cca_matrix(torch.stack([a, b]))[0], expected, rtol=0, atol=1e-9)
    assert 0 <= expected[0, 1] <= 1


# ---- what torch expects of an op ----


def test_opcheck(device):
    for shape in [(8, 3), (5, 9)]:
        x = representations(2, *shape, device=device).requires_grad_()
        y = representations(2, shape[0], 4, device=device, seed=1).requires_grad_()
        torch.library.opcheck(ops.cka_matrix.default, (x, True))
        torch.library.opcheck(ops.linear_cka.default, (x, y, False))
        torch.library.opcheck(ops.cka_matrix_backward.default, (torch.rand(2, 2, device=device), x.detach(), True))
        grad = torch.rand(2, device=device)
        torch.library.opcheck(ops.linear_cka_backward.default, (grad, x.detach(), y.detach(), True))
        torch.library.opcheck(ops.cca_matrix.default, (x.detach(), None, 0.1))


def test_compiles_as_one_graph():
    def run(x):
        return ssl_kernels.cka_matrix(x).sum() + ssl_kernels.linear_cka(x[:1], x[1:2] * 2).sum()

    x = representations(3, 20, 6).requires_grad_()
    (expected,) = torch.autograd.grad(run(x), x)
    (actual,) = torch.autograd.grad(torch.compile(run, fullgraph=True)(x), x)
    torch.testing.assert_close(actual, expected)
    compiled = torch.compile(lambda x: ssl_kernels.cca_matrix(x)[0] + 1, fullgraph=True)
    torch.testing.assert_close(compiled(x.detach()), ssl_kernels.cca_matrix(x.detach())[0] + 1)


def test_autocast_computes_in_float32(device):
    x = representations(2, 20, 6, device=device)
    with torch.autocast(device, dtype=torch.bfloat16):
        assert torch.equal(ops.cka_matrix(x), ops.cka_matrix(x.float()))
        mixed = ops.linear_cka(x, x.bfloat16())
        assert ops.cca_matrix(x)[0].dtype == torch.float32
    torch.testing.assert_close(mixed, ops.linear_cka(x, x.bfloat16().float()))


X = representations(2, 8, 3)
BAD = [
    (lambda: ops.cka_matrix(X[0]), r"cka_matrix: x must have shape \[V, N, D\], got \[8, 3\]"),
    (lambda: ops.cka_matrix(X[:, :, :0]), "x must have at least one feature"),
    (lambda: ops.cka_matrix(X.int()), "x must be float64, .* got int32"),
    (lambda: ops.cka_matrix(X[:, :3]), r"x must have at least 4 samples \(N\) for debiased CKA"),
    (lambda: ops.cka_matrix(X[:, :1], False), r"x must have at least 2 samples \(N\) for biased CKA"),
    (lambda: ops.cka_matrix_backward(torch.rand(3, 3), X, True), "grad must have the shape of the output"),
    (lambda: ops.cka_matrix_backward(torch.rand(2, 2).double(), X, True), "grad must be float32"),
    (lambda: ops.linear_cka(X[0], X), r"x must have shape \[B, N, D1\]"),
    (lambda: ops.linear_cka(X, X[0]), r"y must have shape \[B, N, D2\]"),
    (lambda: ops.linear_cka(X, X[:1]), "y must have the batch and samples of x"),
    (lambda: ops.linear_cka(X, X[:, :7]), "y must have the batch and samples of x"),
    (lambda: ops.linear_cka(X, X.double()), "y must have the dtype of x, float32, got float64"),
    (lambda: ops.linear_cka(X[:, :3], X[:, :3]), "x must have at least 4 samples"),
    (lambda: ops.linear_cka_backward(torch.rand(3), X, X, True), "grad must have the shape of the output"),
    (lambda: ops.cca_matrix(X[0]), r"cca_matrix: x must have shape \[V, N, D\]"),
    (lambda: ops.cca_matrix(X.long()), "x must be float64, .* got int64"),
    (lambda: ops.cca_matrix(X[:, :1]), "x must have at least 2 samples"),
    (lambda: ops.cca_matrix(X, -0.1), "rtol must be at least 0 and less than 1, got -0.1"),
    (lambda: ops.cca_matrix(X, math.nan), "rtol must be at least 0"),
    (lambda: ops.cca_matrix(X, None, -1.0), "ridge must be finite and zero or positive, got -1"),
    (lambda: ops.cca_matrix(X, None, math.inf), "ridge must be finite"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_names_the_argument(call, message):
    with pytest.raises(RuntimeError, match=message):
        call()
