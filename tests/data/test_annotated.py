"""CamVid and Tiny-ImageNet: masks and boxes that lie on the right pixels of real images, from zip and folder."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslk.data import load_dataset
from sslk.data.archives import Archive

SSLK_DATA = Path(os.environ.get("SSLK_DATA", "."))


def real(name: str) -> Path:
    path = SSLK_DATA / name
    if not path.exists():
        pytest.skip(f"SSLK_DATA holds no {name}")
    return path


@pytest.mark.data
def test_camvid_masks() -> None:
    dataset = load_dataset(f"camvid:{real('camvid_val.zip')}", "val")
    assert len(dataset) == 101
    assert dataset.labels is None
    assert dataset[0][1] == -1
    assert dataset.classes[3] == "road"
    rows = []
    for i in range(0, 101, 20):
        image = dataset[i][0]
        mask = dataset.annotation(i).mask
        assert mask.shape == (image.height, image.width) == (360, 480)
        assert mask.max() <= 11
        heights = np.arange(360)[:, None].repeat(480, 1)
        rows.append((heights[mask == 0].mean(), heights[mask == 3].mean()))
    sky, road = np.mean(rows, axis=0)
    assert sky < 120 < 240 < road


@pytest.mark.data
def test_tiny_imagenet_boxes_and_classes() -> None:
    dataset = load_dataset(f"tiny-imagenet:{real('tiny_imagenet_val.zip')}", "val")
    assert len(dataset) == 10_000
    assert np.bincount(dataset.labels).tolist() == [50] * 200
    assert dataset.image_name(0).endswith("val_0.JPEG")
    assert dataset.classes[dataset[0][1]].startswith("go-kart")  # n03444034
    annotation = dataset.annotation(0)
    assert annotation.boxes.tolist() == [[0, 32, 45, 63]]  # the file says 0 32 44 62, both inside
    assert annotation.labels.tolist() == [dataset[0][1]]
    boxes = np.concatenate([dataset.annotation(i).boxes for i in range(0, 10_000, 97)])
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert boxes.max() <= 64


@pytest.mark.data
def test_workers_share_a_zip() -> None:
    def pixels(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(image))

    dataset = load_dataset(f"tiny-imagenet:{real('tiny_imagenet_val.zip')}", "val", transform=pixels)
    dataset[0]  # the parent has the zip open when it forks
    part = torch.utils.data.Subset(dataset, range(64))
    loader = torch.utils.data.DataLoader(part, 8, num_workers=2, multiprocessing_context="fork")
    images = torch.cat([batch for batch, _ in loader])
    assert all(torch.equal(image, dataset[i][0]) for i, image in enumerate(images))


def write_camvid(folder: Path) -> np.ndarray:
    masks = np.random.default_rng(0).integers(0, 12, (3, 6, 8), dtype=np.uint8)
    for place in ("CamVid/train", "CamVid/trainannot"):
        (folder / place).mkdir(parents=True)
    for i, mask in enumerate(masks):
        Image.fromarray(mask * 20).convert("RGB").save(folder / f"CamVid/train/{i}.png")
        Image.fromarray(mask).save(folder / f"CamVid/trainannot/{i}.png")
    return masks


def test_camvid_folder_and_missing_masks(tmp_path: Path) -> None:
    masks = write_camvid(tmp_path)
    dataset = load_dataset(f"camvid:{tmp_path}", "train")
    for i, mask in enumerate(masks):
        np.testing.assert_array_equal(dataset.annotation(i).mask, mask)
        np.testing.assert_array_equal(np.asarray(dataset[i][0])[..., 0], mask * 20)
    with pytest.raises(ValueError, match=r"holds no val/\*\.png"):
        load_dataset(f"camvid:{tmp_path}", "val")
    (tmp_path / "CamVid/trainannot/1.png").unlink()
    with pytest.raises(ValueError, match=r"lacks the label image CamVid/trainannot/1\.png \(1 missing\)"):
        load_dataset(f"camvid:{tmp_path}", "train")


def test_masks_follow_a_skipped_image(tmp_path: Path) -> None:
    masks = write_camvid(tmp_path)
    (tmp_path / "CamVid/train/1.png").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="skipped 1 of 3"):
        dataset = load_dataset(f"camvid:{tmp_path}", "train", on_error="skip")
    np.testing.assert_array_equal(dataset.annotation(1).mask, masks[2])


def test_tiny_imagenet_training_layout(tmp_path: Path) -> None:
    root = tmp_path / "tiny-imagenet-200"
    for number, wnid in enumerate(["n02", "n01"]):
        folder = root / "train" / wnid / "images"
        folder.mkdir(parents=True)
        Image.new("RGB", (64, 64), (number * 200, 0, 0)).save(folder / f"{wnid}_0.JPEG")
        (folder.parent / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t{number}\t10\t40\t63\n")
    (root / "wnids.txt").write_text("n02\nn01\n")
    (root / "words.txt").write_text("n01\tcat\nn02\tdog, hound\nn03\tunused\n")
    with zipfile.ZipFile(tmp_path / "tiny.zip", "w") as file:
        for path in root.rglob("*"):
            file.write(path, path.relative_to(tmp_path))
    for place in (tmp_path, tmp_path / "tiny.zip"):
        dataset = load_dataset(f"tiny-imagenet:{place}", "train")
        assert dataset.classes == ["cat", "dog, hound"]
        assert dataset.labels.tolist() == [0, 1]
        assert dataset[0][0].getpixel((5, 5))[0] > 190
        assert dataset.annotation(0).boxes.tolist() == [[1, 10, 41, 64]]
    with pytest.raises(ValueError, match="for the splits train and val only, got split='test'"):
        load_dataset(f"tiny-imagenet:{tmp_path}")


def test_every_process_opens_its_own_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("x", b"content")
    archive = Archive(tmp_path / "a.zip")
    opened = []
    monkeypatch.setattr(zipfile, "ZipFile", lambda path, real=zipfile.ZipFile: opened.append(path) or real(path))
    for process in (os.getpid(), -1, -1, -2):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        assert archive.read("x") == b"content"
    assert len(opened) == 2


def test_damaged_zip_is_named(tmp_path: Path) -> None:
    (tmp_path / "cut.zip").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(ValueError, match=r"cut\.zip is no folder and no readable zip"):
        load_dataset(f"camvid:{tmp_path}/cut.zip", "val")
