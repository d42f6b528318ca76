"""The published sets that torchvision reads: their splits, and where it keeps labels and classes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sslk.data.archives import Archive
from sslk.data.dataset import Dataset
from sslk.data.decode import DECODING
from sslk.data.folders import class_order, folder_labels, images_of, say_classes
from sslk.data.listing import say_left_out
from sslk.data.sources import FileSource, ItemSource
from sslk.files.text import read_text

IMAGENET_SPLITS = ("train", "val")


@dataclass(frozen=True)
class PublishedSet:
    """How to ask torchvision for a set.

    Attributes:
        reader: Name in `torchvision.datasets`.
        splits: Split -> arguments of the reader.
        labels, classes: The reader's attributes.
        folder: Where below the root this reader expects its files, where it does not append it itself.
    """

    reader: str
    splits: Mapping[str, Mapping[str, Any]]
    labels: str = "_labels"
    classes: str = "classes"
    folder: str = "."


def _named(*splits: str) -> dict[str, dict[str, str]]:
    return {split: {"split": split} for split in splits}


_TRAIN_TEST = {"train": {"train": True}, "test": {"train": False}}

PUBLISHED_SETS: Mapping[str, PublishedSet] = {
    "cifar10": PublishedSet("CIFAR10", _TRAIN_TEST, labels="targets"),
    "cifar100": PublishedSet("CIFAR100", _TRAIN_TEST, labels="targets"),
    "stl10": PublishedSet("STL10", _named("train", "test", "unlabeled"), labels="labels"),
    "fgvc-aircraft": PublishedSet("FGVCAircraft", _named("train", "val", "trainval", "test")),
    "flowers102": PublishedSet("Flowers102", _named("train", "val", "test")),
    "food101": PublishedSet("Food101", _named("train", "test")),
    "stanford-cars": PublishedSet("StanfordCars", _named("train", "test"), labels="_samples"),
    "dtd": PublishedSet("DTD", _named("train", "val", "test")),
    "caltech101": PublishedSet("Caltech101", {"all": {}}, labels="y", classes="categories"),
    "places365": PublishedSet(
        "Places365",
        {"train": {"split": "train-standard", "small": True}, "val": {"split": "val", "small": True}},
        labels="targets",
        folder="places365",
    ),
}


def published_dataset(name: str, split: str, root: Path, download: bool) -> Dataset:
    """One of `PUBLISHED_SETS`, its files below `root` as torchvision lays them out."""
    from torchvision import datasets

    published = PUBLISHED_SETS[name]
    check_split(name, split, published.splits)
    reader = getattr(datasets, published.reader)
    place = root / published.folder
    try:
        items = reader(str(place), download=download, **published.splits[split])
    except (RuntimeError, OSError, ValueError) as error:
        advice = "" if download else "; pass download=True to fetch it"
        raise FileNotFoundError(f"data set {name!r} is not below {place} ({error}){advice}") from error
    labels = getattr(items, published.labels)
    if name == "stanford-cars":
        labels = [label for _, label in labels]
    values = None if split == "unlabeled" else np.asarray(labels, dtype=np.int64)
    names, classes = _image_names(name, items), _classes(items, published)
    dataset = Dataset(f"{name}/{split}", ItemSource(items).read, names, values, classes)
    dataset.decoding = "" if isinstance(getattr(items, "data", None), np.ndarray) else DECODING  # arrays are not decoded
    return dataset


def imagenet_dataset(name: str, split: str, root: Path, class_list: Path | None) -> Dataset:
    """ImageNet in one folder per WordNet id below `root/split`; `class_list` keeps the ids it lists, in its order."""
    check_split(name, split, IMAGENET_SPLITS)
    folder = root / split
    if not folder.is_dir():
        raise FileNotFoundError(f"data set {name!r} needs the folder {folder} with one folder per WordNet id")
    wnids = None if class_list is None else _read_class_list(class_list)
    absent = [wnid for wnid in wnids or () if not (folder / wnid).is_dir()]
    if absent:
        raise ValueError(f"{len(absent)} classes of {class_list} have no folder in {folder}, the first is {absent[0]}")
    archive = Archive(folder, wnids)
    images = [file for file in images_of(archive) if "/" in file]
    say_left_out(folder, archive.left_out)
    classes = class_order(archive.folders) if wnids is None else wnids
    labels = folder_labels(images, classes)
    say_classes(folder, classes, labels)
    names = [os.path.join(folder, file) for file in images]
    dataset = Dataset(f"{name}/{split}", FileSource(archive, images).read, names, labels, classes)
    dataset.decoding = DECODING
    return dataset


def check_split(name: str, split: str, splits: Any) -> None:
    """Raise ValueError where a set has no such split."""
    if split not in splits:
        raise ValueError(f"data set {name!r} has the splits {', '.join(splits)}, got split={split!r}")


def _read_class_list(path: Path) -> list[str]:
    if not path.exists():
        raise FileNotFoundError(f"there is no class list {path}; it needs one WordNet id a line")
    # Published lists put the class name behind the id.
    wnids = [line.split()[0] for line in read_text(path, "the class list").splitlines() if line.strip()]
    if not wnids or len(set(wnids)) != len(wnids):
        raise ValueError(f"the class list {path} needs distinct WordNet ids, one a line, got {len(wnids)} lines")
    if strange := [wnid for wnid in wnids if len(wnid) > 100 or not wnid.isalnum()]:
        raise ValueError(f"the class list {path} needs WordNet ids, got {strange[0][:80]!r}")
    return wnids


def _image_names(name: str, items: Any) -> list[str]:
    if hasattr(items, "_image_files"):
        return [str(path) for path in items._image_files]
    if name == "caltech101":
        return [f"{items.categories[y]}/image_{i:04d}.jpg" for y, i in zip(items.y, items.index, strict=True)]
    pairs = getattr(items, "_samples", None) or getattr(items, "imgs", None)
    return [str(path) for path, _ in pairs] if pairs else [f"{name}[{i}]" for i in range(len(items))]


def _classes(items: Any, published: PublishedSet) -> list[str]:
    return [str(c) for c in getattr(items, published.classes, ())]
