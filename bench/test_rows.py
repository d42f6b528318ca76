"""The row ops at the size of the README's numbers, against x.sum() or copy_, eager torch and torch.compile."""

import pytest
import torch

import ssl_kernels
from ssl_kernels import reference

N, D = 40_000, 2048
SHAPES = [(N, D), (40_000, 256)]
DTYPES = [torch.float32, torch.bfloat16]
ops = torch.ops.sslk


@pytest.fixture(scope="module", params=SHAPES, ids=lambda s: f"{s[0]}x{s[1]}")
def shape(request):
    return request.param


@pytest.fixture(scope="module", params=DTYPES, ids=lambda t: str(t).removeprefix("torch."))
def h(request, shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).relu_().to(request.param)


@pytest.fixture(scope="module")
def mask(shape):
    return torch.rand(shape[1], generator=torch.Generator().manual_seed(1)) < 0.45


def eager(h, mask, eps=4.0):
    """Equation (1) as one would first write it."""
    h = torch.nn.functional.normalize(h.float(), dim=1)
    mean, std = h.mean(1, keepdim=True), h.std(1, correction=0, keepdim=True)
    active = (h > mean + eps * std) & mask
    return torch.where(active, h - mean, 0.0).sum(1) / active.sum(1).clamp_min(1)


compiled = torch.compile(eager)


def read(h):
    return h.sum, h.nbytes, "sum"


def test_qscore(beside, h, mask):
    versus = {
        "eager": lambda: eager(h, mask),
        "compile": lambda: compiled(h, mask),
        "reference": lambda: reference.qscore(h, mask),
    }
    beside(lambda: ops.qscore(h, mask), h.nbytes, *read(h), versus if h.dtype == torch.float32 else None)


def test_qscore_counts(beside, h, mask):
    beside(lambda: ops.qscore_counts(h, mask), h.nbytes, *read(h))


def test_row_moments(beside, h):
    beside(lambda: ops.row_moments(h), h.nbytes, *read(h))


def test_activation_counts(beside, h):
    beside(lambda: ops.activation_counts(h), h.nbytes, *read(h))


def test_activating_mask(beside, h):
    beside(lambda: ops.activating_mask(h), h.nbytes + h.numel(), *read(h))


def test_column_l1(beside, h):
    beside(lambda: ops.column_l1(h), h.nbytes, *read(h))


def test_qscore_penalty(beside, h, mask):
    versus = {"qscore": lambda: ops.qscore(h, mask)}
    beside(lambda: ops.qscore_penalty(h, mask), h.nbytes, *read(h), versus)


def test_qscore_backward(beside, h, mask):
    grad, out = torch.randn(len(h)), torch.empty_like(h)
    beside(lambda: ops.qscore_backward(grad, h, mask, 4.0, True, False), 2 * h.nbytes, lambda: out.copy_(h), 2 * h.nbytes, "copy")


def test_column_l1_backward(beside, h):
    grad, out = torch.randn(h.shape[1]), torch.empty_like(h)
    beside(lambda: ops.column_l1_backward(grad, h, True), 2 * h.nbytes, lambda: out.copy_(h), 2 * h.nbytes, "copy")


def test_qscore_penalty_forward_and_backward(beside, h, mask):
    grad_q, grad_c, out = torch.randn(len(h)), torch.randn(h.shape[1]), torch.empty_like(h)

    def both():
        ops.qscore_penalty(h, mask)
        ops.qscore_penalty_backward(grad_q, grad_c, h, mask, 4.0, True, False)

    beside(both, 3 * h.nbytes, lambda: (out.copy_(h), h.sum()), 3 * h.nbytes, "copy+sum")


@pytest.mark.parametrize("isa", ssl_kernels.build_info()["cpu_isas"].split())
def test_qscore_per_cpu_build(beside, isa):
    h, mask = torch.randn(N, D).relu_(), torch.rand(D) < 0.45
    default = ssl_kernels.cpu_isa()
    try:
        ssl_kernels.set_cpu_isa(isa)
    except ValueError as error:
        pytest.skip(str(error))
    beside(lambda: ops.qscore(h, mask), h.nbytes, *read(h))
    ssl_kernels.set_cpu_isa(default)


def test_regularizer_in_a_resnet18_step(beside):
    """The penalty's forward and backward next to a whole ResNet-18 training step, 32 images of 224 pixels, two views."""
    from torchvision.models import resnet18

    network, images = resnet18(num_classes=512), torch.randn(32, 3, 224, 224)
    h, mask = torch.rand(64, 512, requires_grad=True), torch.rand(512) < 0.45

    def step():
        with torch.enable_grad():
            network(images).square().mean().backward()

    def penalty():
        with torch.enable_grad():
            ops.qscore_penalty(h, mask)[0].backward()

    # The step has 32 images where the penalty has 64 rows: its share of a real step is half of what this shows.
    beside(penalty, 3 * h.nbytes, step, 3 * h.nbytes, "ResNet-18 step")
