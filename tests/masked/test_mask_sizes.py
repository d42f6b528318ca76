"""Masks are found at about the network's size, kept at it, and go through the geometry of the whole image; old folders read."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from sslk.data import Annotation, Dataset
from sslk.masked import MaskedImages, Masks, build_masks, segmenter
from sslk.masked.mask_files import MaskError
from sslk.masked.masks import identity_of
from sslk.models import EvaluationTransform
from tests.masked.test_masks import disc, picture

TALL, WIDE = (1601, 1203), (1200, 1600)
NETWORK = EvaluationTransform((224, 224), (0.5,) * 3, (0.5,) * 3)


def photos(size, center) -> tuple[Dataset, np.ndarray]:
    """A red disc on blue, photographed; and which pixels are the disc."""
    height, width = size
    wanted = disc(height, width, *center, 300)
    pixels = picture(wanted)
    box = np.array([[center[1] - 350, center[0] - 350, center[1] + 350, center[0] + 350]], dtype=np.float32)
    read = lambda i: Image.fromarray(pixels)  # noqa: E731
    return Dataset("photos", read, ["a"], None, annotate=lambda i: Annotation(boxes=box)), wanted


@pytest.mark.parametrize(("size", "found"), [(WIDE, [256, 341]), (TALL, [341, 256])])
@pytest.mark.parametrize("name", ["grabcut", "grabcut:box"])
def test_a_mask_found_at_the_networks_size_is_that_of_the_whole_image(tmp_path, size, found, name):
    data, wanted = photos(size, (620, 720))
    masks = build_masks(data, segmenter(name), tmp_path / "m")
    assert masks.mask_sizes.tolist() == [found] and masks.sizes.tolist() == [list(size)] and not masks.resized.any()
    assert masks[0].shape == size and (masks[0] & wanted).sum() / (masks[0] | wanted).sum() > 0.97
    item, _ = MaskedImages(data, NETWORK, masks)[0]
    assert ((item[0] > 127) == (item[3] > 0)).float().mean() > 0.99  # the disc is red: image and mask agree after the crop
    torch.testing.assert_close(item[3].float().mean(), NETWORK.mask(wanted).float().mean(), rtol=0.03, atol=0)


def test_the_size_stands_in_the_settings_and_tells_folders_apart(tmp_path):
    data, _ = photos(WIDE, (620, 720))
    assert segmenter("grabcut").settings == "grabcut:center(0.8) x5 256px"
    assert segmenter("grabcut", side=64).settings == "grabcut:center(0.8) x5 64px"
    assert segmenter("grabcut", side=0).settings == "grabcut:center(0.8) x5"
    small = build_masks(data, segmenter("grabcut", side=64), tmp_path / "m")
    assert small.mask_sizes.tolist() == [[64, 85]] and "64px" in small.summary()
    with pytest.raises(MaskError, match=r"by grabcut:center.* x5 64px, wanted are 1 of photos by grabcut:center.* x5 256px"):
        build_masks(data, segmenter("grabcut"), tmp_path / "m")
    for name in ("labels:car", "boxes", f"files:{tmp_path}"):
        with pytest.raises(ValueError, match="side is for segmenters that look at the pixels"):
            segmenter(name, side=64)
    for name, side in (("grabcut", -1), ("deeplab", 0)):
        with pytest.raises(ValueError, match="side must be"):
            segmenter(name, side=side)


def test_given_masks_keep_their_own_size(tmp_path):
    data, _ = photos(WIDE, (620, 720))
    masks = build_masks(data, segmenter("boxes"), tmp_path / "m")
    assert masks.mask_sizes.tolist() == [list(WIDE)] and masks[0].sum() == 700 * 700


def test_folders_of_the_first_format_are_read(tmp_path):
    """Written as the first format was: every chosen image, masks of their images' own size."""
    rng = np.random.default_rng(0)
    wanted = [rng.integers(2, size=(5, 7 + k)).astype(bool) for k in range(3)]
    data = Dataset("old", lambda i: Image.new("RGB", (7 + i // 2, 5)), [str(i) for i in range(6)], None)
    bits = [np.packbits(mask) for mask in wanted]
    content = {
        "format": "sslk-masks-1",
        "settings": "grabcut:center(0.8) x5",
        "dataset": "old",
        "identity": identity_of("grabcut:center(0.8) x5", data, np.array([0, 2, 4])),
        "indices": [0, 2, 4],
    }
    (tmp_path / "masks.json").write_text(json.dumps(content))
    tensors = {
        "bits": np.concatenate(bits),
        "offsets": np.cumsum([0, *map(len, bits[:-1])]),
        "sizes": np.array([mask.shape for mask in wanted]),
        "share": np.full(3, 0.5),
        "resized": np.zeros(3, np.uint8),
    }
    save_file(tensors, tmp_path / "masks-000000.safetensors")
    masks = Masks(tmp_path)
    assert masks.indices.tolist() == [0, 2, 4] and masks.unreadable.tolist() == []
    for k, mask in enumerate(wanted):
        np.testing.assert_array_equal(masks[k], mask)
    again = build_masks(data, segmenter("grabcut", side=0), tmp_path, indices=[0, 2, 4])  # goes on, and has nothing to do
    assert len(again) == 3
    turned = Dataset("old", lambda i: Image.new("RGB", (5, 7 + i // 2)), [str(i) for i in range(6)], None)
    with pytest.raises(MaskError, match="the mask of 2 is of an image of 5 x 8 pixels, the image has 8 x 5: build the masks"):
        MaskedImages(turned, NETWORK, masks)[1]


def test_masks_know_how_the_files_were_decoded(tmp_path):
    """An image that is turned as its camera says has other masks than one that is not."""
    kinds = [Dataset("set", lambda i: Image.new("RGB", (8, 8)), ["a"], None) for _ in range(2)]
    kinds[1].decoding = "turned"
    build_masks(kinds[0], segmenter("grabcut"), tmp_path / "m")
    Masks(tmp_path / "m").require_images(kinds[0])
    with pytest.raises(MaskError, match="or of other images"):
        Masks(tmp_path / "m").require_images(kinds[1])


def test_sizes_in_a_file_fill_no_memory(tmp_path):
    data = Dataset("set", lambda i: Image.new("RGB", (8, 8)), ["a"], None)
    build_masks(data, segmenter("grabcut"), tmp_path)
    file = tmp_path / "masks-000000.safetensors"
    tensors = load_file(file)
    damaged = "is damaged: its sizes do not fit"
    for name, value, said in (("sizes", 1 << 40, damaged), ("sizes", 4, damaged), ("numbers", 7, "masks of other images")):
        save_file({**tensors, name: np.full_like(tensors[name], value)}, file)
        with pytest.raises(MaskError, match=said):
            Masks(tmp_path)
