"""What torch expects of an op - schema, fakes, autograd, compile, autocast, streams, threads - and bad input."""

import re
import threading

import pytest
import torch

import ssl_kernels
from ssl_kernels import reference
from tests.ops import oracle
from tests.ops.properties import given, settings, st
from tests.ops.test_rows import discriminative_mask, representations

ops = torch.ops.sslk


def calls(h, mask):
    """Arguments for every row op."""
    q, c = torch.rand(len(h), dtype=torch.float32, device=h.device), torch.rand(h.shape[1], device=h.device)
    return {
        "qscore": (h, mask, 1.0, True, False),
        "qscore_counts": (h, mask, 1.0, True, True),
        "qscore_backward": (q, h, mask, 1.0, True, False),
        "activating_mask": (h, 1.0, False),
        "activation_counts": (h, 1.0, True),
        "row_moments": (h,),
        "column_l1": (h, True),
        "column_l1_backward": (c, h, True),
        "qscore_penalty": (h, mask, 0.1, 0.1, 1.0, True, False, q.mean(), None),
        "qscore_penalty_backward": (q, c, h, mask, 1.0, True, False),
    }


OPS = list(calls(torch.rand(2, 2), torch.ones(2, dtype=torch.bool)))
DIFFERENTIABLE = ("qscore", "column_l1", "qscore_penalty")


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_opcheck(device, name, layout):
    h = representations(6, 10, device=device) if layout == "contiguous" else representations(10, 6, device=device).T
    if name in DIFFERENTIABLE:
        h.requires_grad_()
    torch.library.opcheck(getattr(ops, name).default, calls(h, discriminative_mask(10, device))[name])


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("two_sided", [False, True])
def test_gradcheck(device, normalize, two_sided):
    """In float64; the perturbation of 1e-6 moves no element across the threshold."""
    h = representations(5, 12, torch.float64, device, signed=two_sided).requires_grad_()
    mask = discriminative_mask(12, device)
    assert torch.autograd.gradcheck(lambda x: ops.qscore(x, mask, 0.7, normalize, two_sided), h)
    h = representations(5, 12, torch.float64, device, signed=True).requires_grad_()  # no zeros: |x| is smooth
    assert torch.autograd.gradcheck(lambda x: ops.column_l1(x, normalize), h)
    assert torch.autograd.gradcheck(lambda x: ops.qscore_penalty(x, mask, 0.3, 0.1, 0.7, normalize, two_sided, None, None), h)


@pytest.mark.parametrize("name", OPS)
def test_compiles_without_graph_breaks(name):
    arguments = calls(representations(20, 33), discriminative_mask(33))[name]
    torch._dynamo.reset()
    compiled = torch.compile(lambda *a: getattr(ops, name)(*a), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*arguments), getattr(ops, name)(*arguments), equal_nan=True)


def test_training_step_compiles_with_inductor():
    regularise = torch.compile(lambda h, m: ops.qscore_penalty(h * 2.0, m, 0.1, 0.1, 1.0)[0] + h.mean(), fullgraph=True)
    h, mask = representations(20, 33).requires_grad_(), discriminative_mask(33)
    (grad,) = torch.autograd.grad(regularise(h, mask), h)
    (expected,) = torch.autograd.grad(ops.qscore_penalty(h * 2.0, mask, 0.1, 0.1, 1.0)[0] + h.mean(), h)
    torch.testing.assert_close(grad, expected)


def test_autocast_takes_half_inputs_and_returns_float32(device):
    encoder = torch.nn.Linear(8, 64, device=device)
    mask = torch.ones(64, dtype=torch.bool, device=device)
    with torch.autocast(device, torch.bfloat16):
        h = encoder(torch.randn(16, 8, device=device))
        loss, q, columns = ops.qscore_penalty(h, mask, 0.1, 0.1, 1.0)
    assert h.dtype == torch.bfloat16 and {loss.dtype, q.dtype, columns.dtype} == {torch.float32}
    loss.backward()
    assert encoder.weight.grad.isfinite().all() and encoder.weight.grad.abs().max() > 0


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("normalize", [True, False])
def test_reference_equals_the_oracle(normalize, two_sided):
    h = representations(20, 77, torch.float64, signed=two_sided)
    mask = discriminative_mask(77)
    assert torch.equal(reference.activating_mask(h, 1.3, two_sided), oracle.active_set(h, 1.3, two_sided))
    torch.testing.assert_close(
        reference.qscore(h, mask, 1.3, normalize, two_sided), oracle.scores(h, mask, 1.3, normalize, two_sided)
    )
    torch.testing.assert_close(reference.column_l1(h, normalize), oracle.column_norms(h, normalize))
    grad = torch.rand(20, dtype=torch.float64)
    torch.testing.assert_close(
        reference.qscore_backward(grad, h, mask, 1.3, normalize, two_sided),
        oracle.score_gradient(grad, h, mask, 1.3, normalize, two_sided),
    )


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 12),
    columns=st.integers(2, 150),
    seed=st.integers(0, 10**6),
    eps=st.sampled_from([0.5, 1.0, 2.0, 3.5]),
    exponent=st.integers(-60, 60),
    two_sided=st.booleans(),
)
def test_invariances(rows, columns, seed, eps, exponent, two_sided):
    """Positive scaling changes neither sets nor normalised scores; permuting features permutes the sets; counts add."""
    h = representations(rows, columns, seed=seed, signed=two_sided)
    mask = torch.rand(columns, generator=torch.Generator().manual_seed(seed)) < 0.5
    active = ops.activating_mask(h, eps, two_sided)
    assert torch.equal(ops.activating_mask(h * 2.0**exponent, eps, two_sided), active)
    if exponent > -30:  # below, the norm meets its floor of 1e-12
        torch.testing.assert_close(
            ops.qscore(h * 2.0**exponent, mask, eps, True, two_sided), ops.qscore(h, mask, eps, True, two_sided)
        )
    order = torch.randperm(columns, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(ops.activating_mask(h[:, order], eps, two_sided), active[:, order])
    cut = seed % (rows + 1)
    whole = ops.activation_counts(h, eps, two_sided)[0]
    assert torch.equal(
        ops.activation_counts(h[:cut], eps, two_sided)[0] + ops.activation_counts(h[cut:], eps, two_sided)[0], whole
    )


def test_two_threads_call_every_op_at_once():
    h, mask = representations(400, 130), discriminative_mask(130)
    arguments = calls(h, mask)
    expected = {name: getattr(ops, name)(*arguments[name]) for name in OPS}
    failures = []

    def work():
        try:
            for _ in range(20):
                for name in OPS:
                    torch.testing.assert_close(getattr(ops, name)(*arguments[name]), expected[name], rtol=0, atol=0)
        except AssertionError as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", OPS)
def test_runs_on_the_current_stream(name):
    """The op must see what an earlier kernel of the same stream wrote."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        h = representations(64, 100, device="cpu").to("cuda", non_blocking=True) * 1.0
        result = getattr(ops, name)(*calls(h, discriminative_mask(100, "cuda"))[name])
    stream.synchronize()
    arguments = calls(h, discriminative_mask(100, "cuda"))[name]
    if name not in ("qscore_backward", "column_l1_backward", "qscore_penalty_backward", "qscore_penalty"):
        torch.testing.assert_close(result, getattr(ops, name)(*arguments), equal_nan=True)


H = torch.rand(4, 8)
M = torch.ones(8, dtype=torch.bool)
BAD_INPUT = [
    ("qscore", (H[0], M), "h must be a matrix"),
    ("qscore", (H[None], M), "h must be a matrix"),
    ("qscore", (torch.rand(4, 0), torch.ones(0, dtype=torch.bool)), "at least one feature"),
    ("qscore", (H.long(), M), "h must be float64, float32, float16 or bfloat16, got int64"),
    ("qscore", (H, M[:5]), "discriminative must have one entry per feature, shape [8], got [5]"),
    ("qscore", (H, M[None]), "discriminative must have one entry per feature"),
    ("qscore", (H, M.float()), "discriminative must be a bool mask, got float32"),
    ("qscore", (H, M, -1.0), "eps must be zero or positive, got -1"),
    ("qscore", (H, M, float("nan")), "eps must be zero or positive"),
    ("qscore_backward", (torch.rand(3), H, M, 4.0, True, False), "grad must have shape [4], got [3]"),
    ("qscore_backward", (torch.rand(4).double(), H, M, 4.0, True, False), "grad must be float32 for h of float32"),
    ("activating_mask", (H[0],), "h must be a matrix"),
    ("activating_mask", (H.int(),), "h must be float64"),
    ("activating_mask", (H, -0.5), "eps must be zero or positive"),
    ("activation_counts", (torch.rand(4, 0),), "at least one feature"),
    ("activation_counts", (H.bool(),), "h must be float64"),
    ("row_moments", (H[0],), "h must be a matrix"),
    ("row_moments", (H.long(),), "h must be float64"),
    ("column_l1", (torch.rand(4, 0),), "at least one feature"),
    ("column_l1", (H[0],), "h must be a matrix"),
    ("column_l1_backward", (torch.rand(4), H, True), "grad must have shape [8], got [4]"),
    ("qscore_penalty", (H, M[:3]), "discriminative must have one entry per feature"),
    ("qscore_penalty", (H, M, -1.0), "lambda1 must be zero or positive"),
    ("qscore_penalty", (H, M, 1.0, -1.0), "lambda2 must be zero or positive"),
    ("qscore_penalty", (H, M, 1.0, 1.0, 4.0, True, False, torch.rand(2)), "alpha must hold one number"),
    ("qscore_penalty", (H, M, 1.0, 1.0, 4.0, True, False, None, torch.rand(1).double()), "beta must be float32"),
    ("qscore_penalty_backward", (torch.rand(4), torch.rand(4), H, M, 4.0, True, False), "grad_column_l1 must have"),
]


@pytest.mark.parametrize(("name", "arguments", "message"), BAD_INPUT)
def test_bad_input_is_refused_in_one_sentence(name, arguments, message):
    with pytest.raises(RuntimeError, match=re.escape(message)) as caught:
        getattr(ops, name)(*arguments)
    assert f"sslk::{name}" in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_documented_functions_are_the_ops():
    h, mask = representations(10, 20), discriminative_mask(20)
    for name in ("qscore", "qscore_counts", "activating_mask", "activation_counts", "row_moments", "column_l1", "qscore_penalty"):
        arguments = calls(h, mask)[name]
        torch.testing.assert_close(getattr(ssl_kernels, name)(*arguments), getattr(ops, name)(*arguments))


def test_unknown_cpu_build_is_refused():
    with pytest.raises(ValueError, match="must be baseline, avx2 or avx512"):
        ssl_kernels.set_cpu_isa("mmx")


def test_every_byte_but_zero_is_in_the_set(device, isa):
    """A bool tensor made by a view of bytes may hold 2 or 255; torch itself takes them for true."""
    raw = torch.tensor([0, 1, 2, 128, 255, 0, 254], dtype=torch.uint8).repeat(11).to(device)
    h = representations(20, 77, device=device)
    grad = torch.rand(20, device=device)
    for set_of, clean in ((raw.view(torch.bool), raw != 0),):
        assert torch.equal(ops.qscore(h, set_of, 1.0), ops.qscore(h, clean, 1.0))
        gradients = [ops.qscore_backward(grad, h, m, 1.0, True, False) for m in (set_of, clean)]
        assert torch.equal(*gradients)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_gradient_of_column_norms_near_the_largest_number(device, isa, dtype):
    """The gradient of a row times a power of two is the gradient divided by it."""
    factor = 2.0 ** (1018 if dtype == torch.float64 else 122)
    h = torch.randn(3, 700, generator=torch.Generator().manual_seed(0)).clamp(-8, 8).to(device, dtype)
    scores = torch.float64 if dtype == torch.float64 else torch.float32
    grad = torch.linspace(50, 150, 700, device=device, dtype=scores)
    found = torch.ops.sslk.column_l1_backward(grad, h * factor, True).double() * factor
    expected = torch.ops.sslk.column_l1_backward(grad, h, True).double()
    assert ((found - expected).abs() <= 0.02 * expected.abs().max()).all()  # of numbers near the smallest of the type


@pytest.mark.parametrize("d", [60, 1500])
def test_scores_of_deviations_beyond_the_largest_number(device, isa, d):
    """A deviation of nearly twice the largest element is no number; divided by the norm of the row it is one."""
    h = -torch.ones(3, d, dtype=torch.float64, device=device)
    h[:, ::5] = 1.0
    chosen = torch.ones(d, dtype=torch.bool, device=device)
    expected, found = (torch.ops.sslk.qscore(h * factor, chosen, 1.0) for factor in (1.0, 1.9 * 2.0**1023))
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("two_sided", [False, True])
def test_norms_and_sums_beyond_the_largest_number(device, isa, two_sided):
    """639 elements near it: |h| and their sum are no float64 any more, the score and every share of |h| are."""
    factor = 2.0**1021
    h = (torch.arange(1183, device=device) % 13 < 7).double().expand(3, -1) * torch.tensor([[1.0], [-1.0], [1.5]], device=device)
    discriminative = torch.arange(1183, device=device) % 2 == 0
    ops = torch.ops.sslk
    for normalize in (True, False):
        arguments = (discriminative, 0.5, normalize, two_sided)
        expected = ops.qscore(h, *arguments) * (1.0 if normalize else factor)
        torch.testing.assert_close(ops.qscore(h * factor, *arguments), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(ops.column_l1(h * factor, True), ops.column_l1(h, True), rtol=1e-12, atol=0)
    wide = {"dtype": torch.float64, "device": device}
    grad_q, grad_c = torch.ones(3, **wide), torch.linspace(50, 150, 1183, **wide)
    found = ops.qscore_penalty_backward(grad_q, grad_c, h * factor, discriminative, 0.5, True, two_sided) * factor
    expected = ops.qscore_penalty_backward(grad_q, grad_c, h, discriminative, 0.5, True, two_sided)
    assert ((found - expected).abs() <= 1e-6 * expected.abs().max()).all()  # of numbers near the smallest of the type


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_equal_column_norms_lie_neither_above_nor_below_their_mean(device, isa, dtype):
    """The rounding of the mean decides in neither the loss nor its gradient, which it used to decide differently."""
    for d in range(2, 40):
        h = torch.rand(5, 1, generator=torch.Generator().manual_seed(d)).to(device, dtype).expand(-1, d)
        leaf = h.clone().requires_grad_()
        everything = torch.ones(d, dtype=torch.bool, device=device)
        loss, _, _ = torch.ops.sslk.qscore_penalty(leaf, everything, 0.0, 1.0, 1.0, False)
        loss.backward()
        assert loss == 0
        assert not leaf.grad.any()


def test_penalty_of_sums_beyond_the_largest_number(device, isa):
    """The sum of the column norms is no float64 any more; their mean is, and 1e-3 of the sum of those above it."""
    factor = 2.0**1021
    h = torch.rand(3, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(device)
    discriminative = torch.arange(200, device=device) % 2 == 0
    results = []
    for x in (h, h * factor):
        leaf = x.clone().requires_grad_()
        loss, _, _ = torch.ops.sslk.qscore_penalty(leaf, discriminative, 1e-3, 1e-3, 1.0, False)
        loss.backward()
        results.append((loss.detach(), leaf.grad))
    torch.testing.assert_close(results[1][0], results[0][0] * factor, rtol=1e-12, atol=0)
    torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-12, atol=0)
