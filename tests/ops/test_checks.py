"""Fakes refuse what kernels refuse, in the same words: over a bad value of every argument of every op."""

import inspect

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ssl_kernels import checks

ops = torch.ops.sslk

H, M = torch.rand(4, 8), torch.ones(8, dtype=torch.bool)
X, IMAGES, HEAT = torch.rand(3, 6, 5), torch.rand(2, 3, 4, 5), torch.rand(2, 4, 5)
OBJECT = torch.ones(2, 4, 5, dtype=torch.bool)
SCORED = {"h": H, "discriminative": M, "eps": 1.0, "normalize": True, "two_sided": False}


def good(name):
    """Arguments that the op takes."""
    sgd = {
        "weight": torch.zeros(2, 3, 4),
        "bias": torch.zeros(7),
        "weight_velocity": torch.zeros(2, 3, 4),
        "bias_velocity": torch.zeros(7),
        "columns": torch.zeros(2, dtype=torch.int32),
        "offsets": torch.tensor([0, 1, 2]),
        "target": torch.tensor([0, 1]),
        "index": torch.tensor([0]),
        "learning_rate": 0.1,
    }
    return {
        "qscore": SCORED,
        "qscore_counts": SCORED,
        "qscore_backward": SCORED | {"grad": torch.rand(4)},
        "activating_mask": {"h": H, "eps": 1.0},
        "activation_counts": {"h": H, "eps": 1.0},
        "row_moments": {"h": H},
        "column_l1": {"h": H},
        "column_l1_backward": {"grad": torch.rand(8), "h": H, "normalize": True},
        "qscore_penalty": SCORED | {"lambda1": 0.1, "lambda2": 0.1, "alpha": torch.rand(1), "beta": torch.rand(())},
        "qscore_penalty_backward": SCORED | {"grad_q": torch.rand(4), "grad_column_l1": torch.rand(8)},
        "masked_variants": {
            "images": IMAGES,
            "foreground": OBJECT,
            "mean": [0.5] * 3,
            "std": [0.2] * 3,
            "variants": [0, 1],
            "radius": None,
            "dtype": None,
        },
        "circular_mask": {"height": 3, "width": 4},
        "heatmap_iou": {"heat": HEAT, "mask": OBJECT, "threshold": 0.0},
        "linear_cka": {"x": X, "y": X.clone(), "debiased": True},
        "linear_cka_backward": {"grad": torch.rand(3), "x": X, "y": X.clone(), "debiased": True},
        "cka_matrix": {"x": X, "debiased": True},
        "cka_matrix_backward": {"grad": torch.rand(3, 3), "x": X, "debiased": True},
        "cca_matrix": {"x": X, "rtol": None, "ridge": 0.0},
        "kmeans_assign": {"x": H, "centroids": torch.rand(2, 8)},
        "sparse_softmax_sgd_": sgd,
    }[name]


def bad_rows():
    """(op, what to put in place of good arguments): every kind of fault of every argument."""
    scored = ("qscore", "qscore_counts", "qscore_backward", "qscore_penalty", "qscore_penalty_backward")
    for name in (*scored, "activating_mask", "activation_counts", "row_moments", "column_l1", "column_l1_backward"):
        for h in (H[0], torch.rand(4, 0), H.long(), H.to(torch.complex64), H.to(torch.uint16), H.to(torch.float8_e5m2)):
            yield name, {"h": h}
    for name in scored:
        for mask in (M.float(), M[:5], M[None], None):
            yield name, {"discriminative": mask}
    for name in (*scored, "activating_mask", "activation_counts"):
        for eps in (-1.0, float("nan"), -float("inf"), -1234567.0):
            yield name, {"eps": eps}
    for name, grads in (
        ("qscore_backward", {"grad": 4}),
        ("column_l1_backward", {"grad": 8}),
        ("qscore_penalty_backward", {"grad_q": 4, "grad_column_l1": 8}),
    ):
        for grad, size in grads.items():
            for value in (torch.rand(size + 1), torch.rand(size, 1), torch.rand(size).double()):
                yield name, {grad: value}
    for name in ("lambda1", "lambda2"):
        yield "qscore_penalty", {name: -0.25}
        yield "qscore_penalty", {name: float("nan")}
    for name in ("alpha", "beta"):
        for value in (torch.rand(2), torch.rand(1).double(), torch.rand(0)):
            yield "qscore_penalty", {name: value}
    for images in (IMAGES[0], IMAGES.long(), IMAGES.int()):
        yield "masked_variants", {"images": images}
    for key, values in {
        "mean": ([0.5],),
        "std": ([0.5] * 4, [0.2, 0.0, 0.2], [0.2, -1.5, 0.2]),
        "variants": ([], [5], [-1]),
        "radius": (-1.0, float("nan"), float("inf")),
        "dtype": (torch.float64, torch.int32),
        "foreground": (None, OBJECT.float(), OBJECT[:1], OBJECT[:, :2], OBJECT[..., :2], OBJECT[0]),
    }.items():
        for value in values:
            yield "masked_variants", {key: value}
    for key, value in (("height", -1), ("width", -7), ("radius", -2.5)):
        yield "circular_mask", {key: value}
    for heat in (HEAT[0], HEAT.long()):
        yield "heatmap_iou", {"heat": heat}
    for mask in (OBJECT.byte(), OBJECT[:1], OBJECT[..., :2], OBJECT[0], None):
        yield "heatmap_iou", {"mask": mask}
    yield "heatmap_iou", {"threshold": float("nan")}
    for name in ("linear_cka", "linear_cka_backward", "cka_matrix", "cka_matrix_backward", "cca_matrix"):
        for x in (X[0], X[..., :0], X.long()):
            yield name, {"x": x}
    for name in ("linear_cka", "linear_cka_backward"):
        for y in (X[0], X[..., :0], X.long(), X[:2], X[:, :5], X.double()):
            yield name, {"y": y}
        yield name, {"x": X[:, :3], "y": X[:, :3]}
        yield name, {"x": X[:, :1], "y": X[:, :1], "debiased": False}
    for name in ("cka_matrix", "cka_matrix_backward"):
        yield name, {"x": X[:, :3]}
        yield name, {"x": X[:, :1], "debiased": False}
    for grad in (torch.rand(2), torch.rand(3, 1), torch.rand(3).double()):
        yield "linear_cka_backward", {"grad": grad}
    for grad in (torch.rand(3), torch.rand(2, 3), torch.rand(3, 2), torch.rand(3, 3).half()):
        yield "cka_matrix_backward", {"grad": grad}
    yield "cca_matrix", {"x": X[:, :1]}
    for rtol in (-0.5, 1.0, float("nan")):
        yield "cca_matrix", {"rtol": rtol}
    for ridge in (-1.0, float("inf"), float("nan")):
        yield "cca_matrix", {"ridge": ridge}
    for x in (H[0], torch.rand(4, 0), H.long()):
        yield "kmeans_assign", {"x": x}
    for c in (H[0], H[:, :3], H[:0], H[:1].expand(2**31, 8), H.double()):
        yield "kmeans_assign", {"centroids": c}
    yield from bad_steps()


def bad_steps():
    weight = torch.zeros(2, 3, 4)
    for w in (weight.half(), weight[0], weight[:0], torch.zeros(1, 1, 1).expand(1, 2**31, 1), weight.mT):
        yield "sparse_softmax_sgd_", {"weight": w}
    strided = torch.zeros(2, 4, 3).mT
    yield "sparse_softmax_sgd_", {"weight": strided}
    for bias in (torch.zeros(4), torch.zeros(9), torch.zeros(7, 1), torch.zeros(7).double(), torch.zeros(14)[::2]):
        velocity = torch.zeros(bias.shape)
        yield "sparse_softmax_sgd_", {"bias": bias, "bias_velocity": velocity}
    for v in (weight[0], weight[:1], weight.double(), strided):
        yield "sparse_softmax_sgd_", {"weight_velocity": v}
    for v in (torch.zeros(6), torch.zeros(7).double(), torch.zeros(14)[::2]):
        yield "sparse_softmax_sgd_", {"bias_velocity": v}
    for name in ("columns", "offsets", "target", "index"):
        t = good("sparse_softmax_sgd_")[name]
        for value in (t[None], t.short(), t.repeat(2).repeat_interleave(2)[::2]):
            yield "sparse_softmax_sgd_", {name: value}
    yield "sparse_softmax_sgd_", {"offsets": torch.tensor([0, 1])}
    for name in ("learning_rate", "momentum", "weight_decay"):
        for number in (-1.0, float("nan"), float("inf")):
            yield "sparse_softmax_sgd_", {name: number}
    # Memory in common: a velocity that is the weight, one that overlaps it, indices that a weight would overwrite.
    memory = torch.zeros(100)
    parts = {"weight": memory[:24].view(2, 3, 4), "weight_velocity": memory[20:44].view(2, 3, 4)}
    yield "sparse_softmax_sgd_", {"weight": weight, "weight_velocity": weight}
    yield "sparse_softmax_sgd_", parts
    yield "sparse_softmax_sgd_", {"weight": parts["weight"], "bias": memory[23:30]}
    yield "sparse_softmax_sgd_", {"bias": memory[:7], "bias_velocity": memory[6:13]}
    for name, dtype in (("columns", torch.int32), ("offsets", torch.int64), ("target", torch.int64), ("index", torch.int64)):
        value = good("sparse_softmax_sgd_")[name]
        shared = memory.view(dtype)[: len(value)]
        yield "sparse_softmax_sgd_", {"weight": parts["weight"], name: shared}
        yield "sparse_softmax_sgd_", {"bias_velocity": memory[:7], name: shared}


def on_other_devices():
    """(op, arguments) with one tensor on another device than the first."""
    for name in OPS:
        tensors = [key for key, value in good(name).items() if isinstance(value, torch.Tensor)]
        first = next((key for key in ("h", "x", "images", "heat", "weight") if key in tensors), None)
        for key in tensors:
            if key != first:
                yield name, {key: good(name)[key].to("meta")}


OPS = [
    name
    for name, check in vars(checks).items()
    if inspect.isfunction(check) and not name.startswith("_") and name != "accumulation"
]
ROWS, ELSEWHERE = list(bad_rows()), list(on_other_devices())


def kernel_sentence(name, arguments):
    """What the CPU kernel says, whatever the dispatcher would have chosen."""
    op = getattr(ops, name).default
    key = torch._C.DispatchKey.CPU if name != "circular_mask" else torch._C.DispatchKey.CompositeExplicitAutograd
    with pytest.raises(RuntimeError) as caught:
        op(**arguments) if name == "circular_mask" else op._op_dk(key, **arguments)
    return str(caught.value)


def fake_sentence(name, arguments):
    with FakeTensorMode() as mode:
        fakes = {k: mode.from_tensor(v) if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
        with pytest.raises(RuntimeError) as caught:
            getattr(ops, name)(**fakes)
    return str(caught.value)


@pytest.mark.parametrize(("name", "bad"), ROWS, ids=lambda part: part if isinstance(part, str) else "-".join(part))
def test_fake_and_kernel_say_the_same(name, bad):
    arguments = good(name) | bad
    sentence = kernel_sentence(name, arguments)
    assert sentence.startswith(f"sslk::{name}: ") and len(sentence.splitlines()) == 1 and "unsupported" not in sentence
    assert fake_sentence(name, arguments) == sentence


@pytest.mark.parametrize(("name", "bad"), ELSEWHERE, ids=lambda part: part if isinstance(part, str) else "-".join(part))
def test_a_tensor_on_another_device_is_refused(name, bad):
    """The dispatcher prefers meta: the fake is called with real tensors, and must not hand out memory as it is."""
    arguments = good(name) | bad
    sentence = kernel_sentence(name, arguments)
    assert "must be on the device of" in sentence and sentence.endswith(", cpu, got meta.")
    with pytest.raises(RuntimeError) as caught:
        getattr(ops, name)(**arguments)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("name", OPS)
def test_fake_takes_what_the_kernel_takes(name):
    arguments = good(name)
    expected = getattr(ops, name)(**arguments)
    with FakeTensorMode() as mode:
        fakes = {k: mode.from_tensor(v) if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
        found = getattr(ops, name)(**fakes)
    one = isinstance(expected, torch.Tensor)
    for a, b in zip([found] if one else found, [expected] if one else expected, strict=True):
        assert (a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride())
