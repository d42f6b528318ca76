"""masked_variants and heatmap_iou at the size of an evaluation batch, against copy_, sum and torchvision's chain."""

import pytest
import torch

import ssl_kernels

ops = torch.ops.sslk
N, SIDE = 64, 224
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture(scope="module", autouse=True)
def _grown_heap():
    """Memory the allocator can hand out again (given the MALLOC_ settings of `make bench`): no page faults are timed."""
    torch.zeros(4 * 5 * N * 3 * SIDE * SIDE)


@pytest.fixture(scope="module")
def foreground():
    return torch.rand(N, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) < 0.4


@pytest.fixture(scope="module", params=["uint8", "uint8 channels_last", "float32"])
def images(request):
    x = torch.randint(0, 256, (N, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    if request.param == "float32":
        return x / 255
    return x.contiguous(memory_format=torch.channels_last) if "last" in request.param else x


def torchvision_chain(images, foreground, disc):
    """One image at a time, as a data loader would: ToTensor, Normalize, then the five masks."""
    from torchvision import transforms

    chain = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])

    def run():
        variants = [[] for _ in range(5)]
        for image, inside in zip(images.permute(0, 2, 3, 1).numpy(), foreground, strict=True):
            x = chain(image)
            for out, mask in zip(variants, (None, inside, ~inside, disc, ~disc), strict=True):
                out.append(x if mask is None else x * mask)
        return torch.stack([torch.stack(out) for out in variants])

    return run


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_masked_variants(beside, images, foreground, dtype):
    out = torch.empty(5, N, 3, SIDE, SIDE, dtype=dtype)
    source = torch.ones_like(out)
    versus = None
    if images.dtype == torch.uint8 and images.is_contiguous() and dtype == torch.float32:
        versus = {"torchvision": torchvision_chain(images, foreground, ssl_kernels.circular_mask(SIDE, SIDE))}
    # The rate of writing: copy_ is credited with the bytes it writes, and so is the op.
    run = lambda: ops.masked_variants(images, foreground, MEAN, STD, [0, 1, 2, 3, 4], None, dtype)  # noqa: E731
    beside(run, out.nbytes, lambda: out.copy_(source), out.nbytes, "copy_", versus)


def test_heatmap_iou(beside, foreground):
    heat = torch.rand(N, SIDE, SIDE).repeat(4, 1, 1)
    mask = foreground.repeat(4, 1, 1)
    region = {"eager": lambda: (heat * ((heat > 0) & mask)).sum((1, 2)) / (heat * ((heat > 0) | mask)).sum((1, 2))}
    beside(lambda: ops.heatmap_iou(heat, mask), heat.nbytes + mask.nbytes, heat.sum, heat.nbytes, "sum", region)
