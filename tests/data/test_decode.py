"""What each kind of image file becomes: every row of the table in docs/data.md, against arithmetic in NumPy or another reader."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, features

from sslk.data.decode import decode, rgb, upright
from tests.data.image_files import cmyk_profile, saved, srgb_of_lab, tiff

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY16 = np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64)
LEVELS16 = np.floor(GREY16 / 257 + 0.5).astype(np.uint8)  # no quotient ends in .5: 257 is odd
LOSSLESS = [
    ("PNG", {}),
    ("TIFF", {}),
    ("WEBP", {"lossless": True}),
    ("BMP", {}),
    ("PPM", {}),
    ("JPEG2000", {"irreversible": False}),
]


def pixels(content: bytes, where: str = "a.png") -> np.ndarray:
    image = rgb(decode(content, where))
    assert image.mode == "RGB"
    return np.asarray(image)


def grey(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels[..., None], 3, axis=2)


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    alpha = alpha.astype(float)[..., None]
    return np.floor((colours * alpha + 255 * (255 - alpha)) / 255 + 0.5).astype(np.uint8)


@pytest.mark.parametrize(("kind", "options"), LOSSLESS)
def test_ordinary_images_stay_as_they_are(kind: str, options: dict) -> None:
    content = saved(Image.fromarray(PIXELS), kind, **options)
    np.testing.assert_array_equal(pixels(content, "wrong-extension.jpg"), PIXELS)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_is_what_opencv_reads(mode: str, progressive: bool) -> None:
    smooth = Image.fromarray(PIXELS).resize((40, 30)).convert(mode)
    content = saved(smooth, "JPEG", quality=92, progressive=progressive, subsampling=0)
    expected = cv2.cvtColor(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert np.abs(pixels(content).astype(int) - expected).max() <= 1


# As EXIF 2.32 says: where row 0 and column 0 of what is stored belong in the picture.
STORED = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, 1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p, -1),
}


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG", "MPO", "AVIF"])
def test_exif_turns_images_upright_once(value: int, kind: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    turned, again = Image.Exif(), Image.Exif()  # Pillow takes the orientation out of the one it writes to an AVIF
    turned[0x0112] = again[0x0112] = value
    picture = np.kron(np.arange(6).reshape(2, 3, 1) * 50, np.ones((8, 8, 3))).astype(np.uint8)
    options = {"lossless": True} if kind == "WEBP" else {}
    content = saved(Image.fromarray(np.ascontiguousarray(STORED[value](picture))), kind, exif=turned, **options)
    image = decode(content, "a.jpg")
    assert image.size == (24, 16)
    assert np.abs(np.asarray(rgb(image)).astype(int) - picture).max() <= (0 if kind in ("PNG", "TIFF", "WEBP") else 12)
    assert upright(image).tobytes() == image.tobytes()
    mask = decode(saved(Image.fromarray(np.ascontiguousarray(STORED[value](picture))[..., 0]), exif=again), "mask.png")
    np.testing.assert_array_equal(np.asarray(mask), picture[..., 0])


def test_damaged_exif_turns_nothing() -> None:
    content = saved(Image.fromarray(PIXELS), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(pixels(content), PIXELS)


GREYS = {
    "PNG of 16 bits": saved(Image.fromarray(GREY16)),
    "TIFF of 16 bits": saved(Image.fromarray(GREY16), "TIFF"),
    "big-endian TIFF": cv2.imencode(".tif", GREY16)[1].tobytes(),
    "PGM of 16 bits": b"P5 64 64 65535\n" + GREY16.astype(">u2").tobytes(),
    "integers of 32 bits": saved(Image.fromarray(GREY16.astype(np.int32)), "TIFF"),
    "unsigned ones": tiff(64, 64, GREY16.astype("<u4").tobytes(), [32], 1),
    "white is 0": tiff(64, 64, (65535 - GREY16).astype("<u2").tobytes(), [16], 0),
    "floats": saved(Image.fromarray(GREY16.astype(np.float32) / 65535), "TIFF"),
}


@pytest.mark.parametrize("kind", GREYS)
def test_deep_grey_keeps_256_levels(kind: str) -> None:
    found = pixels(GREYS[kind])
    assert len(np.unique(found)) == 256
    np.testing.assert_array_equal(found, grey(LEVELS16))


def test_tiff_of_12_bits_is_white_at_4095() -> None:
    values = np.arange(4096).reshape(64, 64)
    even, odd = values[:, 0::2], values[:, 1::2]
    packed = np.stack([even >> 4, (even & 15) << 4 | odd >> 8, odd & 255], -1).astype(np.uint8).tobytes()
    np.testing.assert_array_equal(
        pixels(tiff(64, 64, packed, [12], 1)), grey(np.floor(values / 4095 * 255 + 0.5).astype(np.uint8))
    )


def test_colours_of_16_bits_keep_their_upper_byte() -> None:
    deep = np.stack([GREY16, GREY16.T, GREY16[::-1]], -1)
    content = cv2.imencode(".png", deep[..., ::-1])[1].tobytes()
    np.testing.assert_array_equal(pixels(content), (deep >> 8).astype(np.uint8))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0, 70_000]], np.int32), "integers of 32 bits from 0 to 70000 .mode I.*save it in 8 or 16 bits"),
        (np.array([[-1, 700]], np.int32), "integers of 32 bits from -1 to 700"),
        (np.array([[0, 200]], np.int32), "integers of 32 bits from 0 to 200"),
        (np.array([[0, 255]], np.float32), "floats from 0 to 255 .mode F.*from 0 to 1: scale them"),
        (np.array([[0, np.nan]], np.float32), "floats from nan to nan"),
    ],
)
def test_grey_without_a_known_white_is_refused(values: np.ndarray, message: str) -> None:
    image = decode(saved(Image.fromarray(values), "TIFF"), "a.tif")
    with pytest.raises(ValueError, match=message):
        rgb(image)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_alpha_shows_white(kind: str) -> None:
    alpha = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    content = saved(Image.fromarray(np.dstack([PIXELS, alpha])), kind, **options)
    np.testing.assert_array_equal(pixels(content), on_white(PIXELS, alpha))
    if kind == "PNG":
        both = saved(Image.fromarray(np.dstack([PIXELS[..., 0], alpha])))
        np.testing.assert_array_equal(pixels(both), on_white(grey(PIXELS[..., 0]), alpha))


@pytest.mark.parametrize("mode", ["La", "RGBa"])
def test_colours_times_alpha_show_white_too(mode: str) -> None:
    alpha = np.array([[0, 51, 255]], np.uint8)
    straight = Image.fromarray(np.dstack([np.full((1, 3, 3), 200, np.uint8), alpha])).convert("LA" if mode == "La" else "RGBA")
    assert straight.convert(mode).mode == mode
    found = np.asarray(rgb(straight.convert(mode))).astype(int)
    assert np.abs(found - on_white(np.full((1, 3, 3), 200.0), alpha)).max() <= 1


@pytest.mark.parametrize("colour", ["RGB", "RGBA"])
def test_palettes(colour: str) -> None:
    table = RNG.integers(0, 256, (4, 3), dtype=np.uint8)
    numbers = RNG.integers(0, 4, (6, 9), dtype=np.uint8)
    image = Image.fromarray(numbers, "P")
    image.putpalette(table.tobytes())
    opaque = {"transparency": bytes([255, 0, 102, 255])} if colour == "RGBA" else {}
    content = saved(image, **opaque)
    alpha = np.frombuffer(opaque.get("transparency", b"\xff" * 4), np.uint8)
    np.testing.assert_array_equal(pixels(content), on_white(table[numbers], alpha[numbers]))
    np.testing.assert_array_equal(np.asarray(decode(content, "mask.png")), numbers)  # a mask of classes stays one


def test_a_palette_with_alpha_of_its_own() -> None:
    image = Image.fromarray(np.array([[0, 1, 1]], np.uint8), "P")
    image.putpalette([9, 9, 9, 30, 20, 10])
    image = image.convert("PA")
    image.putalpha(Image.fromarray(np.array([[0, 255, 51]], np.uint8)))
    assert image.mode == "PA"
    np.testing.assert_array_equal(np.asarray(rgb(image)), [[[255, 255, 255], [30, 20, 10], [210, 208, 206]]])


@pytest.mark.parametrize("deep", [False, True])
def test_a_transparent_colour_shows_white(deep: bool) -> None:
    if deep:
        content, expected = saved(Image.fromarray(GREY16), transparency=65535), LEVELS16
    else:
        content, expected = saved(Image.fromarray(PIXELS[..., 0]), transparency=int(PIXELS[0, 0, 0])), PIXELS[..., 0].copy()
        expected[expected == expected[0, 0]] = 255
    np.testing.assert_array_equal(pixels(content), grey(expected))


INKS = np.array([[[c, m, y, k] for k in (0, 255) for y in (0, 255)] for m in (0, 255) for c in (0, 255)], np.uint8)


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])  # a JPEG of Adobe holds 255 minus the ink
def test_cmyk_without_a_profile(kind: str) -> None:
    inks = np.kron(INKS, np.ones((16, 16, 1), np.uint8))
    found = pixels(saved(Image.fromarray(inks, "CMYK"), kind, **({"quality": 100, "subsampling": 0} if kind == "JPEG" else {})))
    expected = np.rint((255.0 - inks[..., :3]) * (255 - inks[..., 3:]) / 255)
    assert np.abs(found - expected).max() <= (3 if kind == "JPEG" else 1)
    if kind == "JPEG":  # a reader that is not Pillow
        other = cv2.imdecode(np.frombuffer(saved(Image.fromarray(inks, "CMYK"), kind, quality=100), np.uint8), cv2.IMREAD_COLOR)
        assert np.abs(found.astype(int) - other[..., ::-1]).max() <= 3


def test_cmyk_with_a_profile_and_with_a_damaged_one() -> None:
    inks = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), -1)
    lab = np.stack([100 - 25 * inks.sum(-1), 20.0 * (inks[..., 1] - inks[..., 0]), 20.0 * (inks[..., 2] - inks[..., 3])], -1)
    image = Image.fromarray((inks * 255).astype(np.uint8).reshape(4, 4, 4), "CMYK")
    profile = cmyk_profile(lab)
    for kind in ("TIFF", "JPEG"):
        big = image.resize((64, 64), Image.Resampling.NEAREST)
        found = pixels(saved(big, kind, icc_profile=profile, **({"quality": 100, "subsampling": 0} if kind == "JPEG" else {})))
        assert np.abs(found[8::16, 8::16] - srgb_of_lab(lab).reshape(4, 4, 3)).max() <= 4
    damaged = pixels(saved(image, "TIFF", icc_profile=profile[:150]))
    np.testing.assert_array_equal(damaged, pixels(saved(image, "TIFF")))


def test_lab() -> None:
    lab = np.stack(np.meshgrid([20, 55, 90], [-20, 0, 25], [-15, 10], indexing="ij"), -1).reshape(3, 6, 3)
    stored = np.stack([lab[..., 0] * 2.55, lab[..., 1], lab[..., 2]], -1).round().astype(int).astype(np.uint8)  # a, b signed
    assert np.abs(pixels(tiff(6, 3, stored.tobytes(), [8, 8, 8], 8)) - srgb_of_lab(lab)).max() <= 3


def test_hsv_and_ycbcr() -> None:
    from colorsys import hsv_to_rgb

    hsv = RNG.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    expected = np.array([[hsv_to_rgb(*(pixel / 255)) for pixel in row] for row in hsv]) * 255
    assert np.abs(np.asarray(rgb(Image.fromarray(hsv, "HSV"))) - expected).max() <= 6  # Pillow's hue has 255 steps
    y, cb, cr = (channel.astype(float) for channel in np.moveaxis(hsv, -1, 0))
    full = np.stack([y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128)], -1)
    found = np.asarray(rgb(Image.fromarray(hsv, "YCbCr")))
    assert np.abs(found - np.clip(full, 0, 255)).max() <= 1.5


def test_bilevel() -> None:
    dots = RNG.integers(0, 2, (6, 9)).astype(bool)
    for content in (saved(Image.fromarray(dots)), saved(Image.fromarray(dots), "TIFF", compression="group4")):
        np.testing.assert_array_equal(pixels(content), grey(dots.astype(np.uint8) * 255))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_several(kind: str) -> None:
    red, blue = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    content = saved(red, kind, save_all=True, append_images=[blue], **({"lossless": True} if kind == "WEBP" else {}))
    assert Image.open(io.BytesIO(content)).n_frames == 2
    assert (pixels(content) == [255, 0, 0]).all()


def test_a_profile_of_rgb_is_not_applied() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    np.testing.assert_array_equal(pixels(saved(Image.fromarray(PIXELS), icc_profile=srgb.replace(b"sRGB", b"odd!"))), PIXELS)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif() -> None:
    smooth = np.kron(PIXELS[:2, :2], np.ones((16, 16, 1), np.uint8))
    assert np.abs(pixels(saved(Image.fromarray(smooth), "AVIF", quality=95, subsampling="4:4:4")).astype(int) - smooth).max() <= 8
