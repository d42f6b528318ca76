"""Where images come from: arrays, files, torchvision's sets, Hugging Face, and the annotated layouts.

A source has `read(i)` and is picklable, so that loader processes started afresh can have it; each `*_dataset` function
builds one and wraps it as a `Dataset`.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sslk.data.archives import Archive
from sslk.data.dataset import Annotation, Dataset, class_count
from sslk.data.decode import DECODING
from sslk.data.listing import say_left_out
from sslk.files.arrays import read_arrays

# SegNet's eleven classes of CamVid, by the value in its label images.
CAMVID_CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign symbol",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
    "unlabelled",
)


class ArraySource:
    """Images uint8 `[N, H, W, 3]` or `[N, H, W]` in memory."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(np.asarray(self.images[index]))


class FileSource:
    """Image files of a folder or zip; masks and boxes beside them."""

    def __init__(
        self,
        archive: Archive,
        images: list[str],
        masks: list[str] | None = None,
        boxes: np.ndarray | None = None,
        labels: np.ndarray | None = None,
    ) -> None:
        self.archive, self.images, self.masks, self.boxes, self.labels = archive, images, masks, boxes, labels

    def read(self, index: int) -> Image.Image:
        return self.archive.image(self.images[index])

    def checksum(self, index: int) -> str:
        return self.archive.checksum(self.images[index])

    def annotate(self, index: int) -> Annotation:
        mask = None if self.masks is None else np.array(self.archive.image(self.masks[index]))
        if self.boxes is None or self.labels is None:
            return Annotation(mask=mask)
        return Annotation(mask=mask, boxes=self.boxes[index : index + 1], labels=self.labels[index : index + 1])


class ItemSource:
    """A data set that yields `(image, target)` tuples, as torchvision's do."""

    def __init__(self, items: Any) -> None:
        self.items = items

    def read(self, index: int) -> Image.Image:
        return self.items[index][0]


class RowSource:
    """A Hugging Face data set's image column."""

    def __init__(self, rows: Any, column: str) -> None:
        self.rows, self.column = rows, column

    def read(self, index: int) -> Image.Image:
        return self.rows[index][self.column]


def array_dataset(name: str, path: Path) -> Dataset:
    """An .npz with `images` uint8 `[N, H, W, 3]` (or grey `[N, H, W]`) and, where known, `labels` `[N]`."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} for the data set {name!r}")
    arrays, keys = read_arrays(path, "the data set", ("images", "labels", "classes"))
    images, labels, named = (arrays.get(key) for key in ("images", "labels", "classes"))
    if images is None:
        raise ValueError(f"{path} needs an array 'images', it holds {', '.join(keys) or 'nothing'}")
    known = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
    if images.dtype != np.uint8 or not known or 0 in images.shape[1:]:
        raise ValueError(f"images in {path} must be uint8 [N, H, W, 3] or [N, H, W], got {images.dtype} {list(images.shape)}")
    labels = None if labels is None else _whole(labels, path)
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"{path} needs one label per image, got {len(labels)} for {len(images)}")
    if named is not None and named.ndim != 1:
        raise ValueError(f"classes in {path} must be names [C], got {named.dtype} {list(named.shape)}")
    count = 0 if labels is None else class_count(labels, str(path))
    if named is not None and count > len(named):
        raise ValueError(f"{path} names {len(named)} classes, and its labels go up to {count - 1}")
    classes = [str(i) for i in range(count)] if named is None else [str(name) for name in named]
    names = [f"{path.name}[{i}]" for i in range(len(images))]
    content = f"{zlib.crc32(np.ascontiguousarray(images).data):08x}"
    return Dataset(name, ArraySource(images).read, names, labels, classes, checksum=content)


def _whole(labels: np.ndarray, path: Path) -> np.ndarray:
    """Labels as integers; floats are taken where they are whole, and NaN means unlabelled."""
    if labels.ndim == 1 and labels.dtype.kind == "f":
        known = np.isfinite(labels)
        if (labels[known] == np.rint(labels[known])).all() and not np.isinf(labels).any():
            return np.where(known, labels, -1).astype(np.int64)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(f"labels in {path} must be integers [N], got {labels.dtype} {list(labels.shape)}")
    return labels


def camvid_dataset(name: str, path: Path, split: str) -> Dataset:
    """CamVid in SegNet's layout: `<split>/*.png` and, with the same names, class indices in `<split>annot/`."""
    archive = Archive(path)
    images = [file for file in archive.names if Path(file).parent.name == split and file.endswith(".png")]
    masks = [f"{file.rpartition('/')[0]}annot/{Path(file).name}" for file in images]
    if not images:
        raise ValueError(f"{path} holds no {split}/*.png, give the split it has")
    absent = set(masks) - set(archive.names)
    if absent:
        raise ValueError(f"{path} lacks the label image {min(absent)} ({len(absent)} missing)")
    say_left_out(path, archive.left_out)
    source = FileSource(archive, images, masks=masks)
    return Dataset(name, source.read, images, None, CAMVID_CLASSES, annotate=source.annotate, checksum=source.checksum)


def tiny_imagenet_dataset(name: str, path: Path, split: str) -> Dataset:
    """Tiny-ImageNet as published; labels are positions in the sorted WordNet ids, one box per image."""
    if split not in ("train", "val"):
        raise ValueError(f"tiny-imagenet has labels for the splits train and val only, got split={split!r}")
    archive = Archive(path)
    root = archive.root_of("wnids.txt")
    wnids = sorted(archive.text(f"{root}wnids.txt").split())
    words = dict(_cells(archive, f"{root}words.txt", 2))
    if split == "val":
        rows = _cells(archive, f"{root}val/val_annotations.txt", 6)
        rows = [[f"{root}val/images/{row[0]}", *row[1:]] for row in rows]
    else:
        rows = []
        for wnid in wnids:
            folder = f"{root}train/{wnid}"
            boxes_of = _cells(archive, f"{folder}/{wnid}_boxes.txt", 5)
            rows += [[f"{folder}/images/{file}", wnid, *box] for file, *box in boxes_of]
    number = {wnid: place for place, wnid in enumerate(wnids)}
    unknown = [row[1] for row in rows if row[1] not in number]
    if unknown:
        raise ValueError(f"{root}wnids.txt in {path} lacks {unknown[0][:80]!r}, which an image is labelled with")
    labels = np.array([number[row[1]] for row in rows], dtype=np.int64)
    boxes = _boxes(rows, path)
    images = [row[0] for row in rows]
    say_left_out(path, archive.left_out)
    source = FileSource(archive, images, boxes=boxes, labels=labels)
    classes = [words.get(wnid, wnid).strip() for wnid in wnids]
    return Dataset(name, source.read, images, labels, classes, annotate=source.annotate, checksum=source.checksum)


def _cells(archive: Archive, name: str, count: int) -> list[list[str]]:
    """The lines of a list, cut at tabs; the last cell may hold more of them."""
    rows = [line.split("\t", count - 1) for line in archive.text(name).splitlines()]
    short = [number for number, row in enumerate(rows, 1) if len(row) < count]
    if short:
        raise ValueError(f"{name} in {archive.path} needs {count} cells a line, line {short[0]} has fewer")
    return rows


def _boxes(rows: list[list[str]], path: Path) -> np.ndarray:
    """float32 `[N, 4]`, far edges exclusive: the files give the last pixel inside."""
    try:
        boxes = np.array([row[2:6] for row in rows], dtype=np.float32).reshape(-1, 4)
    except ValueError:
        boxes = np.full((1, 4), np.nan)
    if not np.isfinite(boxes).all():
        raise ValueError(f"the boxes of val_annotations.txt or *_boxes.txt in {path} must be four numbers each")
    return boxes + np.array([0, 0, 1, 1], np.float32)


def sample_dataset(name: str, split: str) -> Dataset:
    """The embedded sample of CIFAR-10."""
    from sslk.data.sample import CLASSES, load_sample

    images, labels = load_sample(split)
    source = ArraySource(images.permute(0, 2, 3, 1).numpy())
    return Dataset(name, source.read, [f"{name}[{i}]" for i in range(len(images))], labels.numpy(), CLASSES)


def huggingface_dataset(name: str, source: str, split: str) -> Dataset:
    """A Hugging Face data set by hub id, or a folder of `save_to_disk`; its image and class columns by their types."""
    try:
        import datasets
    except ImportError as error:
        raise ImportError(f"the data set {name!r} needs the package datasets: pip install datasets ({error})") from error
    folder = Path(source).is_dir()
    rows = datasets.load_from_disk(source) if folder else datasets.load_dataset(source, split=split)
    if isinstance(rows, datasets.DatasetDict):
        if split not in rows:
            raise ValueError(f"{source} has the splits {', '.join(rows)}, got split={split!r}")
        rows = rows[split]
    images = [column for column, kind in rows.features.items() if isinstance(kind, datasets.Image)]
    labels = [column for column, kind in rows.features.items() if isinstance(kind, datasets.ClassLabel)]
    if not images:
        raise ValueError(f"{source} needs an image column, it has {', '.join(rows.features)}")
    classes = rows.features[labels[0]].names if labels else []
    values = np.array([-1 if label is None else label for label in rows[labels[0]][:]], dtype=np.int64) if labels else None
    names = [f"{source}[{i}]" for i in range(len(rows))]
    dataset = Dataset(name, RowSource(rows, images[0]).read, names, values, classes)
    dataset.decoding = DECODING
    return dataset
