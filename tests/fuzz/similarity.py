"""CKA and CCA against their definitions in float64."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ssl_kernels import reference
from tests.fuzz.draw import DTYPES, Draw, assert_near, assert_refused, wide
from tests.ops.test_similarity import cca_oracle, cka_oracle


def representations(draw: Draw, v: int, n: int, d: int, dtype: torch.dtype) -> Tensor:
    """V noisy views of one latent, of any scale at which the type keeps all of its digits."""
    latent = draw.normal(n, max(1, d // 2)) @ draw.normal(v, max(1, d // 2), d) / max(1, d // 2) ** 0.5
    x = 0.7 * latent + draw.normal(v, n, d)
    if dtype in (torch.float64, torch.float32):
        info = torch.finfo(dtype)
        return draw.scaled(x + draw.choice([0.0, 50.0]), dtype, 1e6 * info.smallest_normal, info.max)
    return x.to(dtype)


def of_order_one(x: Tensor) -> tuple[Tensor, int]:
    """y and e, x = y * 2^e: neither changes CKA nor CCA, and the oracles form fourth powers in float64."""
    _, exponent = np.frexp(float(x.double().abs().max()))
    return torch.from_numpy(np.ldexp(x.double().numpy(), -exponent)), int(exponent)


def cka(x: Tensor, y: Tensor, debiased: bool) -> float:
    with np.errstate(invalid="ignore", divide="ignore"):
        return cka_oracle(of_order_one(x)[0], of_order_one(y)[0], debiased)


def well_posed(x: Tensor) -> bool:
    """Debiased, HSIC of few samples with themselves comes from a difference that may be anything."""
    return x.isfinite().all().item() and x.shape[-2] >= 8


def fuzz_cka(draw: Draw) -> None:
    debiased = draw.chance(0.5)
    v, n, d = draw.size(5), draw.size(150, 4 if debiased else 2), draw.size(130)
    dtype = draw.choice(DTYPES)
    x = draw.layout(representations(draw, v, n, d, dtype))
    y = draw.layout(representations(draw, v, n, draw.size(130), dtype))
    tolerance = 1e-9 if dtype == torch.float64 else 1e-5
    matrix, pairs = draw.op("cka_matrix")(x, debiased), draw.op("linear_cka")(x, y, debiased)
    assert torch.equal(matrix.nan_to_num(7.0), matrix.T.nan_to_num(7.0)), "cka_matrix is not symmetric"
    if well_posed(x) and well_posed(y):
        expected = np.array([[cka(a, b, debiased) if i != j else 1.0 for j, b in enumerate(x)] for i, a in enumerate(x)])
        assert_near("cka_matrix", matrix, expected, tolerance)
        assert_near("linear_cka", pairs, np.array([cka(a, b, debiased) for a, b in zip(x, y, strict=True)]), tolerance)
        fuzz_cka_gradients(draw, x, y, debiased)
    if draw.chance(0.3):
        bad = x.clone()
        bad[0, 0, 0] = draw.choice([np.nan, np.inf])
        assert draw.op("cka_matrix")(bad, debiased)[0].isnan().all(), "cka_matrix of a value that is not finite"
    hostile = [(x[0], debiased), (x[:, :1], debiased), (x.long(), debiased)]
    assert_refused("cka_matrix", draw.op("cka_matrix"), *draw.choice(hostile))
    assert_refused("linear_cka", draw.op("linear_cka"), x, y[:, 1:], debiased)


def fuzz_cka_gradients(draw: Draw, x: Tensor, y: Tensor, debiased: bool) -> None:
    scores = torch.float64 if x.dtype == torch.float64 else torch.float32
    tolerance = {torch.float64: 1e-8, torch.float32: 5e-5, torch.float16: 4e-3, torch.bfloat16: 1.6e-2}[x.dtype]
    grad, grads = draw.normal(len(x)).to(scores), draw.normal(len(x), len(x)).to(scores)
    (near_x, of_x), (near_y, of_y) = of_order_one(x), of_order_one(y)
    expected = reference.linear_cka_backward(grad.double(), near_x, near_y, debiased)
    found = draw.op("linear_cka_backward")(grad, x, y, debiased)
    for of, exponent, actual, wanted in zip((near_x, near_y), (of_x, of_y), found, expected, strict=True):
        size = tolerance * gradient_size(of, grad, wanted)
        assert_near("linear_cka_backward", actual, *times_power(-exponent, wide(wanted), size))
    wanted = reference.cka_matrix_backward(grads.double(), near_x, debiased)
    actual = draw.op("cka_matrix_backward")(grads, x, debiased)
    size = tolerance * gradient_size(near_x, grads, wanted)
    assert_near("cka_matrix_backward", actual, *times_power(-of_x, wide(wanted), size))


def times_power(exponent: int, *values: np.ndarray | float) -> list[np.ndarray]:
    return [np.ldexp(np.asarray(value, dtype=np.longdouble), exponent) for value in values]


def gradient_size(x: Tensor, grad: Tensor, wanted: Tensor) -> float:
    """Of the terms: those of equal representations, for which CKA is 1 whatever they are, cancel."""
    terms = float(grad.abs().max()) / float(x.std(dim=-2).max()) / x.shape[-2] ** 0.5
    return float(wanted.abs().max()) + terms


def fuzz_cca(draw: Draw) -> None:
    v, n, d = draw.size(4), draw.size(120, 2), draw.size(60)
    dtype = draw.choice(DTYPES)
    x = representations(draw, v, n, d, dtype)
    if draw.chance(0.3) and d > 2:
        x[0, :, 0] = x[0, :, 1]
    x = draw.layout(x)
    # A routine that has threads of its own is still called inside a parallel region here: one thread.
    torch.set_num_threads(1)
    matrix, ranks = draw.op("cca_matrix")(x)
    near, _ = of_order_one(x)
    full = [min(int(np.linalg.matrix_rank((a - a[:1]).numpy(), tol=None)), n - 1) for a in near]
    eps = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    for i, a in enumerate(near):
        s = np.linalg.svd((a - a.mean(0)).numpy(), compute_uv=False)
        limit = min(0.5, 10 * eps * max(n, d) ** 0.5) * s[0]
        clear = not ((s[: n - 1] > limit / 4) & (s[: n - 1] < limit * 4)).any()
        if clear:
            full[i] = min(int((s > limit).sum()), n - 1)
            assert int(ranks[i]) == full[i], f"cca_matrix: rank {ranks[i]} of view {i}, want {full[i]}"
    r = ranks.tolist()
    expected = np.array(
        [[cca_oracle(a, b, r[i], r[j]) if min(r[i], r[j]) else np.nan for j, b in enumerate(near)] for i, a in enumerate(near)]
    )
    assert_near("cca_matrix", matrix, expected, 1e-7 if dtype == torch.float64 else 1e-5)
    hostile = [(x[0],), (x[:, :1],), (x, -0.1), (x, float("nan")), (x, None, -1.0), (x.long(),)]
    assert_refused("cca_matrix", draw.op("cca_matrix"), *draw.choice(hostile))
