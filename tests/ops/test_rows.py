"""The row ops against the oracle: values, gradients, numerics, layouts, dtypes and every CPU build."""

import pytest
import torch

import ssl_kernels
from tests.ops import oracle

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
SIZES = [3, 16, 64, 100, 192, 257, 760, 1128]
ops = torch.ops.sslk


def representations(n, d, dtype=torch.float32, device="cpu", seed=0, signed=False):
    """Heavy-tailed non-negative rows, as of a pooled ReLU network, in which every eps finds something."""
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(n, d, generator=generator, dtype=torch.float64)
    h = h.sign() * h.abs().pow(1.7) if signed else h.relu().pow(1.7)
    return h.to(dtype).to(device)


def discriminative_mask(d, device="cpu"):
    return (torch.rand(d, generator=torch.Generator().manual_seed(d)) < 0.6).to(device)


def close(actual, expected, rtol, scale=None):
    """Equal up to `rtol` of each value or of the largest one, whichever is more."""
    scale = expected.abs().nan_to_num().max().item() if scale is None and expected.numel() else (scale or 0.0)
    torch.testing.assert_close(actual.cpu().double(), expected.double(), rtol=rtol, atol=rtol * scale + 1e-300, equal_nan=True)


# 1 unit in the last place of the gradient's own dtype, and float32's where sums were taken in float32.
GRADIENT_TOLERANCE = {torch.float64: 1e-10, torch.float32: 3e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
SCORE_TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 2e-6, torch.bfloat16: 2e-6}


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("offset", [-5.0, -0.7, 0.7, 5.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_thresholds_of_either_sign(isa, device, dtype, offset, two_sided):
    """Rows of a few neighbouring numbers on either side of 0: the threshold is between two of them."""
    for d in (61, 512, 1003):
        steps = torch.randint(-3, 4, (16, d), generator=torch.Generator().manual_seed(d))
        h = (offset * (1 + steps * torch.finfo(dtype).eps)).to(dtype).to(device)
        mask = discriminative_mask(d, device)
        for eps in (0.0, 0.3, 0.8, 1.2):
            expected = oracle.active_set(h, eps, two_sided)
            assert expected.any()
            assert torch.equal(ops.activating_mask(h, eps, two_sided).cpu(), expected)
            assert torch.equal(ops.activation_counts(h, eps, two_sided)[1].cpu(), expected.sum(1).int())
            assert torch.equal(ops.qscore_counts(h, mask, eps, True, two_sided)[1].cpu(), expected.sum(1).int())


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("eps", [0.0, 1.0, 2.5, 4.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_active_sets_and_scores_equal_the_oracle(isa, device, dtype, eps, two_sided):
    for d in SIZES:
        h = representations(11, d, dtype, device, seed=d, signed=two_sided)
        mask = discriminative_mask(d, device)
        expected = oracle.active_set(h, eps, two_sided)
        assert torch.equal(ops.activating_mask(h, eps, two_sided).cpu(), expected)
        per_feature, per_row = ops.activation_counts(h, eps, two_sided)
        assert per_feature.dtype == torch.int64 and torch.equal(per_feature.cpu(), expected.sum(0))
        assert per_row.dtype == torch.int32 and torch.equal(per_row.cpu(), expected.sum(1).int())
        for normalize in (True, False):
            q = ops.qscore(h, mask, eps, normalize, two_sided)
            assert q.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
            close(q, oracle.scores(h, mask, eps, normalize, two_sided), SCORE_TOLERANCE[dtype])
            same, active = ops.qscore_counts(h, mask, eps, normalize, two_sided)
            close(same, q.cpu().double(), SCORE_TOLERANCE[dtype])
            assert active.dtype == torch.int32 and torch.equal(active.cpu(), expected.sum(1).int())


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_equal_the_oracle(isa, device, dtype, normalize, two_sided):
    for d in SIZES:
        h = representations(9, d, dtype, device, seed=d, signed=two_sided)
        mask = discriminative_mask(d, device)
        score_type = torch.float64 if dtype == torch.float64 else torch.float32
        grad_q = torch.randn(9, generator=torch.Generator().manual_seed(1)).to(score_type).to(device)
        grad_c = torch.randn(d, generator=torch.Generator().manual_seed(2)).to(score_type).to(device)
        scores = oracle.score_gradient(grad_q, h, mask, 1.5, normalize, two_sided)
        columns = oracle.column_gradient(grad_c, h, normalize)
        # The size of the terms before the part along the row is taken off, which may cancel them.
        norms = h.cpu().double().norm(dim=1)
        norm = norms[norms > 0].min().item() if normalize else 1.0
        size = 3.0 / norm
        tolerance = GRADIENT_TOLERANCE[dtype]
        close(ops.qscore_backward(grad_q, h, mask, 1.5, normalize, two_sided), scores, tolerance, size)
        close(ops.column_l1_backward(grad_c, h, normalize), columns, tolerance, size)
        both = ops.qscore_penalty_backward(grad_q, grad_c, h, mask, 1.5, normalize, two_sided)
        assert both.dtype == dtype
        close(both, scores + columns, tolerance, size)


@pytest.mark.parametrize("dtype", DTYPES)
def test_moments_and_column_norms_equal_the_oracle(isa, device, dtype):
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    for d in SIZES:
        h = representations(300, d, dtype, device, seed=d, signed=True)
        mean, std, norm = ops.row_moments(h)
        x = h.cpu().double()
        close(mean, x.mean(1), tolerance)
        close(std, x.std(1, correction=0), tolerance)
        close(norm, x.norm(dim=1), tolerance)
        for normalize in (True, False):
            close(ops.column_l1(h, normalize), oracle.column_norms(h, normalize), tolerance)


@pytest.mark.parametrize("normalize", [True, False])
def test_penalty_equals_its_equation(isa, device, normalize):
    h = representations(50, 200, device=device)
    mask = discriminative_mask(200, device)
    q = oracle.scores(h, mask, 1.5, normalize).numpy()
    c = oracle.column_norms(h, normalize).numpy()
    loss, scores, columns = ops.qscore_penalty(h, mask, 0.3, 0.02, 1.5, normalize)
    close(scores, torch.from_numpy(q), 2e-6)
    close(columns, torch.from_numpy(c), 2e-6)
    assert loss.item() == pytest.approx(oracle.penalty(q, c, 0.3, 0.02, q.mean(), c.mean()), rel=1e-5)
    alpha, beta = torch.tensor(float(q.max()) * 0.9, device=device), torch.tensor(float(c.min()) * 1.1, device=device)
    loss = ops.qscore_penalty(h, mask, 0.3, 0.02, 1.5, normalize, False, alpha, beta)[0]
    assert loss.item() == pytest.approx(oracle.penalty(q, c, 0.3, 0.02, alpha.item(), beta.item()), rel=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e-6, 1.0, 1e9, 1e18, 1e30])
@pytest.mark.parametrize("offset", [0.0, 100.0, -1e4])
def test_active_set_is_exact_at_any_scale_and_offset(isa, device, scale, offset):
    h = ((representations(40, 513, torch.float64, signed=True) + offset) * scale).float().to(device)
    for two_sided in (False, True):
        for eps in (0.0, 1.0, 3.0):
            assert torch.equal(ops.activating_mask(h, eps, two_sided).cpu(), oracle.active_set(h, eps, two_sided))


def test_scores_do_not_lose_digits_to_a_large_mean(isa, device):
    h = (representations(40, 513, torch.float64, signed=True) + 100.0).float().to(device)
    mask = discriminative_mask(513, device)
    close(ops.qscore(h, mask, 2.0, False), oracle.scores(h, mask, 2.0, False), 1e-5)
    _, std, _ = ops.row_moments(h)
    close(std, h.cpu().double().std(1, correction=0), 1e-5)


def test_threshold_is_decided_exactly_next_to_it(isa, device):
    """Rows whose elements sit within float32 rounding of mean + eps * sigma: only double can tell them apart."""
    d = 1024
    base = representations(64, d, torch.float64, signed=True)
    for eps in (1.0, 2.0):
        h = base.clone()
        for _ in range(20):  # a fixed point: the last element lies on the threshold of the row that holds it
            h[:, -1] = h.mean(1) + eps * h.std(1, correction=0)
        nudge = torch.tensor([-3e-7, -1e-7, 1e-7, 3e-7]).double().repeat(16)
        h[:, -1] *= 1 + nudge
        h = h.float().to(device)
        assert torch.equal(ops.activating_mask(h, eps).cpu(), oracle.active_set(h, eps))
        counts, _ = ops.activation_counts(h, eps)
        assert torch.equal(counts.cpu(), oracle.active_set(h, eps).sum(0))


def test_extreme_finite_rows(isa, device):
    largest = torch.finfo(torch.float32).max
    h = torch.full((4, 100), 0.0)
    h[0, 3] = largest
    h[1] = largest
    h[1, 5] = -largest
    h[2, 7] = 1e-45
    h[3] = torch.linspace(0, largest, 100)
    h = h.to(device)
    for eps in (1.0, 5.0):
        assert torch.equal(ops.activating_mask(h, eps).cpu(), oracle.active_set(h, eps))
    mask = torch.ones(100, dtype=torch.bool, device=device)
    close(ops.qscore(h, mask, 1.0), oracle.scores(h, mask, 1.0), 1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_non_finite_rows_give_nan_and_poison_nothing_else(isa, device, dtype, bad):
    h = representations(8, 130, dtype, device)
    clean = ops.qscore(h, discriminative_mask(130, device), 1.0)
    h[3, 77] = bad
    mask = discriminative_mask(130, device)
    q = ops.qscore(h, mask, 1.0)
    others = torch.arange(8, device=device) != 3
    assert q[3].isnan() and torch.equal(q[others], clean[others])
    assert not ops.activating_mask(h, 1.0)[3].any()
    assert ops.activation_counts(h, 1.0)[1][3] == 0
    assert all(moment[3].isnan() and moment[others].isfinite().all() for moment in ops.row_moments(h))
    loss, _, _ = ops.qscore_penalty(h, mask, 1e-4, 0.0, 1.0)
    assert loss.isnan()
    grad = ops.qscore_backward(torch.ones_like(q), h, mask, 1.0, True, False)
    assert grad[3].isnan().all() and grad[others].isfinite().all()


def test_constant_and_zero_rows(isa, device):
    h = torch.tensor([[0.0] * 37, [0.1] * 37, [-3e20] * 37], device=device)
    mask = torch.ones(37, dtype=torch.bool, device=device)
    for eps in (0.0, 1.0):
        assert not ops.activating_mask(h, eps).any()
        assert torch.equal(ops.qscore(h, mask, eps).cpu(), torch.zeros(3))
    assert torch.equal(ops.qscore_backward(torch.ones(3, device=device), h, mask, 1.0, True, False).cpu(), torch.zeros(3, 37))
    _, std, norm = ops.row_moments(h)
    assert torch.equal(std.cpu(), torch.zeros(3)) and norm[0] == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_layouts(isa, device, dtype):
    """Slices, transposes, expanded rows, odd storage offsets: the same numbers as a contiguous copy."""
    base = representations(64, 300, dtype, device, signed=True)
    views = {
        "rows": base[::3],
        "columns": base[:, 1:258],
        "strided columns": base[:, ::2],
        "transposed": base.T,
        "offset": base.flatten()[5 : 5 + 41 * 97].view(41, 97),
        "expanded": base[:1].expand(7, 300),
        "one row": base[5:6],
    }
    for name, view in views.items():
        mask = discriminative_mask(view.shape[1], device)
        copy = view.contiguous().clone()
        for op in (
            lambda h, m=mask: ops.qscore(h, m, 1.0),
            lambda h: ops.activating_mask(h, 1.0),
            lambda h: torch.cat([t.double() for t in ops.activation_counts(h, 1.0)]),
            lambda h: torch.cat(ops.row_moments(h)),
            ops.column_l1,
            lambda h, m=mask: ops.qscore_backward(ops.qscore(h, m, 1.0), h, m, 1.0, True, False),
        ):
            found, expected = op(view), op(copy)
            # On a device the order of the sums depends on the alignment: a gradient may round to the next number of its type.
            unit = {torch.float16: 1e-3, torch.bfloat16: 8e-3}.get(found.dtype, 1e-6)
            loose = {"rtol": unit, "atol": 1e-6} if device == "cuda" else {"rtol": 1e-6, "atol": 1e-8}
            torch.testing.assert_close(found, expected, **loose, msg=name)


def test_empty_batches(device):
    h = torch.empty(0, 16, device=device)
    mask = torch.ones(16, dtype=torch.bool, device=device)
    assert ops.qscore(h, mask).shape == (0,)
    assert ops.activating_mask(h).shape == (0, 16)
    per_feature, per_row = ops.activation_counts(h)
    assert per_feature.tolist() == [0] * 16 and per_row.shape == (0,)
    assert all(moment.shape == (0,) for moment in ops.row_moments(h))
    assert ops.column_l1(h).tolist() == [0.0] * 16
    assert ops.qscore_penalty(h, mask)[0].item() == 0.0
    assert ops.qscore_backward(torch.empty(0, device=device), h, mask, 4.0, True, False).shape == (0, 16)


def test_column_norms_are_accurate_over_many_rows(isa, device):
    """Float32 accumulation would lose three digits here; blocks are flushed into double."""
    h = torch.rand(50_000, 5, generator=torch.Generator().manual_seed(0)).to(device)
    close(ops.column_l1(h, False), h.cpu().double().sum(0), 3e-7)


def test_results_do_not_depend_on_the_number_of_threads():
    h, mask = representations(5000, 130), discriminative_mask(130)
    default = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append([*ops.qscore_penalty(h, mask, eps=1.0), ops.column_l1(h), *ops.activation_counts(h)])
    torch.set_num_threads(default)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_builds_agree_with_each_other():
    """All CPU builds give the same sets and, up to the order of float32 sums, the same scores."""
    h, mask = representations(200, 333), discriminative_mask(333)
    default = ssl_kernels.cpu_isa()
    results = []
    for name in ssl_kernels.build_info()["cpu_isas"].split():
        try:
            ssl_kernels.set_cpu_isa(name)
        except ValueError:
            continue
        results.append((ops.activating_mask(h, 2.0), ops.qscore(h, mask, 2.0)))
    ssl_kernels.set_cpu_isa(default)
    for active, q in results[1:]:
        assert torch.equal(active, results[0][0])
        torch.testing.assert_close(q, results[0][1], rtol=1e-6, atol=0)


@pytest.mark.slow
def test_more_than_2_31_elements(device):
    """Index arithmetic is 64-bit: 2.2e9 bfloat16 elements, 4.4 GB."""
    n, d = 1_100_000, 2000
    h = torch.zeros(n, d, dtype=torch.bfloat16, device=device)
    h[-1, 7] = 1.0
    h[0, 3] = 1.0
    mask, ends = torch.ones(d, dtype=torch.bool, device=device), h[[0, -1]]
    q = ops.qscore(h, mask)
    assert q[-1] > 0.99 and q[0] > 0.99 and q[1:-1].abs().max() == 0
    per_feature, per_row = ops.activation_counts(h)
    assert per_feature.sum() == 2 and per_feature[7] == 1 and per_row[-1] == 1
    active = ops.activating_mask(h)
    assert active[-1, 7] and active[0, 3] and active[1:-1].sum() == 0
    assert torch.equal(ops.row_moments(h)[0][[0, -1]], ops.row_moments(ends)[0])
    assert ops.column_l1(h)[7] == 1.0
    gradient = ops.qscore_backward(torch.ones_like(q), h, mask, 4.0, True, False)[[0, -1]]
    assert torch.equal(gradient, ops.qscore_backward(torch.ones_like(q[:2]), ends, mask, 4.0, True, False))
