"""Mask folders and Salient ImageNet's layouts: every mask lies on its image, what is missing is said."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from sslk.data import Dataset
from sslk.interpret.masks import MaskFolder
from sslk.interpret.miou import AgreementSettings, mask_agreement
from sslk.interpret.salient_imagenet import read_answers, salient_imagenet
from sslk.models import EvaluationTransform
from tests.interpret.test_miou import Float32

NAMES = ["train/a/x.png", "train/b/x.png", "train/b/y.png"]


def dataset(names=NAMES, side=8):
    return Dataset("set", lambda i: Image.new("RGB", (side, side), (i, 0, 0)), names, None)


def table(folder, rows, columns=("image", "mask", "kind")):
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "masks.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([columns, *rows])


def save(path, pixels, value=255):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.where(pixels, value, 0).astype(np.uint8)).save(path)


def half(side=8, left=True):
    mask = np.zeros((side, side), bool)
    mask[:, : side // 2] = True
    return mask if left else ~mask


def test_folder_joins_masks_of_one_kind_and_names_images_by_their_ends(tmp_path):
    save(tmp_path / "m/1.png", half())
    save(tmp_path / "m/2.png", np.eye(8, dtype=bool))
    save(tmp_path / "m/soft.png", half(left=False), value=100)  # below half of full scale
    table(
        tmp_path,
        [
            ["a/x", "m/1.png", "core"],
            ["a/x", "m/2.png", "core"],
            ["a/x", "m/2.png", "spurious"],
            ["y.png", "m/1.png", "texture"],
            ["b/x.png", "m/soft.png", "core"],
            ["zzz", "m/1.png", "core"],
        ],
    )
    masks = MaskFolder(tmp_path, dataset())
    assert masks.kinds == ("core", "spurious", "texture") and masks.unmatched == ("zzz",)
    np.testing.assert_array_equal(masks(0, 8, 8)["core"], half() | np.eye(8, dtype=bool))
    np.testing.assert_array_equal(masks(0, 8, 8)["spurious"], np.eye(8, dtype=bool))
    assert not masks(1, 8, 8)["core"].any() and list(masks(2, 8, 8)) == ["texture"]
    found = mask_agreement(
        Float32(),
        dataset(),
        masks,
        torch.ones(12, dtype=torch.bool),
        EvaluationTransform((16, 16), (0.5,) * 3, (0.5,) * 3),
        settings=AgreementSettings(eps=0.5),
    )
    assert found.without_mask == {"core": 2, "spurious": 2, "texture": 2}


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([["x", "m/1.png", "core"]], ("image", "mask", "kind"), "both image 0 and image 1"),
        ([["q", "m/1.png", "core"]], ("image", "mask", "kind"), "names no image of set: it says 'q'"),
        ([["x", "m/1.png"]], ("image", "mask"), "lacks kind"),
    ],
)
def test_folder_errors(tmp_path, rows, columns, message):
    table(tmp_path, rows, columns)
    with pytest.raises(ValueError, match=message):
        MaskFolder(tmp_path, dataset())


def test_folder_without_table_or_with_masks_of_another_size(tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match=r"holds no masks\.csv"):
        MaskFolder(tmp_path / "other", dataset())
    save(tmp_path / "m/1.png", half(10))
    table(tmp_path, [["a/x", "m/1.png", "core"]])
    masks, transform = MaskFolder(tmp_path, dataset()), EvaluationTransform((16, 16), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(ValueError, match=r"mask of train/a/x\.png is \[10, 10\]; it must have the image's size \[8, 8\]"):
        mask_agreement(Float32(), dataset(), masks, torch.ones(12, dtype=torch.bool), transform)


def answers(path, votes):
    with open(path, "w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["WorkerId", "Input.class_index", "Input.feature_index", "Input.wordnet_id", "Answer.main"])
        for (wnid, feature), given in votes.items():
            rows.writerows([[f"w{k}", 1, feature, wnid, answer] for k, answer in enumerate(given)])
    return path


VOTES = {
    ("n00000001", 7): ["main_object"] * 3 + ["background"] * 2,
    ("n00000001", 9): ["main_object"] * 2 + ["background", "separate_object", "background"],
    ("n00000001", 11): ["main_object"] * 5,
    ("n00000002", 7): ["background"] * 5,
}


def test_answers_are_decided_by_the_majority(tmp_path):
    kinds = read_answers(answers(tmp_path / "a.csv", VOTES))
    assert list(kinds.values()) == ["core", "spurious", "core", "spurious"]
    with pytest.raises(FileNotFoundError, match="discover_spurious_features"):
        read_answers(tmp_path / "none.csv")
    (tmp_path / "b.csv").write_text("WorkerId,Answer.main\n1,background\n")
    with pytest.raises(ValueError, match=r"lacks Input\.wordnet_id, Input\.feature_index"):
        read_answers(tmp_path / "b.csv")


@pytest.mark.parametrize("bundled", [False, True], ids=["masks-only", "images-beside"])
def test_both_layouts_of_salient_imagenet(tmp_path, bundled):
    root, images = tmp_path / "masks", tmp_path / "imagenet"
    where = "feature_{}/cams/{}.jpeg" if bundled else "feature_{}/{}.JPEG"
    for wnid, feature, name, mask in [
        ("n00000001", 7, "one", half()),
        ("n00000001", 11, "one", np.eye(8, dtype=bool)),
        ("n00000001", 9, "one", half(left=False)),
        ("n00000001", 7, "two", half()),
        ("n00000002", 7, "one", half()),
        ("n00000001", 500, "three", half()),
    ]:
        (file := root / wnid / where.format(feature, name)).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(file, quality=100)
        picture = root / wnid / f"feature_{feature}/images/{name}.jpeg" if bundled else images / wnid / f"{name}.JPEG"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (200, 0, 0)).save(picture)
    (root / "n00000001/image_names_map.csv").write_text("7\none\n")
    table_file = answers(tmp_path / "answers.csv", VOTES)
    data, masks = salient_imagenet(root, table_file, None if bundled else images)
    assert len(data) == 3 and data.labels.tolist() == [0, 0, 1] and data.classes == ["n00000001", "n00000002"]
    assert data[0][0].getpixel((0, 0))[0] > 190
    first = masks(0, 8, 8)
    np.testing.assert_array_equal(first["core"], half() | np.eye(8, dtype=bool))
    np.testing.assert_array_equal(first["spurious"], half(left=False))
    assert list(masks(1, 8, 8)) == ["core"] and list(masks(2, 8, 8)) == ["spurious"]
    if not bundled:
        with pytest.raises(ValueError, match="give images=FOLDER"):
            salient_imagenet(root, table_file)
        (images / "n00000001/two.JPEG").unlink()
        with pytest.raises(ValueError, match=r"1 of 3 images of .* are missing, the first is n00000001/two"):
            salient_imagenet(root, table_file, images)
