"""The CUDA masking and k-means kernels on the CPU emulator of tests/simt, against the reference (not hardware)."""

from __future__ import annotations

import ctypes
import math
import shutil

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_kernels import reference
from tests.simt_library import DTYPES, Rows, emulated_kernels, pointer, rows

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator is compiled with g++")

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture(scope="session")
def simt() -> ctypes.CDLL:
    torch.set_num_threads(1)
    return emulated_kernels()


def emulated_variants(
    simt: ctypes.CDLL, images: Tensor, foreground: Tensor, variants: list[int], radius: float, dtype: torch.dtype
) -> Tensor:
    n, channels, height, width = images.shape
    out = torch.full((len(variants), n, channels, height, width), 7.0, dtype=dtype)
    view = Rows(images.data_ptr(), n, 0, 0, 0 if images.dtype == torch.uint8 else DTYPES.index(images.dtype))
    mean, std = torch.tensor(MEAN[:channels]), torch.tensor(STD[:channels])
    strides = torch.tensor([images.stride(0), images.stride(1), images.stride(3)])
    codes = torch.tensor(variants, dtype=torch.int8)
    simt.simt_variants(
        ctypes.c_bool(images.dtype == torch.uint8),
        ctypes.byref(view),
        *(ctypes.c_int64(size) for size in (channels, height, width)),
        pointer(strides),
        pointer(foreground),
        ctypes.c_double(radius),
        pointer(mean),
        pointer(std),
        pointer(codes),
        ctypes.c_int(len(variants)),
        ctypes.c_int(DTYPES.index(dtype)),
        pointer(out),
    )
    return out


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (12, 8)])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", DTYPES[1:])
@pytest.mark.parametrize("source", [torch.uint8, torch.float32, torch.bfloat16])
def test_masked_variants(
    simt: ctypes.CDLL, size: tuple[int, int], channels_last: bool, dtype: torch.dtype, source: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(size[0])
    images = torch.randint(0, 256, (3, 3, *size), generator=generator)
    images = images.to(torch.uint8) if source == torch.uint8 else (images / 255).to(source)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    foreground = torch.rand(3, *size, generator=generator) < 0.4
    variants = [3, 0, 1, 2, 4, 1]
    radius = math.sqrt(size[0] * size[1] / (2 * math.pi))
    got = emulated_variants(simt, images, foreground, variants, radius, dtype)
    want = reference.masked_variants(images, foreground, MEAN, STD, variants, None, dtype)
    assert torch.equal(got, want)
    assert torch.equal(got[2] + got[3], got[1])
    assert torch.equal(got[0] + got[4], got[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pixels", [1, 49, 224])
def test_heatmap_iou(simt: ctypes.CDLL, dtype: torch.dtype, pixels: int) -> None:
    generator = torch.Generator().manual_seed(pixels)
    heat = torch.randn(7, pixels, generator=generator).to(dtype)
    heat[4] = -1.0
    heat[5, 0] = float("nan")
    mask = torch.rand(7, pixels, generator=generator) < 0.5
    mask[4] = False
    iou = torch.empty(7, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    simt.simt_iou(rows(heat), pointer(mask), ctypes.c_double(0.25), pointer(iou))
    want = reference.heatmap_iou(heat.double()[:, None], mask[:, None], 0.25)
    torch.testing.assert_close(iou.double(), want, equal_nan=True, rtol=1e-5, atol=1e-6)


def assigned(simt: ctypes.CDLL, x: Tensor, centroids: Tensor, tile: int = 16) -> tuple[Tensor, Tensor]:
    index = torch.full((x.shape[0],), -1, dtype=torch.int32)
    distance = torch.empty(x.shape[0], dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)
    simt.simt_assign(rows(x), rows(centroids), ctypes.c_int64(tile), pointer(index), pointer(distance))
    return index, distance


def nearest(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    squared = (x.double()[:, None] - centroids.double()[None]).square().sum(2)
    squared = torch.where(squared.isfinite(), squared, torch.inf)
    least = squared.amin(1)
    return squared.argmin(1).int(), torch.where(least.isfinite(), least, torch.nan)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("d", "k"), [(1, 1), (3, 33), (100, 7), (1030, 40), (40, 1101)])
@pytest.mark.parametrize("offset", [0.0, 40.0])
def test_kmeans_assign(simt: ctypes.CDLL, dtype: torch.dtype, d: int, k: int, offset: float) -> None:
    generator = torch.Generator().manual_seed(d)
    x = (torch.randn(37, d, generator=generator) + offset).to(dtype)
    centroids = (torch.randn(k, d, generator=generator) * 0.5 + offset).to(dtype)
    if k > 5:
        centroids[5] = centroids[2]  # ties go to the lowest index
        centroids[4, 0] = float("inf")
        centroids[3] = x[9]
        x[11] = x[11] * (1e6 if dtype in (torch.float32, torch.float64) else 1.0)
        x[12, 0] = float("nan")
    index, distance = assigned(simt, x, centroids)
    want_index, want_distance = nearest(x, centroids)
    assert torch.equal(index, want_index)
    torch.testing.assert_close(distance.double(), want_distance, equal_nan=True, rtol=1e-6, atol=0)


@pytest.mark.parametrize("scale", [1e-30, 1e-17, 1e17, 1e25])
def test_kmeans_scales(simt: ctypes.CDLL, scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    x, centroids = torch.randn(9, 20, generator=generator), torch.randn(12, 20, generator=generator)
    centroids[7] = centroids[1]
    index, _ = assigned(simt, (x * scale).contiguous(), (centroids * scale).contiguous())
    assert torch.equal(index, nearest(x, centroids)[0])


@pytest.mark.parametrize("exponent", [-1000, -530, 530, 1010])
def test_kmeans_every_scale_of_float64(simt: ctypes.CDLL, exponent: int) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(9, 20, generator=generator, dtype=torch.float64)
    centroids = torch.randn(12, 20, generator=generator, dtype=torch.float64)
    centroids[7] = centroids[1]
    scaled = [torch.from_numpy(np.ldexp(t.numpy(), exponent)) for t in (x, centroids)]
    index, distance = assigned(simt, *scaled)
    want_index, want = nearest(x, centroids)
    assert torch.equal(index, want_index)
    with np.errstate(over="ignore"):
        expected = torch.from_numpy(np.ldexp(want.numpy(), 2 * exponent))
    torch.testing.assert_close(distance, expected, rtol=1e-13, atol=0)


def test_kmeans_near_ties_are_decided_exactly(simt: ctypes.CDLL) -> None:
    """Centroids that float16 products cannot tell apart."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(24, 64, generator=generator)
    centroids = x[:1] + 1e-5 * torch.randn(20, 64, generator=generator)
    centroids = torch.cat([centroids, torch.randn(4, 64, generator=generator)])
    index, distance = assigned(simt, x, centroids)
    want_index, want_distance = nearest(x, centroids)
    assert torch.equal(index, want_index)
    torch.testing.assert_close(distance.double(), want_distance, rtol=1e-6, atol=0)
