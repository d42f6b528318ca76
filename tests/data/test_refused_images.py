"""Images that are refused, and how; strips and dots through the transform; what the identity of a store says of decoding."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as T

from sslk.data import Dataset, load_dataset
from sslk.data.decode import DECODING, decode
from sslk.features.identity import transform_text
from sslk.models import EvaluationTransform
from tests.data.image_files import saved, tiff
from tests.data.test_decode import GREY16, LEVELS16, PIXELS, grey

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


@pytest.mark.parametrize(
    ("content", "where", "message"),
    [
        (HEIC, "a.jpg", "a.jpg is HEIC, which Pillow does not read: pip install pillow-heif"),
        (b'<?xml version="1.0"?>\n<svg width="4"/>', "a.svg", "is SVG, a drawing without pixels"),
        (b"8BPS\0\1" + bytes(100), "a.psd", "is a Photoshop document"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a.png", "PostScript, which is a program and is not run"),
        (saved(Image.fromarray(PIXELS), "TIFF"), "a.NEF", "is camera RAW, of which only the preview"),
        (tiff(2, 2, bytes(4), [8], 1, 1, (50706, 1)), "a.tif", "is camera RAW, of which only the preview"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a.jpg", "a pointer of git-LFS"),
        (b"<!DOCTYPE html><html>404", "a.jpg", "a page of HTML"),
        (b"", "a.jpg", "a.jpg is empty"),
        (b"words", "a.jpg", "a.jpg is no image that can be read"),
        (saved(Image.new("RGB", (400, 400), "red"), "JPEG")[:700], "a.jpg", "cannot be read as an image: .*truncated"),
        (b"P5 65000 65000 255\n", "a.pgm", "cannot be read as an image: .*decompression bomb"),
    ],
)
def test_what_is_refused_and_how(content: bytes, where: str, message: str) -> None:
    with pytest.raises(OSError, match=message) as caught:
        decode(content, where)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(1, 1), (1, 20), (20, 1), (400, 20), (3, 1000), (5000, 1)])
def test_small_and_long_images_pass_the_transform(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (10, 120, 230))
    for shape in ((224, 224), (64, 96)):
        found = EvaluationTransform(shape, (0.0,) * 3, (1.0,) * 3, "bicubic")(image)
        assert found.shape == (3, *shape)
        np.testing.assert_allclose(found.amax((1, 2)) * 255, [10, 120, 230], atol=1e-3)
        assert torch.equal(found.amax((1, 2)), found.amin((1, 2)))


@pytest.mark.parametrize("size", [(30, 4001), (4000, 30), (64 * 5, 5)])
def test_the_middle_of_a_strip_is_what_the_whole_gives(size: tuple[int, int]) -> None:
    smooth = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(smooth).resize(size, Image.Resampling.BICUBIC)
    found = EvaluationTransform((32, 32), (0.0,) * 3, (1.0,) * 3)(image)
    whole = T.Compose([T.Resize(32), T.CenterCrop(32), T.ToTensor()])(image)
    assert (found - whole).abs().max() <= (0.02 if max(size) > 64 * min(size) else 0)  # places are rounded to a pixel


def test_the_identity_says_how_files_were_decoded(tmp_path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.png").write_bytes(saved(Image.fromarray(PIXELS)))
    np.savez(tmp_path / "a.npz", images=PIXELS[None])
    files, memory = load_dataset(f"folder:{tmp_path}/d"), load_dataset(f"npz:{tmp_path}/a.npz")
    assert transform_text(files) == f"None of images {DECODING}"
    assert (transform_text(memory), transform_text(load_dataset("sample"))) == ("None", "None")


def test_every_source_of_images_goes_the_same_way() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = saved(Image.new("RGB", (8, 4)), "JPEG", exif=exif)
    data = Dataset("x", lambda index: [Image.open(io.BytesIO(content)), Image.fromarray(GREY16)][index], ["a", "b"], None)
    assert data[0][0].size == (4, 8)
    np.testing.assert_array_equal(np.asarray(data.image(1)), grey(LEVELS16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert EvaluationTransform((4, 4), (0.0,) * 3, (1.0,) * 3)(Image.fromarray(PIXELS)).shape == (3, 4, 4)
