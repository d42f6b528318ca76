"""The CUDA row kernels on a CPU emulator (tests/simt), against the float64 reference.

This checks the kernels' logic and synchronisation: indexing, alignment, masks, reductions, barriers (threads run in
random order between them), the exact active set. It does not check hardware: memory ordering, coalescing, launch limits
and device rounding need a GPU, see bench/gpu.sh.
"""

from __future__ import annotations

import ctypes
import shutil

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_kernels import reference
from ssl_kernels.reference.rows import NORM_FLOOR, penalty_loss
from tests.simt_library import DTYPES, emulated_kernels, pointer, rows

SIZES = [1, 3, 64, 100, 192, 760, 1128, 2048, 5000, 8300]

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator is compiled with g++")


@pytest.fixture(scope="session")
def simt() -> ctypes.CDLL:
    torch.set_num_threads(1)
    return emulated_kernels()


def score_dtype(h: Tensor) -> torch.dtype:
    return torch.float64 if h.dtype == torch.float64 else torch.float32


def representations(n: int, d: int, dtype: torch.dtype, seed: int, misalign: int = 0) -> Tensor:
    """Rows of every kind in turn: plain, sparse, far from 0, tiny, huge, constant, zero, two values, NaN, infinite."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    tiny, huge = {torch.float16: (1e-4, 1e3)}.get(dtype, (1e-30, 1e30))
    offset = 3.0 if dtype in (torch.bfloat16, torch.float16) else 100.0
    for i in range(n):
        kind = i % 11
        if kind == 1:
            x[i] = x[i].relu() * x[i].abs()
        elif kind == 2:
            x[i] += offset
        elif kind in (3, 4):
            x[i] *= tiny if kind == 3 else huge
        elif kind == 5:
            x[i] = 0.3
        elif kind == 6:
            x[i] = 0.0
        elif kind == 7:
            x[i] = (x[i] > 1.0).double()
        elif kind in (8, 9) and n > 11:
            x[i, i % d] = float("nan") if kind == 8 else float("-inf")
        else:
            x[i, (7 * i) % d] += 9.0
    storage = torch.full((n * (d + misalign) + 2 * misalign + 1,), float("nan"), dtype=dtype)
    h = storage[misalign:].as_strided((n, d), (d + misalign, 1))
    return h.copy_(x)


def shape_of(d: int, dtype: torch.dtype) -> int:
    # Every team of the emulated device (4 multiprocessors, 2 blocks each) sees several rows.
    return 29 if dtype == torch.float64 or d > 1024 else 301 if d <= 128 else 99


def assert_rows_close(got: Tensor, want: Tensor, tolerance: float, scale: Tensor | float = 0.0) -> None:
    """Equal NaN; differences at most `tolerance` of each row's largest magnitude, or of `scale` if that is larger."""
    got, want = got.double(), want.double()
    assert torch.equal(got.isnan(), want.isnan())
    got, want = got.nan_to_num(), want.nan_to_num()
    largest = want.abs() if want.dim() == 1 else want.abs().amax(dim=1, keepdim=True)
    scale = torch.maximum(largest, torch.as_tensor(scale, dtype=torch.float64))
    error = (got - want).abs()
    worst = (error - tolerance * scale).max().item()
    assert worst <= 1e-37, f"largest error {error.max().item():.3g} at scale {scale.max().item():.3g}"


CASES = [
    pytest.param(d, dtype, misalign, id=f"{d}-{str(dtype)[6:]}-{misalign}")
    for index, d in enumerate(SIZES)
    for dtype in DTYPES
    for misalign in ([0, 1 + index % 3] if dtype != torch.float64 else [index % 2])
]


@pytest.mark.parametrize(("d", "dtype", "misalign"), CASES)
def test_forward(simt: ctypes.CDLL, d: int, dtype: torch.dtype, misalign: int) -> None:
    n = shape_of(d, dtype)
    two_sided, eps = (d + misalign) % 2 == 1, [0.0, 1.0, 2.5, 4.0][(d + misalign) % 4]
    h = representations(n, d, dtype, seed=d, misalign=misalign)
    wide = h.double()
    simt.simt_seed(ctypes.c_uint64(d + misalign))
    flags = (ctypes.c_double(eps), ctypes.c_bool(two_sided))

    mask = torch.full((n, d), 7, dtype=torch.uint8)
    simt.simt_mask(rows(h), *flags, pointer(mask))
    want = reference.activating_mask(wide, eps, two_sided)
    assert torch.equal(mask, want.to(torch.uint8))

    features, per_row = torch.zeros(d, dtype=torch.int64), torch.full((n,), -1, dtype=torch.int32)
    simt.simt_counts(rows(h), *flags, pointer(features), pointer(per_row))
    assert torch.equal(features, want.sum(0))
    assert torch.equal(per_row, want.sum(1, dtype=torch.int32))

    tolerance = 1e-12 if dtype == torch.float64 else 4e-6
    moments = [torch.empty(n, dtype=score_dtype(h)) for _ in range(3)]
    simt.simt_moments(rows(h), *map(pointer, moments))
    mean, std, norm = reference.row_moments(wide)
    assert_rows_close(torch.stack([moments[0], moments[2]], 1), torch.stack([mean, norm], 1), tolerance)
    assert_rows_close(moments[1], std, tolerance)

    for normalize in (True, False):
        discriminative = torch.arange(d) % 3 != 1
        q = torch.full((n,), -3.0, dtype=score_dtype(h))
        arguments = (rows(h), pointer(discriminative), flags[0], ctypes.c_bool(normalize), flags[1])
        simt.simt_qscore(*arguments, pointer(q))
        want_q = reference.qscore(wide, discriminative, eps, normalize, two_sided)
        assert_rows_close(q, want_q, tolerance)
        counted, active = torch.full_like(q, -3.0), torch.full((n,), -1, dtype=torch.int32)
        simt.simt_qscore_counts(*arguments, pointer(counted), pointer(active))
        assert_rows_close(counted, want_q, tolerance)
        assert torch.equal(active, per_row)

        finite = wide.isfinite().all(dim=1) & (wide.abs().amax(dim=1) < 1e20)
        good = h[finite].contiguous()  # a NaN row would leave nothing to compare
        for score in (True, False):
            q = torch.full((good.shape[0],), -3.0, dtype=score_dtype(h)) if score else None
            columns = torch.empty(d, dtype=score_dtype(h))
            simt.simt_columns(rows(good), *arguments[1:], pointer(q), pointer(columns))
            assert_rows_close(columns, reference.column_l1(wide[finite], normalize), tolerance)
            if q is not None:
                assert_rows_close(q, want_q[finite], tolerance)
    for normalize in (True, False):
        columns = torch.empty(d, dtype=score_dtype(h))
        simt.simt_columns(rows(h), None, flags[0], ctypes.c_bool(normalize), flags[1], None, pointer(columns))
        want = reference.column_l1(wide, normalize)
        assert torch.equal(columns.isnan(), want.isnan())


@pytest.mark.parametrize(("d", "dtype", "misalign"), CASES)
def test_gradient(simt: ctypes.CDLL, d: int, dtype: torch.dtype, misalign: int) -> None:
    n = shape_of(d, dtype)
    two_sided, eps = (d + misalign) % 2 == 0, [2.5, 1.0, 4.0, 0.5][(d + misalign) % 4]
    h = representations(n, d, dtype, seed=d + 1, misalign=misalign)
    wide = h.double()
    finite = wide.isfinite().all(dim=1)
    safe = torch.where(finite[:, None], wide, 1.0)  # the reference's gradient of a NaN row is nothing to compare with
    generator = torch.Generator().manual_seed(d)
    grad_q = torch.randn(n, generator=generator, dtype=torch.float64).to(score_dtype(h))
    grad_columns = torch.randn(d, generator=generator, dtype=torch.float64).to(score_dtype(h))
    discriminative = torch.arange(d) % 3 != 1
    unit = {torch.float64: 1e-11, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 6e-3}[dtype]
    simt.simt_seed(ctypes.c_uint64(7 * d + misalign))
    for normalize in (True, False):
        want_q = reference.qscore_backward(grad_q.double(), safe, discriminative, eps, normalize, two_sided)
        want_columns = reference.column_l1_backward(grad_columns.double(), safe, normalize)
        # Terms of this size cancel: to nothing, for a row that is a multiple of its gradient (always where D = 1).
        norm = torch.linalg.vector_norm(safe, dim=1, keepdim=True).clamp_min(NORM_FLOOR)
        terms = (grad_q.abs() + grad_columns.abs().max()).double()[:, None] / (norm if normalize else 1.0)
        for q, columns in ((True, False), (False, True), (True, True)):
            got = torch.full((n, d), 77.0, dtype=dtype)
            simt.simt_gradient(
                rows(h),
                pointer(discriminative if q else None),
                ctypes.c_double(eps),
                ctypes.c_bool(normalize),
                ctypes.c_bool(two_sided),
                pointer(grad_q if q else None),
                pointer(grad_columns if columns else None),
                pointer(got),
            )
            want = (want_q if q else 0) + (want_columns if columns else 0)
            want = want.to(dtype).double()  # float16 overflows and underflows as the output must
            comparable = finite & want.isfinite().all(dim=1)
            assert_rows_close(got[comparable], want[comparable], unit, terms[comparable])
            if q or normalize:
                assert got[~finite].isnan().all()


def emulated_loss(
    simt: ctypes.CDLL, q: Tensor, columns: Tensor, alpha: Tensor | None = None, beta: Tensor | None = None
) -> Tensor:
    loss = torch.empty((), dtype=q.dtype)
    simt.simt_penalty_loss(
        ctypes.c_bool(q.dtype == torch.float64),
        pointer(q),
        ctypes.c_int64(q.numel()),
        ctypes.c_double(0.3),
        pointer(alpha),
        pointer(columns),
        ctypes.c_int64(columns.numel()),
        ctypes.c_double(0.2),
        pointer(beta),
        pointer(loss),
    )
    return loss


# By one block, the last of which is full, and by several.
LOSS_SIZES = [(0, 33), (1, 1), (1, 33), (700, 33), (512, 2048), (16000, 384), (16000, 385), (3, 17000), (600_000, 7)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "d"), LOSS_SIZES)
def test_penalty_loss(simt: ctypes.CDLL, dtype: torch.dtype, n: int, d: int) -> None:
    generator = torch.Generator().manual_seed(n)
    q, columns = torch.rand(n, generator=generator, dtype=dtype), torch.rand(d, generator=generator, dtype=dtype)
    alpha, beta = torch.tensor(0.9, dtype=dtype), torch.tensor(0.1, dtype=dtype)
    for thresholds in ((None, None), (alpha, None), (None, beta), (alpha, beta)):
        wide = [None if t is None else t.double() for t in thresholds]
        low, high = wide
        if n:
            want = penalty_loss(q.double(), columns.double(), 0.3, 0.2, low, high)
        else:
            mean = columns.double().mean() if high is None else high
            want = 0.2 * torch.where(columns.double() <= mean, 0.0, columns.double()).sum()
        torch.testing.assert_close(emulated_loss(simt, q, columns, *thresholds).double(), want, rtol=1e-6, atol=0)
    for at in {0, n // 2, n - 1} if n else ():
        spoilt = q.clone()
        spoilt[at] = float("nan")
        assert emulated_loss(simt, spoilt, columns).isnan()
        assert emulated_loss(simt, spoilt, columns, alpha, beta).isnan()
    columns[d // 2] = float("nan")
    assert emulated_loss(simt, q, columns).isnan()


@pytest.mark.parametrize(("n", "d"), [(700, 33), (18000, 40)])
def test_penalty_loss_of_equal_values_and_of_sums_that_overflow(simt: ctypes.CDLL, n: int, d: int) -> None:
    for value in (0.1, 0.3, 1.7, 2.0**1020):
        q, columns = torch.full((n,), value, dtype=torch.float64), torch.full((d,), value, dtype=torch.float64)
        assert emulated_loss(simt, q, columns) == 0  # none lies below or above the mean
    generator = torch.Generator().manual_seed(n)
    q, columns = torch.rand(n, generator=generator).double(), torch.rand(d, generator=generator).double()
    columns[3:] = 0.0
    columns[:3] *= 0.5
    factor = 2.0**1022
    want = emulated_loss(simt, q, columns) * factor
    torch.testing.assert_close(emulated_loss(simt, q * factor, columns * factor), want, rtol=1e-12, atol=0)


@pytest.mark.parametrize("d", [64, 760, 2048])
@pytest.mark.parametrize("two_sided", [False, True])
def test_elements_at_the_threshold(simt: ctypes.CDLL, d: int, two_sided: bool) -> None:
    """Neighbouring float32 numbers on both sides of the threshold: only the exact path can tell them apart."""
    eps, n = 3.0, 16
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(d)) * 0.3 + 5.0
    low, high = x[:, 7].double(), x[:, 7].double() + 10.0
    for _ in range(80):  # the value that equals its own threshold
        x64 = x.double()
        x64[:, 7] = (low + high) / 2
        above = reference.activating_mask(x64, eps)[:, 7]
        low, high = torch.where(above, low, x64[:, 7]), torch.where(above, x64[:, 7], high)
    x[:, 7] = high.float()
    x[::2, 7] = torch.nextafter(x[::2, 7], torch.tensor(0.0))
    want = reference.activating_mask(x.double(), eps, two_sided)
    assert 0 < want[:, 7].sum() < n
    mask = torch.full((n, d), 7, dtype=torch.uint8)
    simt.simt_mask(rows(x), ctypes.c_double(eps), ctypes.c_bool(two_sided), pointer(mask))
    assert torch.equal(mask.bool(), want)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("d", [5, 3000])
def test_few_rows(simt: ctypes.CDLL, n: int, d: int) -> None:
    h = representations(n, d, torch.float32, seed=3)
    mask = torch.full((n, d), 7, dtype=torch.uint8)
    simt.simt_mask(rows(h), ctypes.c_double(1.0), ctypes.c_bool(False), pointer(mask))
    assert torch.equal(mask.bool(), reference.activating_mask(h.double(), 1.0))
    columns = torch.empty(d)
    simt.simt_columns(rows(h), None, ctypes.c_double(0), ctypes.c_bool(True), ctypes.c_bool(False), None, pointer(columns))
    torch.testing.assert_close(columns.double(), reference.column_l1(h.double()), rtol=1e-6, atol=0)


@pytest.mark.parametrize("two_sided", [False, True])
def test_norms_and_sums_beyond_the_largest_number(simt: ctypes.CDLL, two_sided: bool) -> None:
    h = (torch.arange(1183) % 13 < 7).double().expand(3, -1).contiguous()
    chosen = torch.arange(1183) % 2 == 0
    for normalize in (True, False):
        found = []
        for factor in (1.0, 2.0**1021):
            q, columns = torch.empty(3, dtype=torch.float64), torch.empty(1183, dtype=torch.float64)
            flags = ctypes.c_double(0.5), ctypes.c_bool(normalize), ctypes.c_bool(two_sided)
            huge = h * factor
            simt.simt_columns(rows(huge), pointer(chosen), *flags, pointer(q), pointer(columns))
            found.append((q / (1.0 if normalize else factor), columns))
        torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-12, atol=0)
        if normalize:
            torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("offset", [-5.0, 0.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_thresholds_of_either_sign(simt: ctypes.CDLL, dtype: torch.dtype, offset: float, two_sided: bool) -> None:
    """Rows of a few neighbouring numbers on either side of 0: the threshold is between two of them."""
    for d in (61, 512, 1003):
        steps = torch.randint(-3, 4, (16, d), generator=torch.Generator().manual_seed(d))
        h = (offset * (1 + steps * torch.finfo(dtype).eps)).to(dtype)
        for eps in (0.0, 0.3, 0.8, 1.2):
            mask = torch.empty(16, d, dtype=torch.bool)
            simt.simt_mask(rows(h), ctypes.c_double(eps), ctypes.c_bool(two_sided), pointer(mask))
            assert torch.equal(mask, reference.activating_mask(h.double(), eps, two_sided))


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("exponent", [-1000, 1018, 1021])
def test_gradient_of_every_scale_of_float64(simt: ctypes.CDLL, exponent: int, two_sided: bool) -> None:
    """With |h| and <|h|, grad> beyond the largest number; the gradient of h * f is that of h divided by f."""
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(4, 700, generator=generator, dtype=torch.float64).clamp(-2, 2)
    h[1] = (torch.arange(700) % 13 < 7) * 1.5
    h[2] = -h[1]
    chosen = torch.arange(700) % 2 == 0
    grad_q, grad_columns = torch.ones(4, dtype=torch.float64), torch.linspace(50, 150, 700, dtype=torch.float64)
    for q, columns in ((True, False), (False, True), (True, True)):
        found = []
        for scale in (0, exponent):
            scaled = torch.from_numpy(np.ldexp(h.numpy(), scale))
            got = torch.full_like(h, 77.0)
            flags = ctypes.c_double(0.5), ctypes.c_bool(True), ctypes.c_bool(two_sided)
            simt.simt_gradient(
                rows(scaled),
                pointer(chosen),
                *flags,
                pointer(grad_q if q else None),
                pointer(grad_columns if columns else None),
                pointer(got),
            )
            found.append(got)
        if exponent < 0:  # the floor of 1e-12 divides, and no part along the row is taken off
            assert found[1].isfinite().all() and found[1].abs().max() > 1e9
            continue
        error = (torch.from_numpy(np.ldexp(found[1].numpy(), exponent)) - found[0]).abs()
        assert (error <= 1e-10 * found[0].abs().max() + 2.0 ** (exponent - 1074)).all()


@pytest.mark.parametrize("d", [5, 8300])
def test_scores_of_deviations_beyond_the_largest_number(simt: ctypes.CDLL, d: int) -> None:
    """A deviation of nearly twice the largest element is no number; divided by the norm of the row it is one."""
    h = -torch.ones(3, d, dtype=torch.float64)
    h[:, ::5] = 1.0
    chosen = torch.ones(d, dtype=torch.bool)
    flags = ctypes.c_double(1.0), ctypes.c_bool(True), ctypes.c_bool(False)
    found = []
    for factor in (1.0, 1.9 * 2.0**1022 * 2.0):
        q, columns, scaled = torch.empty(3, dtype=torch.float64), torch.empty(d, dtype=torch.float64), h * factor
        simt.simt_qscore(rows(scaled), pointer(chosen), *flags, pointer(q))
        simt.simt_columns(rows(scaled), pointer(chosen), *flags, pointer(again := torch.empty_like(q)), pointer(columns))
        assert torch.equal(q, again)
        found.append((q, columns))
    torch.testing.assert_close(found[1], found[0], rtol=1e-13, atol=0)


# Rows for 8 blocks, whole ones or of 32, 8 and 16 teams: none for most, fewer than the 128 that a team sums at once, as many,
# twice as many, and one more than that for some.
SUMMED = [(n, d, dtype) for n in (1, 9, 60, 1024, 2048, 4000) for d, dtype in ((2049, torch.float32), (4100, torch.bfloat16))]
SUMMED += [(n, 5, torch.float32) for n in (32768, 65536, 32800)]
SUMMED += [(8192, 1000, torch.float32), (8193, 1000, torch.float32), (16389, 257, torch.float16)]


@pytest.mark.parametrize(("n", "d", "dtype"), SUMMED)
def test_column_sums_of_few_and_of_many_rows_per_team(simt: ctypes.CDLL, n: int, d: int, dtype: torch.dtype) -> None:
    h = torch.randn(n, 1, generator=torch.Generator().manual_seed(n)).expand(n, d).to(dtype).contiguous()
    h[:, d // 2] *= 0.5
    columns = torch.empty(d)
    simt.simt_columns(rows(h), None, ctypes.c_double(0), ctypes.c_bool(False), ctypes.c_bool(False), None, pointer(columns))
    torch.testing.assert_close(columns.double(), reference.column_l1(h.double(), False), rtol=1e-6, atol=0)


def test_order_of_threads_does_not_change_a_bit(simt: ctypes.CDLL) -> None:
    h = representations(50, 300, torch.float32, seed=5)[:, :296]
    h = h[h.isfinite().all(dim=1)].contiguous()
    everything = torch.ones(296, dtype=torch.bool)
    results = []
    for seed in (1, 2, 3):
        simt.simt_seed(ctypes.c_uint64(seed))
        q, columns = torch.empty(h.shape[0]), torch.empty(296)
        simt.simt_columns(
            rows(h),
            pointer(everything),
            ctypes.c_double(1.0),
            ctypes.c_bool(True),
            ctypes.c_bool(False),
            pointer(q),
            pointer(columns),
        )
        results.append((q, columns))
    for q, columns in results[1:]:
        assert torch.equal(q, results[0][0])
        assert torch.equal(columns, results[0][1])


def test_counts_of_more_rows_than_the_counters_hold(simt: ctypes.CDLL) -> None:
    """A team's counters have 12 bits: they are added up and cleared in time."""
    d, teams = 8, 4 * 2 * 256 // 8
    n = teams * 4200
    h = torch.zeros(n, d)
    h[:, 3] = 9.0
    h[::2, 3], h[::2, 5] = 0.0, 9.0
    features, per_row = torch.zeros(d, dtype=torch.int64), torch.full((n,), -1, dtype=torch.int32)
    simt.simt_counts(rows(h), ctypes.c_double(1.0), ctypes.c_bool(False), pointer(features), pointer(per_row))
    assert features.tolist() == [0, 0, 0, n // 2, 0, n // 2, 0, 0]
    assert per_row.eq(1).all()
