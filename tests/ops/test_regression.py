"""sparse_softmax_sgd_ against dense float64 arithmetic written from the equations, under every CPU build."""

import numpy as np
import pytest
import torch

import ssl_kernels
from ssl_kernels import reference
from tests.conftest import DEVICES
from tests.ops.properties import given, settings, st

ops = torch.ops.sslk
NAMES = ("weight", "bias", "weight_velocity", "bias_velocity", "columns", "offsets", "target", "index")
SGD = {"learning_rate": 0.7, "momentum": 0.9, "weight_decay": 3e-3}


def problem(rows, concepts, classes, width=None, ones=5, dtype=torch.float32, seed=0, device="cpu", scale=1.0):
    """Weights and velocities that are not zero, and rows of 0 to 2 `ones` columns, some of them named twice."""
    generator = torch.Generator().manual_seed(seed)
    width = classes if width is None else width
    tiles = -(-classes // width)
    counts = torch.randint(2 * ones + 1, (rows,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    columns = torch.randint(concepts, (int(offsets[-1]),), generator=generator, dtype=torch.int32)
    state = [scale * torch.randn(shape, generator=generator) for shape in ((tiles, concepts, width), (classes,)) * 2]
    target = torch.randint(classes, (rows,), generator=generator)
    index = torch.randperm(rows, generator=generator)
    return (
        *(tensor.to(dtype).to(device) for tensor in state),
        *(tensor.to(device) for tensor in (columns, offsets, target, index)),
    )


def oracle(weight, bias, weight_velocity, bias_velocity, columns, offsets, target, index, lr, momentum, decay):
    """Loss, weights, biases and velocities after the step, float64, `[M, K]` and `[K]`."""
    k = len(bias)
    w, b, vw, vb = (np.asarray(t.cpu().double()) for t in (weight, bias, weight_velocity, bias_velocity))
    w, vw = (np.concatenate(list(tiles), axis=1)[:, :k] for tiles in (w, vw))
    gw, gb, loss = np.zeros_like(w), np.zeros_like(b), 0.0
    for i in index.tolist():
        ones = columns[int(offsets[i]) : int(offsets[i + 1])].tolist()
        logits = b + sum((w[m] for m in ones), np.zeros(k))
        logits -= logits.max()
        total = np.exp(logits).sum()
        loss += np.log(total) - logits[int(target[i])]
        p = np.exp(logits) / total
        p[int(target[i])] -= 1
        for m in ones:
            gw[m] += p / len(index)
        gb += p / len(index)
    vw, vb = momentum * vw + gw + decay * w, momentum * vb + gb + decay * b
    return loss, w - lr * vw, b - lr * vb, vw, vb


def check(arguments, lr=0.7, momentum=0.9, decay=3e-3):
    expected = oracle(*arguments, lr, momentum, decay)
    loss = ops.sparse_softmax_sgd_(*arguments, lr, momentum, decay)
    wide = arguments[0].dtype == torch.float64
    k = len(arguments[1])
    flat = [torch.cat(list(t), 1)[:, :k] if t.dim() == 3 else t for t in arguments[:4]]
    assert loss.dtype == torch.float64 and loss.shape == ()
    # A row's loss is a difference of logits, each of them rounded.
    assert float(loss) == pytest.approx(expected[0], rel=1e-12 if wide else 2e-6, abs=1e-13 if wide else 2e-6)
    for found, wanted in zip(flat, expected[1:], strict=True):
        # Sums of up to a few hundred terms of order 1.
        torch.testing.assert_close(
            found.cpu().double(), torch.from_numpy(wanted), rtol=1e-12 if wide else 2e-6, atol=1e-13 if wide else 2e-5
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("rows", "concepts", "classes", "width"),
    [
        (1, 1, 1, 1),
        (7, 3, 2, 2),
        (40, 23, 7, 16),
        (65, 19, 64, 64),
        (33, 11, 100, 64),
        (50, 30, 130, 112),  # two tiles of two strips each, the last strip narrow
        (20, 9, 131, 131),
        (19, 50, 1000, 64),  # 16 strips
        (9, 13, 1090, 64),  # more strips than a vector has lanes
    ],
)
def test_equals_the_equations(device, isa, dtype, rows, concepts, classes, width):
    check(problem(rows, concepts, classes, width, dtype=dtype, device=device))


def test_reference_equals_the_equations():
    arguments = problem(30, 12, 100, 64, dtype=torch.float64)
    expected = oracle(*arguments, 0.7, 0.9, 3e-3)
    assert float(reference.sparse_softmax_sgd_(*arguments, **SGD)) == pytest.approx(expected[0], rel=1e-12)
    found = torch.cat(list(arguments[0]), 1)[:, :100]
    torch.testing.assert_close(found, torch.from_numpy(expected[1]), rtol=1e-12, atol=1e-13)


def test_many_steps_equal_torch_sgd(isa):
    """From zero, with batches of a few rows of the table: the loop that users write on nn.Linear."""
    rows, concepts, classes = 90, 17, 70
    *_, columns, offsets, target, _ = problem(rows, concepts, classes)
    dense = torch.zeros(rows, concepts, dtype=torch.float64)
    row = torch.repeat_interleave(torch.arange(rows), offsets.diff())
    dense.index_put_((row, columns.long()), torch.ones(len(row), dtype=torch.float64), accumulate=True)
    linear = torch.nn.Linear(concepts, classes, dtype=torch.float64)
    for parameter in linear.parameters():
        torch.nn.init.zeros_(parameter)
    optimiser = torch.optim.SGD(linear.parameters(), lr=0.7, momentum=0.9, weight_decay=3e-3)
    shapes = ((2, concepts, 64), (classes,)) * 2
    state = [torch.zeros(shape) for shape in shapes]
    for index in torch.randperm(rows, generator=torch.Generator().manual_seed(1)).split(16) * 3:
        loss = torch.nn.functional.cross_entropy(linear(dense[index]), target[index], reduction="sum")
        optimiser.zero_grad()
        (loss / len(index)).backward()
        optimiser.step()
        found = ops.sparse_softmax_sgd_(*state, columns, offsets, target, index, **SGD)
        assert float(found) == pytest.approx(loss.item(), rel=1e-6)
    weight = torch.cat(list(state[0]), 1)[:, :classes]
    torch.testing.assert_close(weight.double(), linear.weight.detach().T, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rubbish", [1e30, float("inf"), float("nan")])
def test_tiles_and_what_lies_past_the_last_class_have_no_influence(device, isa, rubbish):
    narrow = problem(25, 8, 70, 64, device=device)
    whole = [torch.cat(list(t), 1)[None, :, :70].contiguous() if t.dim() == 3 else t.clone() for t in narrow]
    for tensor in narrow[::2][:2]:
        tensor[1, :, 6:] = rubbish  # 70 classes: 6 in the second tile
    losses = [ops.sparse_softmax_sgd_(*arguments, **SGD) for arguments in (narrow, whole)]
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-6)
    found = torch.cat(list(narrow[0]), 1)[None, :, :70]
    torch.testing.assert_close(found, whole[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 30.0, 1e4])
def test_huge_and_tiny_logits(device, isa, scale):
    """Differences of logits beyond the range of exp: probabilities are 0 and 1, not NaN."""
    arguments = problem(20, 6, 80, 64, device=device, scale=scale)
    expected = oracle(*arguments, 0.7, 0.9, 0.0)
    loss = float(ops.sparse_softmax_sgd_(*arguments, 0.7, 0.9, 0.0))
    assert loss == pytest.approx(expected[0], rel=1e-5)
    weight = torch.cat(list(arguments[0]), 1)[:, :80].cpu().double()
    torch.testing.assert_close(weight, torch.from_numpy(expected[1]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_weight_that_is_not_finite_shows_in_the_loss(device, isa, bad):
    arguments = problem(20, 4, 70, 64, device=device)
    arguments[0][1, 2, 3] = bad
    assert not np.isfinite(float(ops.sparse_softmax_sgd_(*arguments, **SGD)))


def test_exponentials_are_accurate(isa):
    """Two classes with known logits: the error of the second is its probability, exp(-x) / (1 + exp(-x))."""
    x = torch.linspace(0, 86, 20_001, dtype=torch.float64).float()
    offsets = torch.arange(2)
    for value in x[::50].tolist():
        state = [torch.zeros(1, 1, 2), torch.tensor([0.0, -value]), torch.zeros(1, 1, 2), torch.zeros(2)]
        zero = torch.zeros(1, dtype=torch.int64)
        ops.sparse_softmax_sgd_(*state, zero.int(), offsets, zero, zero, 1.0)
        expected = np.exp(-np.float64(np.float32(value)))
        assert float(state[3][1]) == pytest.approx(expected / (1 + expected), rel=4e-7)


def test_the_number_of_threads_changes_nothing():
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            arguments = problem(300, 40, 500, 64)
            results.append((ops.sparse_softmax_sgd_(*arguments, **SGD), *arguments[:4]))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_an_empty_batch_changes_nothing_and_rows_may_repeat(device):
    arguments = problem(10, 4, 5, device=device)
    before = [tensor.clone() for tensor in arguments[:4]]
    loss = ops.sparse_softmax_sgd_(*arguments[:7], arguments[7][:0], **SGD)
    assert float(loss) == 0
    assert all(torch.equal(a, b) for a, b in zip(before, arguments[:4], strict=True))
    check((*arguments[:7], torch.tensor([3, 3, 9], device=device)))


def test_a_table_without_ones_moves_the_biases_alone(device, isa):
    arguments = problem(6, 3, 5, ones=0, device=device)
    arguments[2].zero_()
    weight = arguments[0].clone()
    ops.sparse_softmax_sgd_(*arguments, 0.5, 0.9, 0.0)
    assert torch.equal(arguments[0], weight)
    assert int(arguments[1].isfinite().sum()) == 5


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 40),
    st.integers(1, 30),
    st.integers(1, 150),
    st.integers(1, 160),
    st.integers(0, 6),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(0, 2**31),
)
def test_any_size(rows, concepts, classes, width, ones, dtype, seed):
    check(problem(rows, concepts, classes, width, ones, dtype, seed))


def test_opcheck(device):
    arguments = problem(6, 3, 5, 4, device=device)
    torch.library.opcheck(ops.sparse_softmax_sgd_.default, arguments, SGD)


def test_compiles_as_one_graph():
    a, b = problem(20, 6, 9), problem(20, 6, 9)

    def step(*arguments):
        return ssl_kernels.sparse_softmax_sgd_(*arguments, 0.5, 0.9, 1e-3) / len(arguments[-1])

    compiled = torch.compile(step, fullgraph=True)
    assert float(compiled(*a)) == float(step(*b))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def call(**changed):
    arguments = dict(zip(NAMES, problem(10, 4, 5), strict=True))
    before = [arguments[name].clone() for name in NAMES[:4]]
    arguments |= {name: change(arguments[name]) for name, change in changed.items()}
    try:
        ops.sparse_softmax_sgd_(*arguments.values(), **SGD)
    finally:
        for name, tensor in zip(NAMES[:4], before, strict=True):
            assert name in changed or torch.equal(arguments[name], tensor)


def with_value(position, value):
    def change(tensor):
        tensor[position] = value
        return tensor

    return change


# What no shape shows: CUDA finds it on the device.
OUT_OF_RANGE = [
    ("index", 2, 10, r"index must lie in \[0, 10\), the rows, got 10"),
    ("index", 2, -1, r"index must lie in \[0, 10\), the rows, got -1"),
    ("index", 2, 12, r"index must lie in \[0, 10\), the rows, got 12"),
    ("columns", 0, 4, r"columns must lie in \[0, 4\), the rows of weight, got 4"),
    ("columns", 0, -1, r"columns must lie in \[0, 4\), the rows of weight, got -1"),
    ("target", 1, 5, r"target must lie in \[0, 5\), the classes, got 5"),
    ("target", 1, -1, r"target must lie in \[0, 5\), the classes, got -1"),
    ("offsets", 3, 10_000, "offsets must not decrease and must lie in .* row [23] has"),
    ("offsets", 3, 50, "offsets must not decrease and must lie in .* row 3 has 50 and"),
    ("offsets", 10, 10_000, "offsets must not decrease and must lie in .* row 9 has .* and 10000"),
    ("offsets", 0, -5, "offsets must not decrease and must lie in .* row 0 has -5"),
]
BAD = [
    ({"weight": lambda t: t.half()}, "weight must be float32 or float64, got float16"),
    ({"weight": lambda t: t[0]}, r"weight must hold tiles of columns, \[T, M, W\] .* got shape \[4, 5\]"),
    ({"weight": lambda t: t[:, :0]}, r"weight must hold tiles .* got shape \[1, 0, 5\]"),
    ({"weight": lambda t: t.mT.contiguous().mT}, "weight is changed in place and must be contiguous, got strides"),
    ({"bias": lambda t: t[:0]}, r"bias must have one entry per class, .* got shape \[0\]"),
    ({"bias": lambda t: t.repeat(2)}, r"bias must have one entry per class, .* got shape \[10\]"),
    ({"bias": lambda t: t.double()}, "bias must have the dtype of weight, float32, got float64"),
    ({"weight_velocity": lambda t: t[:, :3]}, r"weight_velocity must have the shape of weight, \[1, 4, 5\], got"),
    ({"weight_velocity": lambda t: t.double()}, "weight_velocity must have the dtype of weight"),
    ({"bias_velocity": lambda t: t[:4]}, r"bias_velocity must have the shape of bias, \[5\], got \[4\]"),
    ({"columns": lambda t: t.long()}, "columns must be a vector of int32, got int64"),
    ({"columns": lambda t: t[::2]}, "columns must be contiguous, got strides .2."),
    ({"offsets": lambda t: t.int()}, "offsets must be a vector of int64, got int32"),
    ({"offsets": lambda t: t[:-1].contiguous()}, "offsets must have one entry more than target"),
    ({"target": lambda t: t[None]}, r"target must be a vector of int64, got int64 of shape \[1, 10\]"),
    ({"index": lambda t: t.float()}, "index must be a vector of int64, got float32"),
    *(({name: with_value(position, value)}, message) for name, position, value, message in OUT_OF_RANGE),
]


@pytest.mark.parametrize(("changed", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_names_the_argument_and_changes_nothing(changed, message):
    with pytest.raises(RuntimeError, match=message):
        call(**changed)


@pytest.mark.skipif("cuda" not in DEVICES, reason="needs a GPU")
@pytest.mark.parametrize(("name", "position", "value"), [case[:3] for case in OUT_OF_RANGE])
def test_cuda_answers_a_value_out_of_range_with_nan_and_changes_nothing(name, position, value):
    arguments = problem(10, 4, 5, device="cuda")
    arguments[NAMES.index(name)][position] = value
    before = [t.clone() for t in arguments]
    assert ops.sparse_softmax_sgd_(*arguments, **SGD).isnan()
    assert all(torch.equal(a, b) for a, b in zip(arguments, before, strict=True))


@pytest.mark.skipif("cuda" not in DEVICES, reason="needs a GPU")
def test_cuda_waits_for_nothing_and_gives_the_same_bits():
    """What waited for the device could not be captured."""
    state, again = problem(200, 40, 130, 64, device="cuda"), problem(200, 40, 130, 64, device="cuda")
    warm = [t.clone() for t in state]
    ops.sparse_softmax_sgd_(*warm, **SGD)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = ops.sparse_softmax_sgd_(*state, **SGD)
    for _ in range(3):
        graph.replay()
        assert torch.equal(loss, ops.sparse_softmax_sgd_(*again, **SGD))
    assert all(torch.equal(a, b) for a, b in zip(state, again, strict=True))


def test_autograd_sees_the_change():
    """What was saved for a gradient and then changed is refused by torch, as after any op in place."""
    arguments = problem(10, 5, 7, 4)
    versions = [t._version for t in arguments]
    ops.sparse_softmax_sgd_(*arguments, **SGD)
    assert [t._version - v for t, v in zip(arguments, versions, strict=True)] == [1] * 4 + [0] * 4
    other = torch.ones_like(arguments[0], requires_grad=True)
    product = (other * arguments[0]).sum()
    ops.sparse_softmax_sgd_(*arguments, **SGD)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()
    with torch.inference_mode():
        ops.sparse_softmax_sgd_(*[t.clone() for t in arguments], **SGD)


@pytest.mark.parametrize("place", range(4))
def test_parameters_that_require_grad_need_no_grad_mode(place):
    arguments = problem(10, 5, 7, 4)
    arguments[place].requires_grad_()
    before = arguments[place].detach().clone()
    with pytest.raises(RuntimeError, match=r"requires grad and is changed in place.*call it under torch.no_grad\(\)"):
        ops.sparse_softmax_sgd_(*arguments, **SGD)
    assert torch.equal(arguments[place], before)
    with torch.no_grad():
        ops.sparse_softmax_sgd_(*arguments, **SGD)
    assert not torch.equal(arguments[place], before)
