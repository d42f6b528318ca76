"""The masking ops against their definitions, pixel by pixel."""

from __future__ import annotations

import numpy as np
import torch

from tests.fuzz.draw import DTYPES, Draw, assert_near, assert_refused, wide


def disc(height: int, width: int, radius: float | None) -> tuple[np.ndarray, np.ndarray]:
    """The disc, and the pixels on its edge, which rounding may put on either side."""
    y, x = (np.arange(size, dtype=np.longdouble) + 0.5 - size / np.longdouble(2) for size in (height, width))
    r2 = height * width / (2 * np.longdouble(np.pi)) if radius is None else np.longdouble(radius) ** 2
    distance = y[:, None] ** 2 + x**2
    return distance <= r2, np.abs(distance - r2) <= 1e-14 * r2


def fuzz_masking(draw: Draw) -> None:
    n, c, height, width = draw.choice([0, 1, 3]), draw.size(4), draw.size(70), draw.size(70)
    radius = draw.choice([None, float(draw.rng.uniform(0, height)), 0.0, 2.0, 1e300])
    inside, edge = disc(height, width, radius)
    found = draw.op("circular_mask")(height, width, radius)
    assert ((found.numpy() == inside) | edge).all(), "circular_mask"
    dtype = draw.choice([torch.uint8, *DTYPES])
    images = torch.randint(0, 256, (n, c, height, width), generator=draw.torch, dtype=torch.uint8)
    if dtype != torch.uint8:
        images = (images.double() / 255).to(dtype)
    images, foreground = draw.layout(images), draw.layout(draw.mask(n, height, width))
    if draw.chance(0.3):
        images = images.contiguous(memory_format=torch.channels_last)
    mean, std = draw.rng.random(c).tolist(), (0.1 + draw.rng.random(c)).tolist()
    variants = draw.rng.integers(0, 5, draw.size(6)).tolist()
    out_dtype = draw.choice([None, torch.float32, torch.float16, torch.bfloat16])
    out = draw.op("masked_variants")(images, foreground, mean, std, variants, radius, out_dtype)
    scaled = wide(images) / (255 if dtype == torch.uint8 else 1)
    shape = (1, c, 1, 1)
    normalised = (scaled - np.reshape(mean, shape)) / np.reshape(std, shape)
    tolerance = 2e-6 / min(std)
    for variant, actual in zip(variants, out, strict=True):
        mask = foreground.numpy()[:, None] if variant in (1, 2) else found.numpy()[None, None]
        keep = np.ones((1, 1, height, width), bool) if variant == 0 else mask if variant in (1, 3) else ~mask
        kept = np.broadcast_to(keep, normalised.shape)
        assert (actual.double().numpy()[~kept] == 0).all(), f"variant {variant}: a removed pixel is not 0"
        assert_near(f"masked_variants: {variant}", actual, np.where(kept, normalised, 0.0), np.where(kept, tolerance, 0))
    arguments = (images, foreground, mean, std, variants)
    hostile = [
        (0, images[:, 0]),
        (1, foreground[:, 1:]),
        (1, foreground.int()),
        (2, mean[1:]),
        (3, [0.0] * c),
        (4, [5]),
        (4, []),
        (0, images.int()),
    ]
    place, value = draw.choice(hostile)
    if place != 1 or value.shape != foreground.shape or value.dtype != torch.bool:
        broken = (*arguments[:place], value, *arguments[place + 1 :])
        assert_refused("masked_variants", draw.op("masked_variants"), *broken)


def fuzz_iou(draw: Draw) -> None:
    n, height, width = draw.choice([0, 1, 5]), draw.size(90), draw.size(90)
    heat = draw.normal(n, height, width).relu()
    heat = draw.scaled(heat, draw.choice(DTYPES)).clone()
    if draw.chance(0.2) and n:
        heat[0, 0, 0] = np.nan
    heat, mask = draw.layout(heat), draw.layout(draw.mask(n, height, width))
    threshold = float(draw.choice([0.0, float(heat.double().nan_to_num().mean()) if n else 1.0]))
    actual = draw.op("heatmap_iou")(heat, mask, threshold)
    x, m = wide(heat), mask.numpy()
    with np.errstate(invalid="ignore"):
        region = x > threshold
        inner, union = (np.where(r, x, 0).sum(axis=(1, 2)) for r in (region & m, region | m))
        expected = np.where(union == 0, 0.0, inner / np.where(union == 0, 1.0, union))
    expected = np.where(np.isnan(x).any(axis=(1, 2)), np.nan, expected)
    assert_near("heatmap_iou", actual, expected, 1e-12 if heat.dtype == torch.float64 else 2e-7)
    hostile = [(heat, mask.int(), 0.0), (heat[..., 1:], mask, 0.0), (heat, mask, float("nan")), (heat[None], mask, 0.0)]
    assert_refused("heatmap_iou", draw.op("heatmap_iou"), *draw.choice(hostile))
