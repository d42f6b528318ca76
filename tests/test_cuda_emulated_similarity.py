"""CKA and CCA on CUDA, run on the CPU emulator of tests/simt with plain products: logic, not hardware."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_kernels import reference
from tests.simt_library import DTYPES, Rows, emulated_kernels, pointer

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator is compiled with g++")

_DOUBLES = ctypes.POINTER(ctypes.c_double)
_QR = ctypes.CFUNCTYPE(None, _DOUBLES, ctypes.c_int64, ctypes.c_int64)
_SVD = ctypes.CFUNCTYPE(None, _DOUBLES, ctypes.c_int64, ctypes.c_int64, _DOUBLES, _DOUBLES, _DOUBLES)


def _array(data: ctypes._Pointer, *shape: int) -> np.ndarray:
    return np.ctypeslib.as_array(data, shape)


@_QR
def _qr(a: ctypes._Pointer, rows: int, cols: int) -> None:
    matrix = _array(a, rows, cols)
    r = np.linalg.qr(matrix, mode="r")
    matrix[:] = 7.0  # what lies below R is undefined
    matrix[: len(r)] = r + np.tril(np.full((len(r), cols), 3.0), -1)


@_SVD
def _svd(a: ctypes._Pointer, rows: int, cols: int, u: ctypes._Pointer, s: ctypes._Pointer, vh: ctypes._Pointer) -> None:
    k = min(rows, cols)
    _array(u, rows, k)[:], _array(s, k)[:], _array(vh, k, cols)[:] = np.linalg.svd(_array(a, rows, cols), full_matrices=False)


@pytest.fixture(scope="session")
def simt() -> ctypes.CDLL:
    torch.set_num_threads(1)
    library = emulated_kernels()
    library.simt_factorisations(_qr, _svd)
    return library


def views(*matrices: Tensor) -> ctypes.Array:
    return (Rows * len(matrices))(
        *(Rows(m.data_ptr(), m.shape[0], m.shape[1], m.stride(0), DTYPES.index(m.dtype)) for m in matrices)
    )


def scores(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def emulated_cka(
    simt: ctypes.CDLL, matrices: list[Tensor], debiased: bool, grad: Tensor, one_pair: bool
) -> tuple[Tensor, list[Tensor]]:
    out = torch.full_like(grad, 7.0)
    grads = [torch.full_like(m, 7.0, memory_format=torch.contiguous_format) for m in matrices]
    targets = (ctypes.c_void_p * len(grads))(*(g.data_ptr() for g in grads))
    flags = ctypes.c_bool(debiased), ctypes.c_bool(one_pair)
    simt.simt_cka(views(*matrices), len(matrices), *flags, pointer(grad), pointer(out), targets)
    return out, grads


def close(got: Tensor, want: Tensor, dtype: torch.dtype) -> None:
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    scale = want[want.isfinite()].abs().max().item() if want.isfinite().any() else 1.0
    step = 3e-8 if dtype == torch.float16 else 0.0  # half of the smallest number
    torch.testing.assert_close(got.double(), want.double(), rtol=0, atol=tolerance * scale + step, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize(("n", "d"), [(9, 5), (40, 12), (10, 33)])
def test_cka_matrix(simt: ctypes.CDLL, n: int, d: int, debiased: bool, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(3, n, d, generator=generator, dtype=torch.float64)
    x[1] += x[0]
    x[2] = x[2] * 1e4 + (50e4 if dtype in (torch.float32, torch.float64) else 1e4)
    x = x.to(dtype)
    grad = torch.randn(3, 3, generator=generator, dtype=torch.float64).to(scores(x))
    out, grads = emulated_cka(simt, list(x), debiased, grad, one_pair=False)
    want = reference.cka_matrix(x.double(), debiased)
    torch.testing.assert_close(out.double(), want, rtol=0, atol=1e-11 if dtype == torch.float64 else 1e-5)
    assert torch.equal(out, out.T)
    for got, expected in zip(grads, reference.cka_matrix_backward(grad.double(), x.double(), debiased), strict=True):
        close(got, expected, dtype)


@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize(("n", "d1", "d2"), [(30, 4, 17), (8, 40, 20)])
def test_linear_cka(simt: ctypes.CDLL, n: int, d1: int, d2: int, debiased: bool) -> None:
    generator = torch.Generator().manual_seed(n)
    x, y = torch.randn(n, d1, generator=generator), torch.randn(n, d2, generator=generator) * 1e-20
    grad = torch.tensor(1.7)
    out, grads = emulated_cka(simt, [x, y], debiased, grad, one_pair=True)
    wide = x.double()[None], y.double()[None]
    torch.testing.assert_close(out.double(), reference.linear_cka(*wide, debiased)[0], rtol=0, atol=1e-5)
    for got, want in zip(grads, reference.linear_cka_backward(grad.double()[None], *wide, debiased), strict=True):
        close(got, want[0], torch.float32)


@pytest.mark.parametrize(("n", "d"), [(40, 6), (9, 33)])
def test_a_sample_far_from_the_rest_asks_for_double(simt: ctypes.CDLL, n: int, d: int) -> None:
    simt.simt_cka.restype = ctypes.c_bool
    near = torch.randn(2, n, d, generator=torch.Generator().manual_seed(0))
    far, alone = near.clone(), near.double()
    far[1, 3] *= 1e4
    alone[1] = torch.arange(n)[:, None] == 4
    for x, debiased, again in (
        (near, True, False),
        (far, True, True),
        (far, False, False),
        (far.double(), True, False),
        (alone.float(), True, True),
        (alone, True, False),
    ):
        out = torch.full((2, 2), 7.0, dtype=x.dtype)
        found = simt.simt_cka(views(*x), 2, ctypes.c_bool(debiased), ctypes.c_bool(False), None, pointer(out), None)
        assert found == again
        if not again:
            torch.testing.assert_close(out, reference.cka_matrix(x, debiased), rtol=0, atol=1e-5, equal_nan=True)
    assert out[1].isnan().all() and out[:, 1].isnan().all() and out[0, 0] == 1


@pytest.mark.parametrize("exponent", [-1060, -700, 700, 1018])
def test_every_scale_of_float64(simt: ctypes.CDLL, exponent: int) -> None:
    x = torch.randn(2, 40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x.mul(2**10).round().div(2**10)  # subnormal numbers hold it too
    scaled = torch.from_numpy(np.ldexp(x.numpy(), exponent))
    out, _ = emulated_cka(simt, list(scaled), True, torch.ones(2, 2, dtype=torch.float64), one_pair=False)
    torch.testing.assert_close(out, reference.cka_matrix(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(correlations(simt, scaled)[0], reference.cca_matrix(x)[0], rtol=0, atol=1e-12)


def test_differences_that_overflow(simt: ctypes.CDLL) -> None:
    x = torch.randn(2, 300, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x / x.abs().amax(dim=(1, 2), keepdim=True)
    huge = x * torch.finfo(torch.float64).max
    out, _ = emulated_cka(simt, list(huge), True, torch.ones(2, 2, dtype=torch.float64), one_pair=False)
    torch.testing.assert_close(out, reference.cka_matrix(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(correlations(simt, huge)[0], reference.cca_matrix(x)[0], rtol=0, atol=1e-12)


def test_a_huge_constant_feature_drowns_no_tiny_one(simt: ctypes.CDLL) -> None:
    x = torch.randn(2, 40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mixed = torch.cat([torch.full((2, 40, 1), 1e300, dtype=torch.float64), x * 1e-290], dim=2)
    out, _ = emulated_cka(simt, list(mixed), True, torch.ones(2, 2, dtype=torch.float64), one_pair=False)
    torch.testing.assert_close(out, reference.cka_matrix(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(correlations(simt, mixed)[0], reference.cca_matrix(x)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), 0.0])
def test_cka_of_constant_and_not_finite(simt: ctypes.CDLL, broken: float) -> None:
    x = torch.randn(3, 12, 5, generator=torch.Generator().manual_seed(0))
    if broken == 0.0:
        x[1] = 3.0
    else:
        x[1, 4, 2] = broken
    out, grads = emulated_cka(simt, list(x), True, torch.ones(3, 3), one_pair=False)
    want = reference.cka_matrix(x[[0, 2]].double())
    torch.testing.assert_close(out[[0, 2]][:, [0, 2]].double(), want, rtol=0, atol=1e-5)
    assert out[1].isnan().all()
    assert out[:, 1].isnan().all()
    assert grads[1].isnan().all()


def correlations(simt: ctypes.CDLL, x: Tensor, rtol: float = 1e-6, ridge: float = 0.0) -> tuple[Tensor, Tensor]:
    out, ranks = torch.empty(len(x), len(x), dtype=scores(x)), torch.empty(len(x), dtype=torch.int64)
    factors = ctypes.c_double(rtol), ctypes.c_double(ridge)
    simt.simt_cca(views(*x), len(x), *factors, pointer(out), pointer(ranks))
    return out, ranks


def _dependent(x: Tensor) -> None:
    x[1, :, 2] = x[1, :, 0] - x[1, :, 1]
    x[2, :, 1] = 4.0


def _broken(x: Tensor) -> None:
    x[0] = 2.0
    x[1, 3, 1] = float("nan")


@pytest.mark.parametrize("change", [None, _dependent, _broken])
@pytest.mark.parametrize("ridge", [0.0, 0.1])
@pytest.mark.parametrize(("n", "d"), [(40, 6), (7, 20), (6, 6)])
def test_cca_matrix(simt: ctypes.CDLL, n: int, d: int, ridge: float, change: Callable[[Tensor], None] | None) -> None:
    x = torch.randn(4, n, d, generator=torch.Generator().manual_seed(n)) * 3.0 + 10.0
    x[3] = x[0]
    if change is not None:
        change(x)
    out, ranks = correlations(simt, x, ridge=ridge)
    want, want_ranks = reference.cca_matrix(x.double(), 1e-6, ridge)
    assert torch.equal(ranks, want_ranks)
    torch.testing.assert_close(out.double(), want, rtol=0, atol=1e-5, equal_nan=True)


def test_cca_of_many_rows_factorises_in_panels(simt: ctypes.CDLL) -> None:
    x = torch.randn(2, 20000, 3, generator=torch.Generator().manual_seed(0))
    x[1, :, 0] += x[0, :, 2]
    out, ranks = correlations(simt, x)
    want, _ = reference.cca_matrix(x.double(), 1e-6)
    assert ranks.tolist() == [3, 3]
    torch.testing.assert_close(out.double(), want, rtol=0, atol=1e-6)
