"""Uniformity by tiles against all pairs at once, and alignment."""

import math

import pytest
import torch

from sslk.metrics import alignment, uniformity


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def all_pairs(x, t=2.0, normalize=True):
    """From the equation, with the N x N distances of numpy."""
    x = x.double()
    if normalize:
        x = x / x.norm(dim=1, keepdim=True).clamp(min=1e-300)
    squares = (x[:, None] - x[None]).square().sum(2)
    i, j = torch.triu_indices(len(x), len(x), 1)
    return torch.logsumexp(-t * squares[i, j], 0) - math.log(len(i))


@pytest.mark.parametrize("n", [2, 3, 16, 61])
@pytest.mark.parametrize("tile", [1, 7, 16, 64])
@pytest.mark.parametrize("t", [0.5, 2.0, 500.0])
def test_tiles_give_the_value_of_all_pairs(n, tile, t):
    x = normal(n, 5) + 0.3
    torch.testing.assert_close(uniformity(x, t, tile=tile), all_pairs(x, t), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(uniformity(3 * x, t, False, tile=tile), all_pairs(3 * x, t, False), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-6), (torch.float16, 2e-6)])
def test_float32_products_of_any_input(dtype, tolerance):
    x = (normal(300, 64) + 0.2).to(dtype)
    torch.testing.assert_close(uniformity(x, tile=50), all_pairs(x), rtol=tolerance, atol=tolerance)


def test_known_values():
    assert uniformity(torch.ones(9, 4)) == pytest.approx(0, abs=1e-6)
    assert uniformity(torch.tensor([[1.0, 0.0], [-3.0, 0.0]])) == pytest.approx(-8)  # opposite: ||x - y||^2 = 4
    spread = uniformity(normal(4000, 512))
    # Of the uniform distribution on the sphere: E exp(2 t cos) in many dimensions is exp(2 t^2 / D).
    assert spread == pytest.approx(-4 + 8 / 512, abs=2e-3)
    assert uniformity(torch.zeros(5, 3)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_lengths_do_not_matter(scale):
    x = normal(40, 6).float()
    torch.testing.assert_close(uniformity(x * scale), uniformity(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("t", [2.0, 500.0])
def test_what_has_no_answer_is_nan(bad, t):
    x = normal(20, 4)
    x[13, 1] = bad
    assert uniformity(x, t, tile=8).isnan()
    assert uniformity(x[:1]).isnan()
    assert uniformity(x[:0]).isnan()
    assert alignment(x, x).isnan()
    assert alignment(x[:0], x[:0]).isnan()


def test_alignment_is_the_mean_power_of_the_distance():
    x, y = normal(5000, 3), normal(5000, 3, seed=1)
    unit = [v / v.norm(dim=1, keepdim=True) for v in (x, y)]
    for alpha in (1.0, 2.0, 3.0):
        assert alignment(x, y, alpha) == pytest.approx((unit[0] - unit[1]).norm(dim=1).pow(alpha).mean().item())
    assert alignment(x, y, normalize=False) == pytest.approx((x - y).square().sum(1).mean().item())
    assert alignment(x.half(), x.half()) == 0
    assert alignment(x.float(), y.float()) == pytest.approx(alignment(x.float().double(), y.float().double()).item(), rel=1e-12)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"x must be floating-point \[N, D\], got torch.int64 \[3, 3\]"):
        uniformity(torch.eye(3).long())
    with pytest.raises(ValueError, match="t and tile must be positive, got 0"):
        uniformity(torch.eye(3), 0)
    with pytest.raises(ValueError, match=r"one shape \[N, D\], got torch.float32 \[3, 3\] and torch.float32 \[2, 2\]"):
        alignment(torch.eye(3), torch.eye(2))
    with pytest.raises(ValueError, match="alpha must be positive"):
        alignment(torch.eye(3), torch.eye(3), -1)
