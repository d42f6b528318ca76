"""Features exactly at the threshold are not active, and a hair above it they are: on every instruction set, for every
dtype, against whole numbers that do not round."""

import numpy as np
import pytest
import torch

import ssl_kernels
from tests.conftest import available_isas
from tests.ops import exact

ops = torch.ops.sslk
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def tied_rows(eps: int, dtype: torch.dtype, seed: int = 0) -> list[torch.Tensor]:
    """Matrices in which elements lie exactly eps deviations from the mean, by construction or often."""
    rng = np.random.default_rng((eps, seed))
    rows = []
    for k in (1, 2, 3, 5):  # k of D at one value: (D - k) / k = eps^2
        d = k * (eps * eps + 1)
        high = torch.from_numpy(rng.uniform(0.001, 2000.0, (16, 1)))
        low = torch.from_numpy(rng.choice([0.0, 1.0, -3.0, 0.1], (16, 1))) * high
        order = torch.from_numpy(rng.permuted(np.tile(np.arange(d), (16, 1)), axis=1))
        rows += [torch.where(order < k, high, low), torch.where(order < k, low, high)]
    for d in (3, 10, 17, 64, 251):  # small whole numbers: some of the sums are squares
        rows.append(torch.from_numpy(rng.integers(-3, 4, (16, d))).double())
    # A tie and its two neighbours: the smallest change of one element decides.
    one = torch.zeros(3, eps * eps + 1, dtype=torch.float64)
    one[:, 1] = 1.0
    one[1, 0], one[2, 0] = 2.0**-8, -(2.0**-8)
    rows.append(one)
    return [h.to(dtype) for h in rows]


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("eps", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", DTYPES)
def test_ties_are_decided_exactly(isa, dtype, eps, two_sided):
    ties = 0
    for h in tied_rows(eps, dtype):
        expected = exact.active_set(h, eps, two_sided)
        assert torch.equal(ops.activating_mask(h, eps, two_sided), expected)
        features, counts = ops.activation_counts(h, eps, two_sided)
        assert torch.equal(features, expected.sum(0)) and torch.equal(counts, expected.sum(1).int())
        everything = torch.ones(h.shape[1], dtype=torch.bool)
        q, counts = ops.qscore_counts(h, everything, float(eps), False, two_sided)
        assert torch.equal(counts, expected.sum(1).int())
        assert torch.equal(q == 0, ~expected.any(1))
        assert torch.equal(ops.qscore(h, everything, float(eps), False, two_sided) == 0, ~expected.any(1))
        # The gradient belongs to the same set: nothing of a row without an active feature.
        gradient = ops.qscore_backward(torch.ones_like(q), h, everything, float(eps), False, two_sided)
        assert torch.equal((gradient != 0).any(1), expected.any(1) & (expected.sum(1) < h.shape[1]))
        wide = h.double()
        distance = (wide - wide.mean(1, keepdim=True)).abs() - eps * wide.std(1, correction=0, keepdim=True)
        ties += int((distance.abs() < 1e-9 * wide.abs().amax(1, keepdim=True)).sum())
    assert ties > 100  # the constructions do what they say


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_hot_rows_at_the_bound_have_no_active_feature(isa, dtype):
    """No element of D lies more than sqrt(D - 1) deviations from the mean; that of a one-hot row lies just there."""
    values = torch.randn(24000, generator=torch.Generator().manual_seed(0)).abs().add(0.01).to(dtype)
    h = torch.zeros(24000, 17, dtype=dtype)
    h[torch.arange(24000), torch.arange(24000) % 17] = values
    assert not ops.activating_mask(h, 4.0).any()
    assert ops.activating_mask(h, 4.0 - 2.0**-40).sum() == 24000


@pytest.mark.parametrize("two_sided", [False, True])
def test_a_threshold_of_no_deviation_is_the_mean_itself(isa, two_sided):
    rows = [[0.1] * 3 + [0.3], [1.0, 2.0, 3.0], [1e-300, 2e-300, 3e-300], [-(2.0**1000), 0.0, 2.0**1000], [0.7] * 9]
    rows += [[1e16, 1.0, -1e16, 1.0], [5e-324, 0.0, 5e-324, 0.0, 5e-324], [1.0, 1.0 + 2.0**-52, 1.0 + 2.0**-51]]
    for row in rows:
        for eps in (0.0, 5e-324, 1e300, 2.0**-30, float("inf")):
            expected = exact.active_row(row, eps, two_sided) if eps < float("inf") else [False] * len(row)
            found = ops.activating_mask(torch.tensor([row], dtype=torch.float64), eps, two_sided)
            assert found.tolist() == [expected], (row, eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_instruction_sets_agree_on_random_rows_of_whole_numbers(dtype):
    generator = torch.Generator().manual_seed(1)
    default = ssl_kernels.cpu_isa()
    try:
        for d in (2, 5, 10, 17, 26, 90, 513):
            h = torch.randint(0, 3, (400, d), generator=generator).to(dtype)
            for eps in (0.0, 0.5, 1.0, 2.0, 3.0):
                masks = []
                for name in available_isas():
                    ssl_kernels.set_cpu_isa(name)
                    masks.append(ops.activating_mask(h, eps))
                assert torch.equal(masks[0], exact.active_set(h, eps))
                assert all(torch.equal(mask, masks[0]) for mask in masks)
    finally:
        ssl_kernels.set_cpu_isa(default)
