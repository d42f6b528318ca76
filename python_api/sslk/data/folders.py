"""`folder:PATH`: one folder per class, or images without labels; and what is said about such a folder."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sslk.data.archives import Archive
from sslk.data.dataset import Dataset
from sslk.data.decode import RAW_SUFFIXES
from sslk.data.listing import left_out_text, say_left_out
from sslk.data.sources import FileSource

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".avif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".jp2", ".j2k", ".jpx", ".jpf"),
)
# Images all the same: reading one says what it is and what to do, where leaving it out would shrink a class unseen.
REFUSED_SUFFIXES = (".heic", ".heif", ".hif", ".svg", ".svgz", ".psd", ".psb", ".jxl", ".exr", ".eps", *RAW_SUFFIXES)
SPLIT_NAMES = ("train", "val", "test")
_NAMED = 6  # classes in a sentence


def folder_dataset(name: str, path: Path, split: str) -> Dataset:
    """Images in one folder per class, or all in one folder and without labels; what was left out is said in a warning."""
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path} for the data set {name!r}")
    whole = not (Path(split).name == split and (path / split).is_dir())
    if not whole:
        path, name = path / split, f"{name}/{split}"
    archive = Archive(path)
    if whole and (found := [folder for folder in archive.folders if folder in SPLIT_NAMES]):
        raise ValueError(f"{path} has the splits {', '.join(found)}, got split={split!r}")
    images = images_of(archive)
    if not images:
        raise ValueError(f"{path} holds no images ({', '.join(IMAGE_SUFFIXES)}){_left_out(archive)}")
    classes = class_order(archive.folders)
    loose = [file for file in images if "/" not in file] if classes else []
    if loose:
        raise ValueError(f"{path} mixes class folders with loose images, such as {loose[0]}")
    say_left_out(path, archive.left_out)
    # Class folders without an image count too, so that label k means the same in every split.
    labels = folder_labels(images, classes) if classes else None
    if labels is not None:
        say_classes(path, classes, labels)
    source = FileSource(archive, images)
    names = [os.path.join(path, file) for file in images]
    return Dataset(name, source.read, names, labels, classes, checksum=source.checksum)


def images_of(archive: Archive) -> list[str]:
    """The files that are images by their suffix; the others are added to what the archive left out."""
    images = []
    for file in archive.names:
        if file.lower().endswith((*IMAGE_SUFFIXES, *REFUSED_SUFFIXES)):
            images.append(file)
        else:
            suffix = Path(file).suffix.lower()
            archive.left_out.setdefault(f"{suffix} files" if suffix else "files without a suffix", []).append(file)
    return images


def class_order(folders: Sequence[str]) -> list[str]:
    """Class folders by label: in the order of their names, or by number where all are numbers.

    >>> class_order(["10", "0", "2", "1"]), class_order(["b", "10", "9"])
    (['0', '1', '2', '10'], ['10', '9', 'b'])
    """
    if folders and all(_is_number(name) for name in folders):
        return sorted(folders, key=lambda name: (int(name), name))
    return sorted(folders)


def folder_labels(images: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """int64 `[N]`, the place of each image's outermost folder among the classes."""
    number = {name: place for place, name in enumerate(classes)}
    return np.array([number[file.partition("/")[0]] for file in images], dtype=np.int64)


def say_classes(path: Path, classes: Sequence[str], labels: np.ndarray) -> None:
    """Warnings about classes that may not be what they seem: numbers, and those with no image or a single one."""
    by_number = all(_is_number(name) for name in classes)
    if by_number and (list(classes) != sorted(classes) or [int(name) for name in classes] != list(range(len(classes)))):
        first, last = classes[:_NAMED], classes[max(_NAMED, len(classes) - 2) :]
        shown = ", ".join([*first, *(["..."] if len(classes) > len(first) + len(last) else []), *last])
        order = "class folders are numbers and stand in numeric order"
        warnings.warn(f"{path}: {order}: labels 0 to {len(classes) - 1} are the folders {shown}.", stacklevel=5)
    count = Counter(labels.tolist())
    for images, what in ((0, "no image"), (1, "a single image")):
        some = [name for label, name in enumerate(classes) if count[label] == images]
        if some:
            named = ", ".join(some[:_NAMED]) + (", ..." if len(some) > _NAMED else "")
            verb = "holds" if len(some) == 1 else "hold"
            warnings.warn(f"{path}: {len(some)} of {len(classes)} classes {verb} {what}: {named}.", stacklevel=5)


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) < 20


def _left_out(archive: Archive) -> str:
    return f"; left out {left_out_text(archive.left_out)}" if archive.left_out else ""
