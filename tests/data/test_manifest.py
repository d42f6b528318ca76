"""Data sets from a manifest: what its cells mean, and what is said about bad ones."""

from __future__ import annotations

import csv
import os
import pickle
import time
import warnings
from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import Image

from sslk.data import UnreadableImageError, load_dataset, read_manifest, splits_of
from sslk.features.identity import data_hash
from sslk.files.tables import write_rows

pytestmark = pytest.mark.filterwarnings("ignore:the manifest .*(no column split|separated by|a list of labels|takes the column)")
FILES = [f"{name}.png" for name in "abcdef"]
LABELS = ["dog", "cat", "dog", "bird", "", "cat"]
SPLITS = ["train", "train", "train", "test", "test", "val"]


def images(folder: Path, names: list[str] = FILES) -> list[np.ndarray]:
    """Image k is of the grey value k."""
    pixels = [np.full((4, 5, 3), k, np.uint8) for k in range(len(names))]
    for name, part in zip(names, pixels, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(part).save(folder / name, "png")
    return pixels


def table(path: Path, **columns: list) -> Path:
    frame = pandas.DataFrame({name.replace("__", ":"): values for name, values in columns.items()})
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images(tmp_path)
    return tmp_path


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_splits_share_the_classes_of_the_whole_file(folder: Path, suffix: str) -> None:
    path = table(folder / f"m.{suffix}", file=FILES, label=LABELS, split=SPLITS, other=range(6))
    expected = {"train": ([0, 1, 2], [2, 1, 2]), "test": ([3, 4], [0, -1]), "val": ([5], [1])}
    for split, (rows, labels) in expected.items():
        data = load_dataset(f"manifest:{path}", split)
        assert data.classes == ["bird", "cat", "dog"] and data.labels.tolist() == labels
        assert data.name == f"manifest:{path}/{split}"
        assert [(np.asarray(data[i][0])[0, 0, 0], data[i][1]) for i in range(len(data))] == list(zip(rows, labels, strict=True))
        assert [data.image_name(i) for i in range(len(data))] == [str(folder / FILES[row]) for row in rows]
    with pytest.raises(ValueError, match=r"has the splits test \(2\), train \(3\), val \(1\), got split='Test'"):
        load_dataset(f"manifest:{path}", "Test")


@pytest.mark.parametrize(
    ("cells", "labels", "classes"),
    [
        (["10", "2", "1", "2", "10", "1"], [2, 1, 0, 1, 2, 0], ["1", "2", "10"]),
        (["10.0", "", "1.0", "NaN", "None", "-1"], [1, -1, 0, -1, -1, -1], ["1", "10"]),
        (["007", "7", "3", "-2", "nan", "-1.0"], [1, 1, 0, -1, -1, -1], ["3", "7"]),
        (["10", "2", "x", "2", " x", "none"], [0, 1, 3, 1, 3, 2], ["10", "2", "none", "x"]),
        (["", "nan", "-1", "", "", "None"], [-1] * 6, []),
    ],
)
def test_what_a_label_means(folder: Path, cells: list[str], labels: list[int], classes: list[str]) -> None:
    (folder / "m.csv").write_text("file,label\n" + "".join(f"{a},{b}\n" for a, b in zip(FILES, cells, strict=True)))
    data = load_dataset(f"manifest:{folder}/m.csv")
    assert (data.labels.tolist(), data.classes) == (labels, classes)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("dtype", ["Int64", "float64", "category", "object"])
def test_labels_of_pandas(folder: Path, suffix: str, dtype: str) -> None:
    label = pandas.Series([10, 2, None, 2, 10, 3]).astype(dtype if dtype != "object" else "Int64")
    label = label.astype(object).where(label.notna(), None) if dtype == "object" else label
    data = load_dataset(f"manifest:{table(folder / f'm.{suffix}', file=FILES, label=label)}")
    assert (data.labels.tolist(), data.classes) == ([2, 0, -1, 0, 2, 1], ["2", "3", "10"])


def test_without_labels_or_splits(folder: Path) -> None:
    path = table(folder / "m.csv", Path=FILES)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        data = load_dataset(f"manifest:{path}", "whatever")
    assert data.labels is None and len(data) == 6 and data.name == f"manifest:{path}"
    texts = [str(warning.message) for warning in said]
    assert any("takes the column 'Path' for the files" in text for text in texts)
    assert any("has no column split: all 6 rows are taken" in text for text in texts)


def test_nothing_is_said_of_a_plain_manifest(folder: Path) -> None:
    path = table(folder / "m.csv", file=FILES, label=LABELS, split=SPLITS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_dataset(f"manifest:{path}", "train")


AWKWARD = ["a,b.png", 'c"d.png', "e\nf.png", "=1+2.png", "'tis.png", " g .png", "ä/ö.png", "-h.png", os.fsdecode(b"caf\xe9.png")]


@pytest.mark.parametrize("written", ["plain", "cells", "bom and CRLF", "tsv", "parquet"])
def test_any_name_a_file_can_have(tmp_path: Path, written: str) -> None:
    names = AWKWARD if written in ("plain", "tsv") else AWKWARD[:-1]
    images(tmp_path, names)
    path = tmp_path / {"tsv": "m.tsv", "parquet": "m.parquet"}.get(written, "m.csv")
    rows = [["file", "label"], *([name, k] for k, name in enumerate(names))]
    if written == "parquet":
        table(path, file=names, label=range(len(names)))
    else:
        encoding = "utf-8-sig" if written.startswith("bom") else "utf-8"
        with open(path, "w", newline="", encoding=encoding, errors="surrogateescape") as stream:
            if written == "cells":
                write_rows(stream, rows)
            else:
                ends = "\r\n" if written.startswith("bom") else "\n"
                csv.writer(stream, lineterminator=ends, delimiter="\t" if written == "tsv" else ",").writerows(rows)
    manifest = read_manifest(path)
    assert manifest.files == names and manifest.labels.tolist() == list(range(len(names)))
    data = load_dataset(f"manifest:{path}")
    assert [np.asarray(data.image(k))[0, 0, 0] for k in range(len(names))] == list(range(len(names)))
    assert [data.image_name(k) for k in range(len(names))] == [str(tmp_path / name) for name in names]
    assert len(data.fingerprint) == len(data_hash(data)) == 64


def test_paths_are_relative_to_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images(tmp_path, ["photos/a.png", "b.png", "c.png", "lists/d.png"])
    (tmp_path / "lists").mkdir(exist_ok=True)
    path = table(tmp_path / "lists" / "m.csv", file=["../photos/a.png", "../b.png", str(tmp_path / "c.png"), "./d.png"])
    data = load_dataset(f"manifest:{path}")
    assert [np.asarray(data.image(k))[0, 0, 0] for k in range(4)] == [0, 1, 2, 3]
    monkeypatch.chdir(tmp_path)
    relative = load_dataset("manifest:lists/../lists/m.csv")
    assert (relative.name, data_hash(relative)) == (data.name, data_hash(data))
    assert np.asarray(pickle.loads(pickle.dumps(data)).image(3))[0, 0, 0] == 3


def test_files_that_are_not_there(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    (folder / "f.png").write_bytes(b"no image")
    path = table(folder / "m.csv", file=["a.png", "none.png", "pipe.png", "b.png", "f.png"], label=[0, 1, 2, 3, 4])
    with pytest.warns(UserWarning, match=r"names 2 of 5 files that are not there, the first is .*/none\.png"):
        data = load_dataset(f"manifest:{path}")
    assert len(data) == 5 and len(data.fingerprint) == 64
    for number in (1, 2, 4):
        with pytest.raises(UnreadableImageError):
            data[number]
    with pytest.warns(UserWarning, match="skipped 3 of 5 images"):
        data = load_dataset(f"manifest:{path}", on_error="skip")
    assert data.labels.tolist() == [0, 3] and data.classes == list("01234")
    assert data.skipped == tuple(str(folder / name) for name in ("none.png", "pipe.png", "f.png"))
    with pytest.raises(FileNotFoundError, match=r"none of the 2 files of the manifest .* the first is .*/x/a\.png"):
        load_dataset(f"manifest:{table(folder / 'n.csv', file=['x/a.png', 'x/b.png'])}")


def test_an_image_replaced_under_its_name_is_another_data_set(folder: Path) -> None:
    path = table(folder / "m.csv", file=FILES[:2], label=["x", "y"])
    before = load_dataset(f"manifest:{path}").fingerprint
    assert load_dataset(f"manifest:{path}").fingerprint == before
    Image.new("RGB", (4, 5), "red").save(folder / "b.png")
    assert load_dataset(f"manifest:{path}").fingerprint != before
    assert load_dataset(f"manifest:{table(path, file=FILES[1::-1], label=['y', 'x'])}").fingerprint != before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png,cat\nb.png,dog\n", r"needs a header with a column file .*, its first row is 'a\.png, cat'"),
        ("file,label\n", "has a header and no rows"),
        ("", "its first row is 'nothing'"),
        ("file,label\na.png,cat\n,dog\n", "empty cell in the column file, in row 2"),
        ("file,label\na.png,cat\nb.png\n", "has 1 cells in row 2, its header 2"),
        ("file,label\na.png,0.5\n", "must be names or whole numbers, got 0.5"),
        ("file,label\na.png,x\nb.png,y\n./a.png,z\n", "names './a.png' twice, in rows 1 and 3"),
        ("file,file\na.png,b.png\n", "has the column 'file' twice"),
        ('file,label\n"a.png,x\n', "is no CSV"),
        ("file,label,label:x\na.png,x,1\n", "has the column 'label' and 'label:x': keep one kind"),
        ("file,label:x,label: x\na.png,1,0\n", "has two columns label:NAME of one name"),
        ("file,label:x\na.png,2\n", "the column label:x of .* must hold 0, 1 or nothing, got '2' in row 1"),
        ("file,split\na.png,\n", "has the splits of no row, got split='test'"),
        ("file\n" + "x" * 5000 + "\n", "none of the 1 files"),
        ("file\na\0.png\n", "none of the 1 files|is no CSV"),
    ],
)
def test_bad_manifests(folder: Path, text: str, message: str) -> None:
    (folder / "m.csv").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_dataset(f"manifest:{folder}/m.csv")


def test_bad_files(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no manifest"):
        load_dataset(f"manifest:{folder}/none.csv")
    with pytest.raises(ValueError, match="must be a regular file"):
        load_dataset(f"manifest:{folder}")
    (folder / "m.csv").write_text("file\na.png\n", encoding="utf-16")
    with pytest.raises(ValueError, match="is UTF-16"):
        load_dataset(f"manifest:{folder}/m.csv")
    path = table(folder / "m.parquet", file=FILES, label=LABELS)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="is no readable Parquet file"):
        load_dataset(f"manifest:{path}")
    path = table(folder / "n.parquet", image=[{"bytes": b"x" * 9999, "path": "a.png"}])
    with pytest.raises(ValueError, match=r"the column 'image' of .* must hold text or numbers, got struct"):
        load_dataset(f"manifest:{path}")
    with pytest.raises(ValueError, match="near ones: manifest:"):
        load_dataset("manifset:x.csv")


def test_an_image_of_two_splits_is_said(folder: Path) -> None:
    path = table(folder / "m.csv", file=[*FILES, "./a.png"], label=[*LABELS, "dog"], split=[*SPLITS, "test"])
    with pytest.warns(
        UserWarning, match=r"1 images of the split 'test' are in another one too, the first is 'a\.png', in 'train'"
    ):
        load_dataset(f"manifest:{path}", "test")


def test_training_and_test_of_one_file_or_two(folder: Path) -> None:
    path = table(folder / "m.csv", file=FILES, label=LABELS, split=SPLITS)
    assert splits_of(f"manifest:{path}") == ((f"manifest:{path}", "train"), (f"manifest:{path}", "test"))
    assert splits_of("manifest:a+1.csv+manifest:b.csv") == (("manifest:a+1.csv", "train"), ("manifest:b.csv", "test"))
    assert splits_of("cifar10+cifar100") == (("cifar10", "train"), ("cifar100", "test"))
    for name in ("bare.csv", "bare.parquet"):
        with pytest.raises(ValueError, match="has no column split: add one, or name two files"):
            splits_of(f"manifest:{table(folder / name, file=FILES, label=LABELS)}")


def test_several_labels_in_a_cell(folder: Path) -> None:
    path = table(folder / "m.csv", file=FILES, label=["cat|red", "dog", "", "|", "red | cat | cat", "a;b"], split=SPLITS)
    with pytest.warns(UserWarning, match=r"holds several labels, separated by '\|'"):
        data = load_dataset(f"manifest:{path}", "train")
    assert data.classes == ["a;b", "cat", "dog", "red"] and data.labels is None and data[0][1] == -1
    assert data.multi_labels.dtype == np.int8
    assert data.multi_labels.tolist() == [[0, 1, 0, 1], [0, 0, 1, 0], [-1] * 4]
    assert load_dataset(f"manifest:{path}", "test").multi_labels.tolist() == [[0] * 4, [0, 1, 0, 1]]
    assert load_dataset(f"manifest:{path}", "val").multi_labels.tolist() == [[1, 0, 0, 0]]
    path = table(folder / "m.csv", file=FILES, label=["10;2", "2", "-1", "10", "2", "3"])
    data = load_dataset(f"manifest:{path}")
    assert (data.classes, data.multi_labels[:3].tolist()) == (["2", "3", "10"], [[1, 0, 1], [1, 0, 0], [-1, -1, -1]])


def test_lists_of_labels_in_parquet(folder: Path) -> None:
    path = table(folder / "m.parquet", file=FILES, label=[["b", "a|c"], [], None, ["b"], ["b"], ["a|c"]])
    data = load_dataset(f"manifest:{path}")
    assert data.classes == ["a|c", "b"]
    assert data.multi_labels.tolist() == [[1, 1], [0, 0], [-1, -1], [0, 1], [0, 1], [1, 0]]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_columns_of_zero_and_one(folder: Path, suffix: str) -> None:
    path = table(folder / f"m.{suffix}", file=FILES, label__dog=[1, 0, 1, 0, 0, 1], label__cat=[0, 1, None, 1, 0, None])
    data = load_dataset(f"manifest:{path}")
    assert data.classes == ["dog", "cat"]
    assert data.multi_labels.tolist() == [[1, 0], [0, 1], [1, -1], [0, 1], [0, 0], [1, -1]]


def test_multi_labels_follow_their_images(folder: Path) -> None:
    path = table(folder / "m.csv", file=["a.png", "none.png", "b.png", "c.png"], label=["x", "y", "x|y", ""])
    with pytest.warns(UserWarning, match="skipped 1 of 4"):
        data = load_dataset(f"manifest:{path}", on_error="skip")
    assert data.multi_labels.tolist() == [[1, 0], [1, 1], [-1, -1]]
    part = data.subset([2, 0])
    assert part.multi_labels.tolist() == [[-1, -1], [1, 0]] and part.image_name(1).endswith("a.png")
    assert repr(part).startswith("MultiLabelDataset(") and "2 labels for each" in repr(part)


def test_a_million_rows_take_seconds(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    with open(path, "w") as stream:
        stream.write("file,label,split\n")
        stream.writelines(f"folder/{k:07d}.jpg,{k % 1000},{'train' if k % 10 else 'test'}\n" for k in range(1_000_000))
    begun = time.process_time()
    manifest = read_manifest(path)
    took = time.process_time() - begun
    assert manifest.labels.tolist() == [k % 1000 for k in range(1_000_000)] and len(manifest.rows("test")) == 100_000
    assert took < 20
