"""Segmenters mark the right pixels, and masks are kept, resumed and told apart."""

import numpy as np
import pytest
import torch
from PIL import Image

from sslk.data import Annotation, Dataset
from sslk.masked import MaskedImages, Masks, build_masks, choose_images, segmenter
from sslk.masked.masks import MaskError
from sslk.masked.segmenters import GrabCutSegmenter, Scene, SegmentAnything
from sslk.models import EvaluationTransform

SQUARE = EvaluationTransform((16, 16), (0.5,) * 3, (0.5,) * 3)


def scene(pixels: np.ndarray, boxes=None, labels=None) -> Scene:
    annotation = Annotation(mask=labels, boxes=boxes)
    return Scene(Image.fromarray(pixels), "folder/cat/7.jpg", ["sky", "car", "tree"], lambda: annotation)


def disc(height=40, width=48, y=18, x=30, radius=9) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def picture(mask: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 30, (*mask.shape, 3))
    return (np.where(mask[..., None], [200, 60, 40], [20, 80, 160]) + noise).astype(np.uint8)


def dataset(count=5, size=(24, 20), labels=(0, 1, 0, 1, 0), masks=None) -> Dataset:
    rng = np.random.default_rng(1)
    pixels = rng.integers(256, size=(count, *size, 3), dtype=np.uint8)
    if masks is None:
        masks = rng.integers(3, size=(count, *size), dtype=np.uint8)
    return Dataset(
        "noise",
        lambda i: Image.fromarray(pixels[i]),
        [f"{i}.png" for i in range(count)],
        None if labels is None else np.array(labels[:count]),
        ["sky", "car", "tree"],
        annotate=lambda i: Annotation(mask=masks[i], boxes=np.array([[2.0, 3.0, 9.0, 12.0]], dtype=np.float32)),
    )


@pytest.mark.parametrize("start", ["center", "box"])
def test_grabcut_finds_a_disc(start):
    wanted = disc()
    box = np.array([[18, 6, 42, 30]], dtype=np.float32)
    found = GrabCutSegmenter(start)(scene(picture(wanted), boxes=box))
    assert (found & wanted).sum() / (found | wanted).sum() > 0.95


def test_grabcut_is_the_same_at_every_call_and_takes_the_box_where_colours_do_not_tell():
    noise = np.random.default_rng(0).integers(256, size=(20, 20, 3), dtype=np.uint8)
    first, second = (GrabCutSegmenter()(scene(noise)) for _ in range(2))
    assert np.array_equal(first, second)
    flat = GrabCutSegmenter()(scene(np.full((20, 20, 3), 90, np.uint8)))
    assert flat.any() and not flat.all()
    assert GrabCutSegmenter()(scene(noise[:1, :1])).shape == (1, 1)


def test_labels_and_boxes():
    labels = np.array([[0, 1], [2, 1]], dtype=np.uint8)
    pixels = np.zeros((2, 2, 3), np.uint8)
    found = segmenter("labels:car,tree")(scene(pixels, labels=labels))
    assert found.tolist() == [[False, True], [True, True]]
    with pytest.raises(ValueError, match="must be among sky, car, tree, got 'bus'"):
        segmenter("labels:bus")(scene(pixels, labels=labels))
    two = np.array([[0, 0, 1, 1], [1, 1, 2, 2]], dtype=np.float32)
    assert segmenter("boxes")(scene(pixels, boxes=two)).tolist() == [[True, False], [False, True]]
    with pytest.raises(ValueError, match=r"7\.jpg has no bounding box"):
        segmenter("boxes")(scene(pixels))
    with pytest.raises(ValueError, match="has no label map"):
        segmenter("labels:car")(scene(pixels))


def test_mask_files_by_path_before_bare_name(tmp_path):
    pixels = np.zeros((2, 2, 3), np.uint8)
    (tmp_path / "cat").mkdir()
    Image.fromarray(np.array([[7, 0], [0, 3]], np.uint8)).save(tmp_path / "cat/7.png")
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "7.png")
    assert segmenter(f"files:{tmp_path}")(scene(pixels)).tolist() == [[True, False], [False, True]]
    assert segmenter(f"files:{tmp_path}=3")(scene(pixels)).tolist() == [[False, False], [False, True]]
    (tmp_path / "cat/7.png").unlink()
    assert not segmenter(f"files:{tmp_path}")(scene(pixels)).any()
    (tmp_path / "7.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"no mask for the image folder/cat/7\.jpg, such as 7\.png"):
        segmenter(f"files:{tmp_path}")(scene(pixels))
    Image.fromarray(pixels).save(tmp_path / "7.png")
    with pytest.raises(ValueError, match="of one channel"):
        segmenter(f"files:{tmp_path}")(scene(pixels))


def test_unknown_segmenters_are_named_with_a_near_one():
    with pytest.raises(ValueError, match="did you mean 'grabcut'"):
        segmenter("grabcat")
    with pytest.raises(ValueError, match="prompts box, center and grid"):
        segmenter("sam:text")


def test_segment_anything_with_small_random_weights(tmp_path):
    """The real classes of transformers, a network small enough for a test: prompts, sizes and the choice of a mask."""
    transformers = pytest.importorskip("transformers")
    vision = transformers.SamVisionConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=64,
        patch_size=16,
        mlp_dim=16,
        output_channels=16,
        window_size=2,
        num_pos_feats=8,
        global_attn_indexes=[0],
    )
    prompt = transformers.SamPromptEncoderConfig(hidden_size=16, image_size=64, patch_size=16)
    decoder = transformers.SamMaskDecoderConfig(
        hidden_size=16, mlp_dim=16, num_hidden_layers=1, num_attention_heads=2, iou_head_hidden_dim=16
    )
    config = transformers.SamConfig(
        vision_config=vision.to_dict(), prompt_encoder_config=prompt.to_dict(), mask_decoder_config=decoder.to_dict()
    )
    torch.manual_seed(0)
    transformers.SamModel(config).save_pretrained(tmp_path)
    images = transformers.SamImageProcessor(
        size={"longest_edge": 64},
        pad_size={"height": 64, "width": 64},
        mask_pad_size={"height": 16, "width": 16},
        mask_size={"longest_edge": 16},
    )
    transformers.SamProcessor(images).save_pretrained(tmp_path)
    box = np.array([[18, 6, 42, 30]], dtype=np.float32)
    for how in ("center", "box", "grid"):
        segment = segmenter(f"sam:{how}@{tmp_path}")
        mask = segment(scene(picture(disc()), boxes=box))
        assert mask.shape == (40, 48) and mask.dtype == bool
        assert how in segment.settings
    candidates = np.stack([np.zeros((40, 40), bool), disc(40, 40, 20, 20, 15), np.ones((40, 40), bool)])
    by_grid = SegmentAnything(str(tmp_path), "grid")
    assert by_grid._choose(candidates, np.array([0.9, 0.8, 0.8])) == 1
    assert SegmentAnything(str(tmp_path), "center")._choose(candidates, np.array([0.1, 0.2, 0.8])) == 2


def test_deeplab_with_random_weights(tmp_path):
    from torchvision import models

    torch.manual_seed(0)
    name = "deeplabv3_mobilenet_v3_large"
    net = models.get_model(name, weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    with torch.no_grad():  # the head's bias decides: class 7, car, everywhere
        net.classifier[-1].bias[7] = 1e4
    torch.save(net.state_dict(), tmp_path / "net.pt")
    from sslk.masked.segmenters import DeepLabSegmenter

    image = scene(picture(disc()))
    assert DeepLabSegmenter(name, str(tmp_path / "net.pt"), ["car"], size=64)(image).all()
    assert not DeepLabSegmenter(name, str(tmp_path / "net.pt"), ["dog"], size=64)(image).any()
    with pytest.raises(ValueError, match="classes must be among aeroplane"):
        DeepLabSegmenter(name, classes=["giraffe"])
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="does not fit"):
        DeepLabSegmenter(name, str(tmp_path / "other.pt"))


def test_masks_come_back_as_they_were_found(tmp_path):
    data = dataset()
    masks = build_masks(data, segmenter("labels:car"), tmp_path / "m", indices=[1, 3, 4])
    for k, index in enumerate([1, 3, 4]):
        np.testing.assert_array_equal(masks[k], data.annotation(index).mask == 1)
        np.testing.assert_allclose(masks.share[k], (data.annotation(index).mask[2:22] == 1).mean())
    assert masks.indices.tolist() == [1, 3, 4] and masks.sizes.tolist() == [[24, 20]] * 3


def test_masks_resume_and_refuse_other_settings_images_and_folders(tmp_path, monkeypatch):
    from sslk.masked import masks as module

    monkeypatch.setattr(module, "_SHARD", 2)
    data, calls = dataset(), []

    class Stopping:
        settings = "all"

        def __call__(self, scene):
            calls.append(scene.image_name)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return np.ones((24, 20), bool)

    with pytest.raises(KeyboardInterrupt):
        build_masks(data, Stopping(), tmp_path / "m")
    with pytest.raises(MaskError, match="is not finished"):
        Masks(tmp_path / "m")
    build_masks(data, Stopping(), tmp_path / "m")
    assert calls[4:] == ["2.png", "3.png", "4.png"]  # the first shard was kept
    assert Masks(tmp_path / "m").full.all()
    build_masks(data, Stopping(), tmp_path / "m")
    assert len(calls) == 7
    with pytest.raises(MaskError, match="by all, wanted are 5 of noise by labels:car"):
        build_masks(data, segmenter("labels:car"), tmp_path / "m")
    with pytest.raises(MaskError, match="wanted are 2 of noise"):
        build_masks(data, Stopping(), tmp_path / "m", indices=[0, 1])
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    with pytest.raises(MaskError, match="neither empty nor a folder of masks"):
        build_masks(data, Stopping(), tmp_path / "other")
    (tmp_path / "m/masks-000001.safetensors").write_bytes(b"damaged")
    with pytest.raises(MaskError, match=r"masks-000001\.safetensors is damaged"):
        Masks(tmp_path / "m")
    with pytest.raises(MaskError, match="holds no masks"):
        Masks(tmp_path / "absent")


def test_empty_full_and_resized_masks_are_counted_and_dropped_on_request(tmp_path):
    maps = np.zeros((5, 24, 20), np.uint8)
    maps[0] = 1  # full
    maps[1, :2] = 1  # outside the centre square: empty there
    maps[2, 5:9, 3:9] = 1
    data = dataset(masks=[*maps[:3], np.kron(maps[2], np.ones((2, 2), np.uint8)), maps[2]])
    masks = build_masks(data, segmenter("labels:car"), tmp_path / "m")
    assert masks.full.tolist() == [True, False, False, False, False]
    assert masks.empty.tolist() == [False, True, False, False, False]
    assert masks.resized.tolist() == [False, False, False, True, False]
    np.testing.assert_array_equal(masks[3], masks[2])
    kept = MaskedImages(data, SQUARE, masks)
    assert kept.bad_masks == {"empty": 1, "full": 1, "of another size": 1} and len(kept) == 5
    dropped = MaskedImages(data, SQUARE, masks, on_bad_mask="drop")
    assert dropped.indices.tolist() == [2, 4] and dropped.labels.tolist() == [0, 0]
    np.testing.assert_array_equal(dropped[1][0], kept[4][0])
    assert dropped.fingerprint != kept.fingerprint
    assert MaskedImages(data, EvaluationTransform((32, 32), (0.5,) * 3, (0.5,) * 3), masks).upsampled == 5
    only_bad = build_masks(data, segmenter("labels:car"), tmp_path / "n", indices=[0, 1])
    with pytest.raises(ValueError, match="no image of noise is left"):
        MaskedImages(data, SQUARE, only_bad, on_bad_mask="drop")


def test_image_and_mask_go_through_the_same_geometry(tmp_path):
    """A picture whose pixels are its mask: after resize and crop they must still agree, but for the blurred edge."""
    maps = np.stack([disc(60, 80, 30, 40, 15).astype(np.uint8)] * 2)
    data = Dataset(
        "disc",
        lambda i: Image.fromarray(maps[i] * 255).convert("RGB"),
        ["0", "1"],
        None,
        ["sky", "car"],
        annotate=lambda i: Annotation(mask=maps[i]),
    )
    masks = build_masks(data, segmenter("labels:car"), tmp_path / "m")
    item, label = MaskedImages(data, EvaluationTransform((30, 30), (0.5,) * 3, (0.5,) * 3), masks)[0]
    assert item.shape == (4, 30, 30) and item.dtype == torch.uint8 and label == -1
    assert ((item[0] > 127) == (item[3] > 0)).float().mean() > 0.98


def test_a_sample_is_without_replacement_and_refuses_none():
    chosen = choose_images(dataset(), 3, seed=1)
    assert len(set(chosen.tolist())) == 3 and (np.diff(chosen) > 0).all()
    assert choose_images(dataset(), 9).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="at least 1, got 0"):
        choose_images(dataset(), 0)
