"""Data sets by name: arrays, folders, torchvision's layouts, Hugging Face; and what is said about bad ones."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslk.data import Dataset, UnreadableImageError, load_dataset
from sslk.features.identity import data_hash

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 8, 10, 3), dtype=np.uint8)


def write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Lossless whatever the suffix says, so that the pixels can be compared: Pillow goes by the content.
    Image.fromarray(pixels).save(path, "png")


def assert_content(dataset: Dataset, pixels: np.ndarray, labels: list[int] | None) -> None:
    assert len(dataset) == len(pixels)
    for i, expected in enumerate(pixels):
        image, label = dataset[i]
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), expected)
        assert label == (-1 if labels is None else labels[i])
    if labels is None:
        assert dataset.labels is None
    else:
        assert dataset.labels.dtype == np.int64
        np.testing.assert_array_equal(dataset.labels, labels)


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    path = tmp_path / "set.npz"
    np.savez(path, images=PIXELS, labels=np.array([0, 2, 1, 0, 2, 2], dtype=np.uint8))
    return path


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for i, pixels in enumerate(PIXELS):
        write_image(tmp_path / "set" / ("cat" if i < 2 else "dog") / f"{i}.png", pixels)
    return tmp_path / "set"


def test_whole_floats_and_nan_are_labels(npz: Path) -> None:
    np.savez(npz, images=PIXELS, labels=np.array([0, np.nan, 1, 0, 2, np.nan]))
    dataset = load_dataset(f"npz:{npz}")
    assert_content(dataset, PIXELS, [0, -1, 1, 0, 2, -1])
    assert dataset.classes == ["0", "1", "2"]


def test_npz(npz: Path) -> None:
    dataset = load_dataset(f"npz:{npz}")
    assert_content(dataset, PIXELS, [0, 2, 1, 0, 2, 2])
    assert dataset.classes == ["0", "1", "2"]
    assert dataset.name == f"npz:{npz}"
    np.savez(npz, images=PIXELS[..., 0])
    grey = load_dataset(f"npz:{npz}")
    assert_content(grey, np.repeat(PIXELS[..., :1], 3, axis=3), None)
    assert grey.fingerprint != dataset.fingerprint


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": PIXELS}, "needs an array 'images', it holds x"),
        ({"images": PIXELS.astype(np.float32)}, r"must be uint8 \[N, H, W, 3\] or \[N, H, W\], got float32"),
        ({"images": PIXELS.transpose(0, 3, 1, 2)}, r"got uint8 \[6, 3, 8, 10\]"),
        ({"images": PIXELS, "labels": np.zeros(5, int)}, "one label per image, got 5 for 6"),
        ({"images": PIXELS, "labels": np.full(6, 0.5)}, r"labels in .* must be integers \[N\], got float64"),
        ({"images": PIXELS, "labels": np.array([None] * 6)}, "no readable .npz without pickled objects"),
        ({"images": PIXELS[:0]}, "holds no images"),
    ],
)
def test_bad_npz(arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load_dataset(f"npz:{tmp_path}/bad.npz")


def test_truncated_npz_is_named(npz: Path) -> None:
    npz.write_bytes(npz.read_bytes()[:900])
    with pytest.raises(ValueError, match=r"set\.npz is no readable \.npz"):
        load_dataset(f"npz:{npz}")


def test_an_image_replaced_under_its_name_is_another_data_set(folders: Path) -> None:
    before = load_dataset(f"folder:{folders}")
    fingerprint = before.fingerprint
    file = folders / "dog" / "3.png"
    pixels = np.array(Image.open(file))
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(file)
    assert before.fingerprint != fingerprint
    assert load_dataset(f"folder:{folders}").fingerprint == before.fingerprint


def test_one_folder_is_one_data_set_however_it_is_named(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absolute = load_dataset(f"folder:{folders}")
    monkeypatch.chdir(folders.parent)
    for path in (folders.name, f"./{folders.name}/", f"{folders.name}/cat/.."):
        relative = load_dataset(f"folder:{path}")
        assert relative.name == absolute.name
        assert data_hash(relative) == data_hash(absolute)


def test_class_folders_and_splits(folders: Path, tmp_path: Path) -> None:
    dataset = load_dataset(f"folder:{folders}")
    assert_content(dataset, PIXELS, [0, 0, 1, 1, 1, 1])
    assert dataset.classes == ["cat", "dog"]
    assert dataset.image_name(3).endswith("dog/3.png")
    (tmp_path / "both").mkdir()
    folders.rename(tmp_path / "both" / "val")
    assert_content(load_dataset(f"folder:{tmp_path}/both", "val"), PIXELS, [0, 0, 1, 1, 1, 1])
    with pytest.raises(ValueError, match="has the splits val, got split='test'"):
        load_dataset(f"folder:{tmp_path}/both")


def test_flat_folder_has_no_labels(tmp_path: Path) -> None:
    for i, pixels in enumerate(PIXELS):
        write_image(tmp_path / f"{i}.png", pixels)
    assert_content(load_dataset(f"folder:{tmp_path}"), PIXELS, None)
    write_image(tmp_path / "class" / "x.png", PIXELS[0])
    with pytest.raises(ValueError, match="mixes class folders with loose images"):
        load_dataset(f"folder:{tmp_path}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no images"):
        load_dataset(f"folder:{tmp_path}/empty")


def test_damaged_images_are_named_and_counted(folders: Path) -> None:
    cut = folders / "dog" / "4.png"
    cut.write_bytes(cut.read_bytes()[:150])
    (folders / "cat" / "0.png").write_text("no image")
    dataset = load_dataset(f"folder:{folders}")
    assert len(dataset) == 6
    with pytest.raises(UnreadableImageError, match=r"image .*dog/4\.png cannot be read: .*truncated") as caught:
        dataset[4]
    assert pickle.loads(pickle.dumps(caught.value)).image_name == str(cut)
    with pytest.warns(UserWarning, match=r"skipped 2 of 6 images, unreadable: .*cat/0\.png, .*dog/4\.png"):
        dataset = load_dataset(f"folder:{folders}", on_error="skip")
    assert_content(dataset, PIXELS[[1, 2, 3, 5]], [0, 1, 1, 1])
    assert [Path(name).name for name in dataset.skipped] == ["0.png", "4.png"]
    for file in folders.rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(ValueError, match="none of the 6 images"):
        load_dataset(f"folder:{folders}", on_error="skip")


@pytest.mark.parametrize("pickled", [False, True])
def test_worker_processes_read_the_same(pickled: bool, folders: Path) -> None:
    dataset = load_dataset(f"folder:{folders}", transform=np.asarray)
    if pickled:  # what a worker that is started afresh is given
        dataset = pickle.loads(pickle.dumps(dataset))
    loader = torch.utils.data.DataLoader(dataset, 2, num_workers=1, multiprocessing_context="fork")
    images, labels = zip(*loader, strict=True)
    np.testing.assert_array_equal(torch.cat(images), PIXELS)
    assert torch.cat(labels).tolist() == [0, 0, 1, 1, 1, 1]


def test_indices(npz: Path) -> None:
    dataset = load_dataset(f"npz:{npz}")
    assert dataset[-1][1] == dataset[5][1]
    with pytest.raises(IndexError, match="index must be below 6, got 6"):
        dataset[6]
    assert sum(1 for _ in dataset) == 6
    with pytest.raises(ValueError, match="has no masks or boxes"):
        dataset.annotation(0)


def test_unknown_names_list_near_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown data set 'cifar-10', near ones: cifar10"):
        load_dataset("cifar-10")
    with pytest.raises(ValueError, match=r"unknown data set 'folders:x', near ones: folder:"):
        load_dataset("folders:x")
    with pytest.raises(ValueError, match="needs a path or name after the colon"):
        load_dataset("folder:")
    with pytest.raises(ValueError, match="on_error must be 'raise' or 'skip', got 'ignore'"):
        load_dataset("sample", on_error="ignore")


def test_absent_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("npz", "folder", "camvid", "tiny-imagenet"):
        with pytest.raises(FileNotFoundError, match="absent"):
            load_dataset(f"{name}:{tmp_path}/absent", "val")
    with pytest.raises(FileNotFoundError, match=r"data set 'cifar10' is not below .*download=True"):
        load_dataset("cifar10", root=tmp_path)
    monkeypatch.delenv("SSLK_DATA", raising=False)
    with pytest.raises(ValueError, match="needs root=FOLDER"):
        load_dataset("cifar10")
    with pytest.raises(ValueError, match="'imagenet' has the splits train, val, got split='test'"):
        load_dataset("imagenet", root=tmp_path)


def test_dtd(tmp_path: Path) -> None:
    for i in range(2):
        write_image(tmp_path / "dtd/dtd/images/banded" / f"{i}.jpg", PIXELS[i])
        write_image(tmp_path / "dtd/dtd/images/dotted" / f"{i}.jpg", PIXELS[i + 2])
    labels = tmp_path / "dtd/dtd/labels"
    labels.mkdir()
    (labels / "test1.txt").write_text("dotted/1.jpg\nbanded/0.jpg\n")
    dataset = load_dataset("dtd", root=tmp_path)
    assert_content(dataset, PIXELS[[3, 0]], [1, 0])
    assert dataset.classes == ["banded", "dotted"]
    assert dataset.image_name(0).endswith("dotted/1.jpg")


def test_food101(tmp_path: Path) -> None:
    write_image(tmp_path / "food-101/images/waffles/1.jpg", PIXELS[0])
    write_image(tmp_path / "food-101/images/apple_pie/7.jpg", PIXELS[1])
    meta = tmp_path / "food-101/meta"
    meta.mkdir()
    (meta / "test.json").write_text(json.dumps({"waffles": ["waffles/1"], "apple_pie": ["apple_pie/7"]}))
    assert_content(load_dataset("food101", root=tmp_path), PIXELS[:2], [1, 0])


def test_fgvc_aircraft(tmp_path: Path) -> None:
    data = tmp_path / "fgvc-aircraft-2013b/data"
    write_image(data / "images/0034309.jpg", PIXELS[0])
    write_image(data / "images/0034958.jpg", PIXELS[1])
    (data / "variants.txt").write_text("707-320\n727-200\n")
    (data / "images_variant_test.txt").write_text("0034309 727-200\n0034958 707-320\n")
    dataset = load_dataset("fgvc-aircraft", root=tmp_path)
    assert_content(dataset, PIXELS[:2], [1, 0])
    assert dataset.classes == ["707-320", "727-200"]


def test_stanford_cars(tmp_path: Path) -> None:
    from scipy.io import savemat

    base = tmp_path / "stanford_cars"
    for i in range(3):
        write_image(base / f"cars_test/0000{i}.jpg", PIXELS[i])
    (base / "devkit").mkdir()
    rows = [(f"0000{i}.jpg", label) for i, label in enumerate((2, 1, 2))]
    annotations = np.array(rows, dtype=[("fname", "O"), ("class", "O")])
    savemat(base / "cars_test_annos_withlabels.mat", {"annotations": annotations})
    savemat(base / "devkit/cars_meta.mat", {"class_names": np.array(["AM General", "Acura RL"], dtype=object)})
    dataset = load_dataset("stanford-cars", root=tmp_path)
    assert_content(dataset, PIXELS[:3], [1, 0, 1])
    assert dataset.classes == ["AM General", "Acura RL"]


def test_caltech101(tmp_path: Path) -> None:
    base = tmp_path / "caltech101/101_ObjectCategories"
    write_image(base / "BACKGROUND_Google/image_0001.jpg", PIXELS[5])
    write_image(base / "Faces/image_0001.jpg", PIXELS[0])
    write_image(base / "anchor/image_0001.jpg", PIXELS[1])
    write_image(base / "anchor/image_0002.jpg", PIXELS[2])
    dataset = load_dataset("caltech101", "all", root=tmp_path)
    assert_content(dataset, PIXELS[:3], [0, 1, 1])
    assert dataset.image_name(2) == "anchor/image_0002.jpg"
    with pytest.raises(ValueError, match="has the splits all, got split='test'"):
        load_dataset("caltech101", root=tmp_path)


def write_imagenet(root: Path) -> None:
    for i, wnid in enumerate(["n01440764", "n01443537", "n02074367"]):
        write_image(root / "val" / wnid / f"ILSVRC2012_val_{i}.JPEG", PIXELS[i])


def test_imagenet(tmp_path: Path) -> None:
    write_imagenet(tmp_path)
    dataset = load_dataset("imagenet", "val", root=tmp_path)
    assert_content(dataset, PIXELS[:3], [0, 1, 2])
    assert dataset.name == "imagenet/val"


def test_imagenet_100_labels_follow_the_class_list(tmp_path: Path) -> None:
    write_imagenet(tmp_path)
    listed = tmp_path / "classes.txt"
    listed.write_text("n02074367 dugong\nn01440764\n")
    dataset = load_dataset(f"imagenet-100:{listed}", "val", root=tmp_path)
    assert_content(dataset, PIXELS[[0, 2]], [1, 0])
    assert dataset.classes == ["n02074367", "n01440764"]
    listed.write_text("n02074367\nn99999999\n")
    with pytest.raises(ValueError, match=r"1 classes of .* have no folder .* the first is n99999999"):
        load_dataset(f"imagenet-100:{listed}", "val", root=tmp_path)
    listed.write_text("n02074367\nn02074367\n")
    with pytest.raises(ValueError, match="needs distinct WordNet ids"):
        load_dataset(f"imagenet-100:{listed}", "val", root=tmp_path)


@pytest.mark.parametrize("split", ["train", "test"])
def test_hugging_face(split: str, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"label": datasets.ClassLabel(names=["a", "b", "c"]), "img": datasets.Image()})
    columns = {"label": [2, 0, 1, 1, 0, 2], "img": [Image.fromarray(pixels) for pixels in PIXELS]}
    datasets.DatasetDict({"test": datasets.Dataset.from_dict(columns, features)}).save_to_disk(tmp_path / "saved")
    if split == "train":
        with pytest.raises(ValueError, match="has the splits test, got split='train'"):
            load_dataset(f"hf:{tmp_path}/saved", split)
        return
    dataset = load_dataset(f"hf:{tmp_path}/saved", split)
    assert_content(dataset, PIXELS, [2, 0, 1, 1, 0, 2])
    assert dataset.classes == ["a", "b", "c"]


def test_sample_is_cifar() -> None:
    dataset = load_dataset("sample", "test")
    assert len(dataset) == 1000
    assert np.bincount(dataset.labels).tolist() == [100] * 10
    assert dataset[0][0].size == (32, 32)
    assert dataset.classes[dataset[0][1]] == "airplane"
