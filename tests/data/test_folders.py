"""Folders as they are: what is left out and said, the order of classes, links, and names of any bytes."""

from __future__ import annotations

import csv
import hashlib
import os
import pickle
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslk.data import Dataset, load_dataset
from sslk.data.archives import Archive
from sslk.data.folders import folder_labels
from sslk.features.identity import data_hash
from sslk.features.manifest import Manifest, StoreSpec
from sslk.files.tables import read_rows
from sslk.results.atomic import write_table

LITTER = (".a.png", "._a.png", ".DS_Store", "Thumbs.db", "Desktop.ini", ".ipynb_checkpoints/a-checkpoint.png", "__MACOSX/._a.png")
ODD = os.fsdecode(b"odd-\xff\xfe")
NAMES = [ODD, 'a,b\n"c', "=cmd", "+x", "@x", "Grüße 猫", "-x", "'tis", "a\tb"]


def tree(root: Path, *files: str) -> Path:
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            Image.new("RGB", (3, 2), (10, 20, 30)).save(path)
        else:
            path.write_bytes(b"words")
    return root


def loaded(path: Path, split: str = "test") -> tuple[Dataset, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = load_dataset(f"folder:{path}", split)
    return dataset, [str(warning.message).removeprefix(f"{path}: ") for warning in caught]


def test_hidden_and_stray_files_are_left_out_and_said_once(tmp_path: Path) -> None:
    clean, silent = loaded(tree(tmp_path / "clean", *(f"{c}/{i}.png" for c in ("cat", "dog") for i in "ab")))
    assert silent == []
    files = [f"{c}/{i}.png" for c in ("cat", "dog") for i in "ab"]
    strays = ["cat/notes.txt", "readme", "labels.csv"]
    dirty = tree(tmp_path / "dirty", *files, *LITTER, *(f"cat/{name}" for name in LITTER), *strays)
    dataset, said = loaded(dirty)
    assert (dataset.classes, dataset.labels.tolist()) == (["cat", "dog"], [0, 0, 1, 1]) == (clean.classes, clean.labels.tolist())
    assert [Path(dataset.image_name(i)).relative_to(dirty).as_posix() for i in range(4)] == files
    assert said == [
        "left out 6 hidden files (.DS_Store, ...), 4 files of a system (Desktop.ini, ...), 2 folders of a system (__MACOSX, "
        "...), 2 hidden folders (.ipynb_checkpoints, ...), 1 .csv file (labels.csv), 2 others."
    ]


def test_the_same_in_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name in ("CamVid/val/a.png", "CamVid/valannot/a.png", *(f"CamVid/val/{name}" for name in LITTER)):
            file.writestr(name, tree(tmp_path, "x.png").joinpath("x.png").read_bytes())
    archive = Archive(tmp_path / "a.zip")
    assert archive.names == ["CamVid/val/a.png", "CamVid/valannot/a.png"]
    assert sum(map(len, archive.left_out.values())) == len(LITTER)
    with pytest.warns(UserWarning, match=r"a\.zip: left out 3 hidden files"):
        assert len(load_dataset(f"camvid:{tmp_path}/a.zip", "val")) == 1


@pytest.mark.parametrize(
    ("folders", "classes", "words"),
    [
        (["0", "1", "2", "10"], ["0", "1", "2", "10"], ["labels 0 to 3 are the folders 0, 1, 2, 10."]),
        (["1", "2"], ["1", "2"], ["labels 0 to 1 are the folders 1, 2."]),
        (["0", "1"], ["0", "1"], []),
        (["007", "05", "5", "x"], ["007", "05", "5", "x"], []),
        (["007", "05", "5"], ["05", "5", "007"], ["labels 0 to 2 are the folders 05, 5, 007."]),
        (
            [str(i) for i in range(12)],
            [str(i) for i in range(12)],
            ["labels 0 to 11 are the folders 0, 1, 2, 3, 4, 5, ..., 10, 11."],
        ),
        (["²", "1"], ["1", "²"], []),
    ],
)
def test_numbers_stand_in_numeric_order(folders: list[str], classes: list[str], words: list[str], tmp_path: Path) -> None:
    dataset, said = loaded(tree(tmp_path, *(f"{name}/{i}.png" for name in folders for i in "ab")))
    assert dataset.classes == classes
    for index in range(len(dataset)):
        assert Path(dataset.image_name(index)).parent.name == classes[dataset.labels[index]]
    assert [line.removeprefix("class folders are numbers and stand in numeric order: ") for line in said] == words


def test_empty_classes_and_single_images_are_said(tmp_path: Path) -> None:
    tree(tmp_path, "a/1.png", "a/2.png", "b/1.png", "c/words.txt", "e/.hidden.png")
    (tmp_path / "d").mkdir()
    dataset, said = loaded(tmp_path)
    assert (dataset.classes, dataset.labels.tolist()) == (["a", "b", "c", "d", "e"], [0, 0, 1])
    assert said[1:] == ["3 of 5 classes hold no image: c, d, e.", "1 of 5 classes holds a single image: b."]


def test_links_are_followed_once(tmp_path: Path) -> None:
    tree(tmp_path, "elsewhere/x/a.png", "set/y/a.png", "set/y/b.png")
    root = tmp_path / "set"
    (root / "x").symlink_to(tmp_path / "elsewhere" / "x")
    (root / "y" / "up").symlink_to(root)
    (root / "y" / "self.png").symlink_to("self.png")
    (root / "y" / "gone.png").symlink_to("nowhere.png")
    (root / "y" / "linked.png").symlink_to("b.png")
    os.mkfifo(root / "y" / "pipe.png")
    dataset, said = loaded(root)
    assert [Path(dataset.image_name(i)).name for i in range(4)] == ["a.png", "a.png", "b.png", "linked.png"]
    assert dataset.classes == ["x", "y"] and dataset.labels.tolist() == [0, 1, 1, 1]
    assert said[0] == "left out 2 broken links (y/gone.png, ...), 1 circular link (y/up), 1 special file (y/pipe.png)."


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "a/1.png", "b/1.png")

    def scandir(path: str, real=os.scandir):  # the tests may run as root, who may read everything
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ValueError, match=r"the folder .*/b cannot be read: Permission denied"):
        load_dataset(f"folder:{tmp_path}")


def test_a_folder_of_nothing_but_litter(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no images \(.*\); left out 1 hidden file \(\.a\.png\)"):
        load_dataset(f"folder:{tree(tmp_path, '.a.png')}")


def test_what_cannot_be_read_is_an_image_all_the_same(tmp_path: Path) -> None:
    tree(tmp_path, "a/1.png", "a/2.png", "a/3.HEIC", "a/4.cr2")
    (tmp_path / "a" / "3.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert len(load_dataset(f"folder:{tmp_path}")) == 4
    with pytest.warns(UserWarning, match=r"skipped 2 of 4 images, unreadable: .*3\.HEIC, .*4\.cr2"):
        assert len(load_dataset(f"folder:{tmp_path}", on_error="skip")) == 2


def test_thousands_of_classes_take_no_square(tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / f"{number:05d}").mkdir()
        (tmp_path / f"{number:05d}" / "a.png").touch()
    dataset = load_dataset(f"folder:{tmp_path}")
    assert dataset.labels.tolist() == list(range(1000)) and dataset.classes[-1] == "00999"
    classes = [f"{number:07d}" for number in range(20_000)]
    start = time.process_time()
    labels = folder_labels([f"{name}/{i}.png" for name in classes for i in range(5)], classes)
    assert time.process_time() - start < 2  # a search of the list for each file: 20 s
    np.testing.assert_array_equal(labels, np.arange(20_000).repeat(5))


@pytest.fixture
def odd_names(tmp_path: Path) -> Path:
    try:
        tree(tmp_path / "set", *(f"{folder}/{name}.png" for folder in ("a", ODD) for name in NAMES))
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system takes UTF-8 only")
    return tmp_path / "set"


def test_names_of_any_bytes_are_read_and_written(odd_names: Path, tmp_path: Path) -> None:
    dataset = load_dataset(f"folder:{odd_names}")
    assert dataset.classes == ["a", ODD] and len(dataset) == 2 * len(NAMES) == sum(1 for _ in dataset)
    names = [Path(dataset.image_name(i)).name for i in range(len(NAMES))]
    assert set(names) == {f"{name}.png" for name in NAMES}
    assert len(data_hash(dataset)) == len(pickle.loads(pickle.dumps(dataset)).fingerprint) == 64
    write_table(tmp_path / "t.csv", [["name"], *([name] for name in names)])
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        rows = list(csv.reader(stream))
    assert not [row for row in rows if row[0].startswith(("=", "+", "-", "@", "\t"))]
    assert {os.fsencode(row[0].removeprefix("'") if row[0] != "'tis.png" else row[0]) for row in rows[1:]} == {
        os.fsencode(name) for name in names
    }
    assert read_rows(tmp_path / "t.csv", "the table") == [["name"], *([name] for name in names)]


def test_classes_of_any_bytes_come_back_from_a_manifest(tmp_path: Path) -> None:
    spec = StoreSpec("m", "w", "d", "h", "t", 1, 4, classes=tuple(NAMES))
    (tmp_path / "manifest.json").write_bytes(Manifest(spec).to_json().encode())
    assert Manifest.read(tmp_path).spec.classes == tuple(NAMES)


def test_fingerprints_of_ordinary_names_are_what_they_were() -> None:
    data = Dataset("x", lambda index: Image.new("L", (1, 1)), ["a.png", "é.png"], None, checksum="c")
    assert data.fingerprint == hashlib.sha256("ca.png\né.png\n".encode()).hexdigest()


def test_a_name_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has a name that no file can have, '\\ud800'"):
        Dataset("x", lambda index: Image.new("L", (1, 1)), ["\ud800"], None)


def test_a_file_of_another_kind_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("image,label\na,b\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"the table .*t\.csv is no text in UTF-8"):
        read_rows(tmp_path / "t.csv", "the table")


def test_imagenet_folders_are_read_like_others(tmp_path: Path) -> None:
    tree(tmp_path / "val", *(f"n{c}/{i}.png" for c in "12" for i in "ab"), "n1/._a.png", ".cache/x.png")
    with pytest.warns(UserWarning, match="left out 1 hidden file .*1 hidden folder"):
        dataset = load_dataset("imagenet", "val", root=tmp_path)
    assert (dataset.classes, dataset.labels.tolist()) == (["n1", "n2"], [0, 0, 1, 1])
    assert torch.utils.data.default_collate([np.asarray(image) for image, _ in dataset]).shape == (4, 2, 3, 3)
