"""sparse_softmax_sgd_ on CUDA, run on the CPU emulator of tests/simt: the launches of the op, logic, not hardware."""

from __future__ import annotations

import ctypes
import shutil

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_kernels import reference
from tests.ops.test_regression import NAMES, OUT_OF_RANGE, oracle, problem
from tests.simt_library import emulated_kernels

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator is compiled with g++")

STEP = (0.7, 0.9, 3e-3)


@pytest.fixture(scope="session")
def simt() -> ctypes.CDLL:
    torch.set_num_threads(1)
    return emulated_kernels()


def pointers(tensors: tuple[Tensor, ...]) -> ctypes.Array:
    return (ctypes.c_void_p * len(tensors))(*(t.data_ptr() for t in tensors))


def emulated_step(simt: ctypes.CDLL, arguments: tuple[Tensor, ...]) -> Tensor:
    weight, bias, *_, columns, _, target, index = arguments
    assert all(t.is_contiguous() for t in arguments)
    sizes = (len(target), len(columns), len(index), weight.shape[1], len(bias), weight.shape[2])
    loss = torch.full((), 7.0, dtype=torch.float64)
    simt.simt_softmax_step(
        ctypes.c_bool(weight.dtype == torch.float64),
        pointers(arguments[:4]),
        pointers(arguments[4:]),
        (ctypes.c_int64 * 6)(*sizes),
        (ctypes.c_double * 3)(*STEP),
        ctypes.c_void_p(loss.data_ptr()),
    )
    return loss


def copied(arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(t.clone() for t in arguments)


def flat(state: tuple[Tensor, ...]) -> list[Tensor]:
    """The parameters in float64, without what lies past the last class."""
    return [torch.cat(list(t), 1)[:, : len(state[1])].double() if t.dim() == 3 else t.double() for t in state]


def check(simt: ctypes.CDLL, arguments: tuple[Tensor, ...]) -> None:
    wide = (*(t.double().clone() for t in arguments[:4]), *arguments[4:])
    want = reference.sparse_softmax_sgd_(*wide, *STEP)
    loss = emulated_step(simt, arguments)
    # As in tests/ops/test_regression.py: differences and sums of logits of order 1 to 10.
    relative, absolute = (1e-12, 1e-13) if arguments[0].dtype == torch.float64 else (2e-6, 2e-5)
    assert float(loss) == pytest.approx(float(want), rel=relative, abs=absolute)
    for got, expected in zip(flat(arguments[:4]), flat(wide[:4]), strict=True):
        torch.testing.assert_close(got, expected, rtol=relative, atol=absolute)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("rows", "concepts", "classes", "width"),
    [
        (1, 1, 1, 1),
        (33, 11, 100, 64),  # two tiles, the last in part
        (200, 3, 70, 64),  # concepts that a block sums together
        (200, 24, 40, 40),
        (50, 30, 131, 131),  # one class per lane
        (33, 19, 130, 47),
        (9, 70, 200, 25),  # three chunks of classes per list of rows
    ],
)
def test_equals_the_reference(simt: ctypes.CDLL, rows: int, concepts: int, classes: int, width: int, dtype: torch.dtype) -> None:
    check(simt, problem(rows, concepts, classes, width, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_concept_of_every_row_and_rows_named_twice(simt: ctypes.CDLL, dtype: torch.dtype) -> None:
    arguments = problem(90, 60, 131, 131, dtype=dtype)
    arguments[4][::2] = 7
    arguments[4][40:60] = 3
    index = torch.randint(90, (150,), generator=torch.Generator().manual_seed(1))
    check(simt, (*arguments[:7], index))


@pytest.mark.parametrize("concepts", [2, 200])  # of nearly every row; of one in 40
def test_a_batch_of_more_rows_than_a_list_or_a_read_of_bits_holds(simt: ctypes.CDLL, concepts: int) -> None:
    arguments = problem(60, concepts, 5, dtype=torch.float64)
    index = torch.randint(60, (1100,), generator=torch.Generator().manual_seed(1))
    check(simt, (*arguments[:7], index))


@pytest.mark.parametrize("scale", [1e-30, 1e4])
def test_huge_and_tiny_logits(simt: ctypes.CDLL, scale: float) -> None:
    check(simt, problem(20, 6, 80, 64, dtype=torch.float64, scale=scale))


def test_a_table_without_ones_moves_the_biases_alone(simt: ctypes.CDLL) -> None:
    check(simt, problem(6, 9, 5, ones=0))


def test_weights_that_are_not_aligned(simt: ctypes.CDLL) -> None:
    arguments = problem(20, 9, 40, 8)
    memory = torch.zeros(arguments[0].numel() + 1)
    weight = memory[1:].view(arguments[0].shape)
    weight.copy_(arguments[0])
    check(simt, (weight, *arguments[1:]))


@pytest.mark.parametrize("width", [64, 65])
def test_what_lies_past_the_last_class_has_no_influence(simt: ctypes.CDLL, width: int) -> None:
    clean = problem(25, 8, 70, width)
    broken = copied(clean)
    for tensor in broken[::2][:2]:
        tensor[1, :, 70 - width :] = torch.nan
    before = clean[0][1, :, 70 - width :].clone()
    loss = emulated_step(simt, clean)
    assert torch.equal(clean[0][1, :, 70 - width :], before)
    assert torch.equal(loss, emulated_step(simt, broken))
    assert all(torch.equal(a, b) for a, b in zip(flat(clean[:4]), flat(broken[:4]), strict=True))


def test_several_steps(simt: ctypes.CDLL) -> None:
    arguments = problem(60, 17, 70, 64, dtype=torch.float64)
    wide = copied(arguments)
    for index in torch.randperm(60, generator=torch.Generator().manual_seed(1)).split(25) * 2:
        want = reference.sparse_softmax_sgd_(*wide[:7], index, *STEP)
        assert float(emulated_step(simt, (*arguments[:7], index))) == pytest.approx(float(want), rel=1e-11)
    for got, expected in zip(flat(arguments[:4]), flat(wide[:4]), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_reach_the_rows_that_show_them(simt: ctypes.CDLL, bad: float) -> None:
    arguments = problem(20, 40, 70, 64, ones=2, dtype=torch.float64)
    arguments[0][1, 2, 3] = bad
    with np.errstate(invalid="ignore"):
        want = oracle(*arguments, *STEP)
    assert not np.isnan(want[1]).all()
    loss = emulated_step(simt, arguments)
    assert float(loss) == pytest.approx(want[0], rel=1e-12, nan_ok=True)
    for got, expected in zip(flat(arguments[:4]), want[1:], strict=True):
        torch.testing.assert_close(got, torch.from_numpy(expected), rtol=1e-12, atol=1e-13, equal_nan=True)


def among_zeros(t: Tensor) -> Tensor:
    """A copy between zeros, which are valid values: what reads past an end does not notice."""
    return torch.cat([t.new_zeros(12_000), t, t.new_zeros(12_000)])[12_000 : 12_000 + len(t)]


@pytest.mark.parametrize(("name", "position", "value"), [case[:3] for case in OUT_OF_RANGE])
def test_a_value_out_of_range_makes_the_loss_nan_and_changes_nothing(
    simt: ctypes.CDLL, name: str, position: int, value: int
) -> None:
    good = problem(10, 4, 5)
    bad = (*copied(good[:4]), *(among_zeros(t) for t in good[4:]))
    bad[NAMES.index(name)][position] = value
    before = copied(bad)
    assert emulated_step(simt, bad).isnan()
    assert all(torch.equal(a, b) for a, b in zip(before, bad, strict=True))
    check(simt, good)


def test_every_run_gives_the_same_bits(simt: ctypes.CDLL) -> None:
    """The emulator runs threads in another order each time."""
    arguments = problem(150, 12, 70, 64)
    again = copied(arguments)
    assert torch.equal(emulated_step(simt, arguments), emulated_step(simt, again))
    assert all(torch.equal(a, b) for a, b in zip(arguments, again, strict=True))
