"""masked_variants, circular_mask and heatmap_iou against their definitions, pixel by pixel, under every CPU build."""

import math

import numpy as np
import pytest
import torch

import ssl_kernels
from tests.ops.properties import given, settings, st

ops = torch.ops.sslk
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
ALL = [0, 1, 2, 3, 4]


def images_and_masks(shape=(3, 3, 21, 17), dtype=torch.uint8, device="cpu", seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    if dtype != torch.uint8:
        images = (images / 255).to(dtype)
    foreground = torch.rand((shape[0], *shape[2:]), generator=generator) < 0.4
    return images.to(device), foreground.to(device)


def disc_oracle(height, width, radius=None):
    """One pixel at a time."""
    r = math.sqrt(height * width / (2 * math.pi)) if radius is None else radius
    out = np.zeros((height, width), dtype=bool)
    for i in range(height):
        for j in range(width):
            out[i, j] = (i + 0.5 - height / 2) ** 2 + (j + 0.5 - width / 2) ** 2 <= r**2
    return out


def variant_oracle(images, foreground, mean, std, variant, radius=None):
    """Float64 [N, C, H, W]: normalise, then zero the removed pixels."""
    x = images.cpu().double().numpy() / (255 if images.dtype == torch.uint8 else 1)
    out = np.zeros_like(x)
    disc = disc_oracle(*x.shape[2:], radius)
    for n in range(x.shape[0]):
        inside = disc if variant >= 3 else foreground[n].cpu().numpy() if variant else None
        keep = np.ones(x.shape[2:], dtype=bool) if variant == 0 else inside if variant in (1, 3) else ~inside
        for c in range(x.shape[1]):
            out[n, c][keep] = ((x[n, c] - mean[c]) / std[c])[keep]
    return torch.from_numpy(out)


TOLERANCE = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}  # half a unit in the last place of |x| < 4


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("out", list(TOLERANCE))
@pytest.mark.parametrize("shape", [(3, 3, 21, 17), (2, 1, 1, 1), (1, 3, 70, 66), (2, 4, 16, 32)])
def test_equals_the_definition(device, isa, dtype, out, shape):
    images, foreground = images_and_masks(shape, dtype, device)
    mean, std = (MEAN * 2)[: shape[1]], (STD * 2)[: shape[1]]
    actual = ops.masked_variants(images, foreground, mean, std, ALL, None, out)
    assert actual.dtype == out
    assert actual.is_contiguous()
    for variant in ALL:
        expected = variant_oracle(images, foreground, mean, std, variant)
        torch.testing.assert_close(actual[variant].double().cpu(), expected, rtol=TOLERANCE[out], atol=TOLERANCE[out])
        assert torch.equal(actual[variant].cpu() == 0, expected == 0) or out != torch.float32


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("out", list(TOLERANCE))
def test_pairs_add_up_to_the_original_exactly(device, isa, dtype, out):
    images, foreground = images_and_masks((2, 3, 33, 35), dtype, device)
    v = ops.masked_variants(images, foreground, MEAN, STD, ALL, None, out)
    assert torch.equal(v[1] + v[2], v[0])
    assert torch.equal(v[3] + v[4], v[0])
    assert torch.equal(v[1][foreground[:, None].expand_as(v[1])], v[0][foreground[:, None].expand_as(v[0])])


def test_bytes_equal_torchvision_bit_for_bit(isa):
    transforms = pytest.importorskip("torchvision.transforms")
    images, _ = images_and_masks((4, 3, 40, 40))
    chain = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    expected = torch.stack([chain(image.permute(1, 2, 0).numpy()) for image in images])
    assert torch.equal(ops.masked_variants(images, None, MEAN, STD, [0])[0], expected)


def test_large_outputs_are_streamed_alike(device, isa):
    """Over 8 MB the stores go around the cache; an odd plane makes their alignment differ from plane to plane."""
    images, foreground = images_and_masks((9, 3, 151, 149), device=device)
    whole = ops.masked_variants(images, foreground, MEAN, STD, ALL)
    assert whole.nbytes > 8 << 20
    parts = [ops.masked_variants(i[None], f[None], MEAN, STD, ALL) for i, f in zip(images, foreground, strict=True)]
    assert torch.equal(whole, torch.cat(parts, dim=1))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_strides(device, isa, dtype):
    images, foreground = images_and_masks((2, 3, 20, 24), dtype, device)
    expected = ops.masked_variants(images, foreground, MEAN, STD, ALL)
    channels_last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(ops.masked_variants(channels_last, foreground, MEAN, STD, ALL), expected)
    transposed, mask = images.mT.contiguous().mT, foreground.mT.contiguous().mT
    assert torch.equal(ops.masked_variants(transposed, mask, MEAN, STD, ALL), expected)
    sliced = ops.masked_variants(images[:, :, 3:17, 5:22], foreground[:, 3:17, 5:22], MEAN, STD, [1])
    cut = ops.masked_variants(images[:, :, 3:17, 5:22].contiguous(), foreground[:, 3:17, 5:22].contiguous(), MEAN, STD, [1])
    assert torch.equal(sliced, cut)
    grey = images[:, :1].expand(-1, 3, -1, -1)
    assert torch.equal(
        ops.masked_variants(grey, foreground, MEAN, STD, [0]), ops.masked_variants(grey.contiguous(), foreground, MEAN, STD, [0])
    )


def test_order_repeats_and_radius(device):
    images, _ = images_and_masks(device=device)
    v = ops.masked_variants(images, None, MEAN, STD, [4, 0, 4], 3.5)
    torch.testing.assert_close(v[0].double().cpu(), variant_oracle(images, None, MEAN, STD, 4, 3.5), rtol=0, atol=1e-6)
    assert torch.equal(v[0], v[2])
    everything = ops.masked_variants(images, None, MEAN, STD, [0, 3, 4], 1e9)
    assert torch.equal(everything[1], everything[0])
    assert not everything[2].any()


def test_removed_pixels_are_zero_whatever_they_held(device, isa):
    images, foreground = images_and_masks((1, 3, 19, 19), torch.float32, device)
    images[:] = torch.where(foreground[:, None], images, torch.nan)
    v = ops.masked_variants(images, foreground, MEAN, STD, [1, 2])
    assert v[0].isfinite().all()
    assert torch.equal(v[1].isnan(), ~foreground[:, None].expand(-1, 3, -1, -1))


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (2, 3, 0, 8), (2, 3, 8, 0)])
def test_empty(device, shape):
    images, foreground = images_and_masks(shape, device=device)
    assert ops.masked_variants(images, foreground, MEAN, STD, ALL).shape == (5, *shape)


@pytest.mark.parametrize(("height", "width", "radius"), [(224, 224, None), (7, 12, None), (5, 5, 2.0), (4, 6, 0.0), (0, 3, 1.0)])
def test_circular_mask(height, width, radius):
    mask = ops.circular_mask(height, width, radius)
    assert torch.equal(mask, torch.from_numpy(disc_oracle(height, width, radius)))
    assert torch.equal(mask, mask.flip(0))
    assert torch.equal(mask, mask.flip(1))
    if height == 224:
        assert abs(mask.float().mean() - 0.5) < 0.002


def iou_oracle(heat, mask, threshold):
    out = []
    for h, m in zip(heat.cpu().double().numpy(), mask.cpu().numpy(), strict=True):
        region = h > threshold
        union = math.fsum(h[region | m])
        intersection = math.fsum(h[region & m])
        nothing = union == 0 and intersection == 0
        out.append(math.nan if np.isnan(h).any() else 0.0 if nothing else intersection / union)
    return torch.tensor(out, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_threshold_between_two_numbers_is_compared_exactly(device, isa, dtype):
    """A pixel that is the dtype's nearest number to the threshold lies above it or not; the reference finds the same."""
    heat = (torch.arange(11, dtype=torch.float64, device=device) / 10).to(dtype).view(1, 1, 11)
    mask = torch.zeros(1, 1, 11, dtype=torch.bool, device=device)
    mask[..., 5:] = True
    for threshold in [k / 10 for k in range(11)]:
        actual = ops.heatmap_iou(heat, mask, threshold)
        torch.testing.assert_close(actual.double().cpu(), iou_oracle(heat, mask, threshold), rtol=1e-6, atol=0)
        torch.testing.assert_close(ssl_kernels.reference.heatmap_iou(heat, mask, threshold), actual, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("threshold", [0.0, 0.3, -1.0])
def test_heatmap_iou(device, isa, dtype, threshold):
    generator = torch.Generator().manual_seed(1)
    heat = torch.rand(4, 37, 29, generator=generator).sub(0.2).relu().to(dtype).to(device)
    mask = (torch.rand(4, 37, 29, generator=generator) < 0.3).to(device)
    actual = ops.heatmap_iou(heat, mask, threshold)
    assert actual.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = iou_oracle(heat, mask, threshold)
    torch.testing.assert_close(actual.double().cpu(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(ops.heatmap_iou(heat.mT, mask.mT, threshold), actual)


def test_heatmap_iou_at_the_edges(device, isa):
    heat = torch.zeros(6, 8, 9, device=device)
    mask = torch.zeros(6, 8, 9, dtype=torch.bool, device=device)
    heat[1] = 1.0  # no mask: 0
    mask[2] = True  # no heat: 0
    heat[3], mask[3] = 2.0, True  # the same: 1
    heat[4], mask[4] = 1.0, True
    heat[4, 7, 8] = heat[5, 0, 3] = torch.nan
    assert ops.heatmap_iou(heat, mask)[:4].tolist() == [0.0, 0.0, 0.0, 1.0]
    assert ops.heatmap_iou(heat, mask)[4:].isnan().all()
    assert ops.heatmap_iou(heat, ~mask)[4:].isnan().all()
    assert ops.heatmap_iou(heat[:0], mask[:0]).shape == (0,)
    large = torch.full((1, 1500, 1500), 0.1, device=device)  # float32 sums would have stalled by now
    left = torch.zeros(1, 1500, 1500, dtype=torch.bool, device=device)
    left[:, :, :1] = True
    torch.testing.assert_close(ops.heatmap_iou(large, left), torch.tensor([1 / 1500], device=device), rtol=1e-6, atol=0)
    for value, iou in [(0.1, 1.0), (0.7, 0.0)]:  # in float32, 0.1 lies above the double 0.1 and 0.7 below 0.7
        exact = torch.full((1, 8, 9), value, device=device)
        assert ops.heatmap_iou(exact, exact > 0, value).tolist() == [iou]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31), st.floats(0.25, 4.0))
def test_iou_ignores_the_scale_of_the_heat_and_the_order_of_pixels(height, width, seed, scale):
    generator = torch.Generator().manual_seed(seed)
    heat = torch.rand(1, height, width, generator=generator)
    mask = torch.rand(1, height, width, generator=generator) < 0.5
    iou = ops.heatmap_iou(heat, mask)
    assert 0 <= iou.item() <= 1
    torch.testing.assert_close(ops.heatmap_iou(heat * scale, mask), iou, rtol=1e-5, atol=0)
    torch.testing.assert_close(ops.heatmap_iou(heat.flip(1, 2), mask.flip(1, 2)), iou, rtol=1e-6, atol=0)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 80), st.integers(1, 80), st.integers(0, 2**31))
def test_variants_of_any_size_add_up(n, channels, height, width, seed):
    images, foreground = images_and_masks((n, channels, height, width), seed=seed)
    v = ops.masked_variants(images, foreground, MEAN[:channels], STD[:channels], ALL)
    assert torch.equal(v[1] + v[2], v[0])
    assert torch.equal(v[3] + v[4], v[0])
    assert torch.equal(
        v,
        ops.masked_variants(
            images.contiguous(memory_format=torch.channels_last), foreground, MEAN[:channels], STD[:channels], ALL
        ),
    )


@pytest.mark.slow
def test_more_than_2_31_elements(device):
    images, foreground = images_and_masks((1, 3, 224, 224), device=device)
    n = 2**31 // (5 * 3 * 224 * 224) + 2
    many = images.expand(n, -1, -1, -1).contiguous()
    masks = foreground.expand(n, -1, -1).contiguous()
    v = ops.masked_variants(many, masks, MEAN, STD, ALL, None, torch.bfloat16)
    assert v.numel() > 2**31
    expected = ops.masked_variants(images, foreground, MEAN, STD, ALL, None, torch.bfloat16)
    for i in (0, n // 2, n - 1):
        assert torch.equal(v[:, i], expected[:, 0])


def test_opcheck(device):
    images, foreground = images_and_masks((2, 3, 8, 10), device=device)
    for args in [(images, foreground, MEAN, STD, ALL), (images.float() / 255, None, MEAN, STD, [0, 3], 2.0, torch.float16)]:
        torch.library.opcheck(ops.masked_variants.default, args)
    torch.library.opcheck(ops.circular_mask.default, (6, 7))
    torch.library.opcheck(ops.heatmap_iou.default, (torch.rand(2, 5, 6, device=device), foreground[:, :5, :6]))


def test_compiles_as_one_graph():
    images, foreground = images_and_masks((2, 3, 12, 10))

    def run(images, foreground):
        variants = ssl_kernels.masked_variants(images, foreground, MEAN, STD, [1, 3])
        disc = ssl_kernels.circular_mask(12, 10)
        return variants * 2, ssl_kernels.heatmap_iou(variants[0, :, 0].abs(), disc.expand(2, -1, -1))

    compiled = torch.compile(run, fullgraph=True)
    for actual, expected in zip(compiled(images, foreground), run(images, foreground), strict=True):
        torch.testing.assert_close(actual, expected)


IMAGES, FOREGROUND = images_and_masks((2, 3, 4, 5))
HEAT = torch.rand(2, 4, 5)
BAD = [
    (lambda: ops.masked_variants(IMAGES[0], None, MEAN, STD, [0]), r"images must have shape \[N, C, H, W\]"),
    (lambda: ops.masked_variants(IMAGES.int(), None, MEAN, STD, [0]), "images must be uint8 .* got int32"),
    (lambda: ops.masked_variants(IMAGES, None, MEAN[:2], STD, [0]), r"mean must have one number per channel \(3\)"),
    (lambda: ops.masked_variants(IMAGES, None, MEAN, STD[:2], [0]), r"std must have one number per channel \(3\)"),
    (lambda: ops.masked_variants(IMAGES, None, MEAN, [0.2, 0.0, 0.2], [0]), "std must be positive"),
    (lambda: ops.masked_variants(IMAGES, None, MEAN, [0.2, math.nan, 0.2], [0]), "std must be positive"),
    (lambda: ops.masked_variants(IMAGES, None, MEAN, STD, []), "variants must name at least one"),
    (lambda: ops.masked_variants(IMAGES, None, MEAN, STD, [5]), "variants must be .* got 5"),
    (lambda: ops.masked_variants(IMAGES, None, MEAN, STD, [-1]), "variants must be .* got -1"),
    (lambda: ops.masked_variants(IMAGES, None, MEAN, STD, [3], -1.0), "radius must be a finite number"),
    (lambda: ops.masked_variants(IMAGES, None, MEAN, STD, [3], math.inf), "radius must be a finite number"),
    (lambda: ops.masked_variants(IMAGES, None, MEAN, STD, [0], None, torch.float64), "dtype must be float32"),
    (lambda: ops.masked_variants(IMAGES, None, MEAN, STD, [0], None, torch.uint8), "dtype must be float32"),
    (lambda: ops.masked_variants(IMAGES, None, MEAN, STD, [1]), "foreground must be given"),
    (lambda: ops.masked_variants(IMAGES, FOREGROUND.float(), MEAN, STD, [1]), "foreground must be a bool mask"),
    (lambda: ops.masked_variants(IMAGES, FOREGROUND[:1], MEAN, STD, [1]), r"foreground must have shape \[N, H, W\]"),
    (lambda: ops.masked_variants(IMAGES, FOREGROUND[:, :3], MEAN, STD, [1]), r"foreground must have shape \[N, H, W\]"),
    (lambda: ops.circular_mask(-1, 3), "height must be zero or positive, got -1"),
    (lambda: ops.circular_mask(3, -1), "width must be zero or positive, got -1"),
    (lambda: ops.circular_mask(3, 3, math.nan), "radius must be a finite number"),
    (lambda: ops.heatmap_iou(HEAT[0], FOREGROUND), r"heat must have shape \[N, H, W\]"),
    (lambda: ops.heatmap_iou(HEAT.int(), FOREGROUND), "heat must be float64"),
    (lambda: ops.heatmap_iou(HEAT, FOREGROUND.float()), "mask must be bool, got float32"),
    (lambda: ops.heatmap_iou(HEAT, FOREGROUND[:1]), "mask must have the shape of heat"),
    (lambda: ops.heatmap_iou(HEAT, FOREGROUND, math.nan), "threshold must be a number"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_names_the_argument(call, message):
    with pytest.raises(RuntimeError, match=message):
        call()


def test_every_byte_but_zero_is_true(device, isa):
    """A bool tensor made by a view of bytes may hold 2 or 255; torch itself takes them for true."""
    generator = torch.Generator().manual_seed(4)
    raw = torch.tensor([0, 1, 2, 128, 255], dtype=torch.uint8)[torch.randint(5, (3, 9, 13), generator=generator)]
    odd, clean = raw.to(device).view(torch.bool), (raw != 0).to(device)
    images = torch.rand(3, 2, 9, 13, generator=generator).to(device)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        arguments = ([0.5] * 2, [0.25] * 2, [1, 2], None, dtype)
        assert torch.equal(ops.masked_variants(images, odd, *arguments), ops.masked_variants(images, clean, *arguments))
    for heat in (images[:, 0], images[:, 0].double(), images[:, 0].half()):
        assert torch.equal(ops.heatmap_iou(heat, odd, 0.5), ops.heatmap_iou(heat, clean, 0.5))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_heat_whose_sum_is_no_number_of_its_type(device, isa, dtype):
    heat = torch.full((1, 8, 40), torch.finfo(dtype).max, dtype=dtype, device=device)
    mask = torch.zeros(1, 8, 40, dtype=torch.bool, device=device)
    mask[:, :, :10] = True
    assert ssl_kernels.heatmap_iou(heat, mask).item() == pytest.approx(0.25, rel=1e-5)
