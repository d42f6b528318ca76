"""Derivatives are right or refused, never silently zero: torch.func, forward mode, vmap, second derivatives."""

import functools

import pytest
import torch
from torch import func
from torch.autograd import forward_ad

import ssl_kernels
from tests.ops.test_rows import discriminative_mask, representations

ops = torch.ops.sslk
MASK = discriminative_mask(12)


def scores(normalize=True, two_sided=False):
    return lambda h: ops.qscore(h, MASK, 0.7, normalize, two_sided)


def norms(normalize=True):
    return lambda h: ops.column_l1(h, normalize)


def penalty(h):
    return torch.cat([part.flatten() for part in ops.qscore_penalty(h, MASK, 0.3, 0.1, 0.7)])


def cka(h):
    return ops.cka_matrix(torch.stack([h, h.roll(1, 1).square()])).flatten()


def pair(h):
    return ops.linear_cka(h[None], h[None].roll(1, 2).square())


def doubles(*shape, seed=0):
    """Signed and away from 0: |x| is smooth there."""
    h = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return h + 0.1 * h.sign()


def differences(f, h, step=1e-6):
    """The Jacobian by central differences: `[*output, *h.shape]`."""
    columns = []
    for i in range(h.numel()):
        change = torch.zeros(h.numel(), dtype=h.dtype)
        change[i] = step
        columns.append((f(h + change.view(h.shape)) - f(h - change.view(h.shape))) / (2 * step))
    return torch.stack(columns, -1).unflatten(-1, h.shape)


FORWARD = {
    f"qscore {normalize} {two_sided}": scores(normalize, two_sided) for normalize in (True, False) for two_sided in (True, False)
} | {"column_l1": norms(), "column_l1 raw": norms(False)}
REVERSE = FORWARD | {"qscore_penalty": penalty, "cka_matrix": cka, "linear_cka": pair}
CONSTANT = {
    "row_moments": lambda h: ops.row_moments(h),
    "qscore_counts": lambda h: ops.qscore_counts(h, MASK),
    "heatmap_iou": lambda h: ops.heatmap_iou(h[None], (h > 0)[None]),
    "cca_matrix": lambda h: ops.cca_matrix(h[None].double()),
    "masked_variants": lambda h: ops.masked_variants(h[None, None], None, [0.5], [0.5], [0, 3]),
    "kmeans_assign": lambda h: ops.kmeans_assign(h, h[:2].detach()),
}


@pytest.mark.parametrize("name", REVERSE)
def test_torch_func_takes_first_derivatives(name):
    f, h = REVERSE[name], doubles(6, 12)
    expected = differences(f, h)
    torch.testing.assert_close(func.jacrev(f)(h), expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(func.grad(lambda x: f(x).sum())(h), expected.sum(0), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", FORWARD)
def test_forward_mode_is_the_derivative(name):
    f, h, direction = FORWARD[name], doubles(6, 12), doubles(6, 12, seed=1)
    expected = (differences(f, h) * direction).sum((1, 2))
    torch.testing.assert_close(func.jvp(f, (h,), (direction,))[1], expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(func.jacfwd(f)(h), differences(f, h), rtol=1e-6, atol=1e-8)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(f(forward_ad.make_dual(h, direction))).tangent
    torch.testing.assert_close(tangent, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_forward_mode_of_other_dtypes(dtype):
    h, direction = doubles(6, 12).to(dtype), doubles(6, 12, seed=1).to(dtype)
    for f in (scores(), norms()):
        tangent = func.jvp(f, (h,), (direction,))[1]
        expected = func.jvp(f, (h.double(),), (direction.double(),))[1]
        assert tangent.dtype == torch.float32
        torch.testing.assert_close(tangent.double(), expected, rtol=1e-5, atol=1e-5)


def test_forward_mode_below_the_norm_floor_and_above_float():
    """Rows shorter than 1e-12 are divided by that constant; a float row may be longer than a float can hold."""
    short, direction = doubles(3, 12) * 1e-14, doubles(3, 12, seed=1)
    expected = (short.sign() * direction).sum(0) / 1e-12
    torch.testing.assert_close(func.jvp(norms(), (short,), (direction,))[1], expected)
    long = torch.full((1, 12), 3e38)
    long_direction = torch.zeros(1, 12)
    long_direction[0, 0] = 3e38
    # u = 1 / sqrt(12) everywhere: du_j = (dh_j - u <u, dh>) / |h|
    one = 12**-0.5
    expected = torch.full((12,), -one / 12)
    expected[0] += one
    torch.testing.assert_close(func.jvp(norms(), (long,), (long_direction,))[1], expected)


@pytest.mark.parametrize("name", REVERSE)
@pytest.mark.parametrize("dim", [0, 1])
def test_vmap_is_a_loop(name, dim):
    f, batch = REVERSE[name], doubles(3, 6, 12)
    moved = batch.movedim(0, dim)
    torch.testing.assert_close(func.vmap(f, in_dims=dim)(moved), torch.stack([f(h) for h in batch]))
    gradient = func.grad(lambda x: f(x).sum())
    torch.testing.assert_close(func.vmap(gradient, in_dims=dim)(moved), torch.stack([gradient(h) for h in batch]))


def test_vmap_over_images_leaves_the_lists_of_numbers_alone():
    images, objects = torch.rand(3, 2, 3, 5, 4), torch.rand(3, 2, 5, 4) > 0.5
    variants = functools.partial(ops.masked_variants, mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4], variants=[0, 1, 3])
    found = func.vmap(variants)(images, objects)
    assert torch.equal(found, torch.stack([variants(i, o) for i, o in zip(images, objects, strict=True)]))


def test_vmap_over_the_set():
    h, masks = doubles(6, 12), torch.stack([MASK, ~MASK])
    found = func.vmap(lambda m: ops.qscore(h, m, 0.7))(masks)
    torch.testing.assert_close(found, torch.stack([ops.qscore(h, m, 0.7) for m in masks]))


@pytest.mark.parametrize("name", sorted(set(REVERSE) - set(FORWARD)))
def test_forward_mode_is_refused_where_it_is_missing(name):
    f, h = REVERSE[name], doubles(6, 12)
    with pytest.raises(RuntimeError, match=r"sslk::.*: no forward-mode derivative"):
        func.jvp(f, (h,), (h,))
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match=r"sslk::.*: no forward-mode derivative"):
        f(forward_ad.make_dual(h, h))


@pytest.mark.parametrize("name", REVERSE)
def test_second_derivatives_are_refused_when_asked_for(name):
    f, h = REVERSE[name], doubles(6, 12)
    leaf = h.clone().requires_grad_()
    with pytest.raises(RuntimeError, match="no second derivative of sslk::"):
        torch.autograd.grad(f(leaf).sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative of sslk::"):
        func.grad(lambda y: func.grad(lambda x: f(x).sum())(y).sum())(h)
    with pytest.raises(RuntimeError, match=r"no (second|forward-mode) derivative"):
        func.hessian(f)(h)


@pytest.mark.parametrize("name", CONSTANT)
def test_what_has_no_derivative_does_not_claim_one(name):
    f, h = CONSTANT[name], representations(6, 12, signed=True)

    def outputs(x):
        found = f(x)
        return (found,) if isinstance(found, torch.Tensor) else found

    assert not any(t.requires_grad for t in outputs(h.clone().requires_grad_()))
    for transform in (lambda g: func.grad(g)(h), lambda g: func.jvp(g, (h,), (h,))):
        with pytest.raises(RuntimeError, match=f"sslk::{name}: not differentiable"):
            transform(lambda x: sum(t.sum() for t in outputs(x) if t.is_floating_point()))
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match=f"sslk::{name}: not differentiable"):
        f(forward_ad.make_dual(h, h))


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_thresholds_that_require_grad_are_refused(name):
    h, threshold = representations(6, 12), torch.rand((), requires_grad=True)
    with pytest.raises(RuntimeError, match=f"{name} is a constant and must not require grad"):
        ssl_kernels.qscore_penalty(h, MASK, **{name: threshold})
    with torch.no_grad():
        assert ssl_kernels.qscore_penalty(h, MASK, **{name: threshold})[0].isfinite()
