"""The one shape every data set has here: images with labels, names and, where there are any, masks and boxes."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch.utils.data
from PIL import Image

from sslk.data.decode import DECODING, rgb, upright

ON_ERROR = ("raise", "skip")
MOST_CLASSES = 1_000_000  # where classes are counted by their largest number


def class_count(labels: Any, where: str) -> int:
    """C of labels in [0, C), negative ones aside: one more than the largest.

    Args:
        labels: integers `[N]`, NumPy's or torch's.
        where: they stand, for the message.

    Raises:
        ValueError: a label is too large to be the number of a class: as much memory would be taken as it says.

    >>> class_count(np.array([0, 2, -1]), "a.npz")
    3
    """
    largest = int(labels.max()) if len(labels) else -1
    if largest >= MOST_CLASSES:
        raise ValueError(f"labels in {where} must be numbers of classes below {MOST_CLASSES}, got {largest}.")
    return max(largest, -1) + 1


class UnreadableImageError(ValueError):
    """An image that cannot be decoded; `image_name` names its file."""

    def __init__(self, image_name: str, reason: str) -> None:
        super().__init__(f"image {image_name} cannot be read: {reason}")
        self.image_name = image_name
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:  # an error crosses from a loader's worker by pickle
        return type(self), (self.image_name, self.reason)


@dataclass(frozen=True)
class Annotation:
    """What a data set knows about the places in one image.

    Attributes:
        mask: Class per pixel, uint8 `[H, W]`, indices into the data set's `classes`; None without masks.
        boxes: float32 `[K, 4]`, x0 y0 x1 y1 in pixels, the far edges exclusive; None without boxes.
        labels: Class per box, int64 `[K]`.
    """

    mask: np.ndarray | None = None
    boxes: np.ndarray | None = None
    labels: np.ndarray | None = None


class Dataset(torch.utils.data.Dataset):
    """A map-style data set of `(image, label)`.

    The image is an RGB `PIL.Image`, or what `transform` makes of it; the label is an int, -1 where there is none.

    Args:
        name: Name it was asked for, with its split.
        read: index -> PIL image; may raise what decoding raises.
        image_names: One name per image: its path, or a number in the set.
        labels: int64 `[N]`, or None for a set without labels.
        classes: Class names by label.
        transform: Applied to every image.
        annotate: index -> `Annotation`, for sets with masks or boxes.
        checksum: Of the pixels, for images that have no file names to tell sets apart; or index -> checksum of an image's
            file, for images that may be replaced under their name.

    Attributes:
        decoding: How the files of images are decoded, for the identity of what is computed from them:
            `sslk.data.decode.DECODING` where files have checksums, and empty for images in memory; to be set where neither fits.
        skipped: Names of the images left out by `without_unreadable`.

    Raises:
        ValueError: There are no images, or not one label per image.

    >>> data = Dataset("white", lambda i: Image.new("RGB", (4, 4), "white"), ["a", "b"], np.array([0, 1]), ["x", "y"])
    >>> len(data), data[1][1], data[0][0].getpixel((0, 0))
    (2, 1, (255, 255, 255))
    """

    def __init__(
        self,
        name: str,
        read: Callable[[int], Image.Image],
        image_names: Sequence[str],
        labels: np.ndarray | None,
        classes: Sequence[str] = (),
        *,
        transform: Callable[[Image.Image], Any] | None = None,
        annotate: Callable[[int], Annotation] | None = None,
        checksum: str | Callable[[int], str] = "",
    ) -> None:
        if len(image_names) == 0:
            raise ValueError(f"data set {name!r} holds no images")
        if labels is not None and len(labels) != len(image_names):
            raise ValueError(f"data set {name!r} needs one label per image, got {len(labels)} for {len(image_names)}")
        self.name = name
        self.classes = list(classes)
        self.transform = transform
        self.skipped: tuple[str, ...] = ()
        self._read = read
        self._image_names = image_names
        self._annotate = annotate
        self._checksum = checksum
        self.decoding = DECODING if callable(checksum) else ""
        if labels is not None and len(labels) and int(np.max(labels)) >= 2**63:
            raise ValueError(f"labels of data set {name!r} must be below 2^63, got {np.max(labels)}.")
        for text in (*image_names, *classes):  # they go into manifests, tables and pages
            if not text.isascii() and not _is_file_name(text):
                raise ValueError(f"data set {name!r} has a name that no file can have, {text!r}: rename it.")
        self._labels = None if labels is None else np.asarray(labels, dtype=np.int64)
        self._kept = np.arange(len(image_names))

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Image and label.

        Raises:
            IndexError: Past the end.
            UnreadableImageError: The image is damaged or gone.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be below {len(self)}, got {index}")
        source = int(self._kept[index])
        image = self._decode(source)
        label = -1 if self._labels is None else int(self._labels[source])
        return (image if self.transform is None else self.transform(image)), label

    @property
    def labels(self) -> np.ndarray | None:
        """int64 `[N]`, or None for a set without labels."""
        return None if self._labels is None else self._labels[self._kept]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the names of the images, in order, and their checksums where there are any, in hex.

        The checksums of files are taken at each call, so that an image that was replaced is noticed.
        """
        digest = hashlib.sha256(self._checksum.encode() if isinstance(self._checksum, str) else b"")
        for source in self._kept.tolist():
            checksum = "" if isinstance(self._checksum, str) else f" {self._checksum(source)}"
            digest.update(f"{self._image_names[source]}{checksum}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def image_name(self, index: int) -> str:
        """File, or number in the set, of an image."""
        return self._image_names[int(self._kept[index])]

    def image(self, index: int) -> Image.Image:
        """An image as it is stored, RGB, without the transform.

        Raises:
            UnreadableImageError: The image is damaged or gone.
        """
        return self._decode(int(self._kept[index]))

    def annotation(self, index: int) -> Annotation:
        """Mask or boxes of an image, in the coordinates of the untransformed image.

        Raises:
            ValueError: The data set has none.
        """
        if self._annotate is None:
            raise ValueError(f"data set {self.name!r} has no masks or boxes")
        return self._annotate(int(self._kept[index]))

    def subset(self, indices: Sequence[int] | np.ndarray | torch.Tensor) -> Dataset:
        """The images at `indices`, in that order, as a data set of their own.

        >>> data = Dataset("grey", lambda i: Image.new("RGB", (4, 4), (i, i, i)), ["a", "b", "c"], np.array([0, 1, 0]))
        >>> part = data.subset([2, 1])
        >>> len(part), part[0][0].getpixel((0, 0)), part.labels.tolist(), part.image_name(1)
        (2, (2, 2, 2), [0, 1], 'b')
        """
        part = copy.copy(self)
        part._kept = self._kept[np.asarray(indices, dtype=np.int64)]
        return part

    def without_unreadable(self, *, threads: int = 8) -> Dataset:
        """Decode every image once and leave out those that cannot be, in place, with a warning that counts and names.

        All images are decoded, so that every process sees the same rows under the same indices.
        """
        with ThreadPoolExecutor(threads) as pool:
            readable = list(pool.map(self._is_readable, self._kept.tolist()))
        bad = [self._image_names[i] for i, good in zip(self._kept.tolist(), readable, strict=True) if not good]
        if len(bad) == len(self):
            raise ValueError(f"none of the {len(self)} images of {self.name!r} can be read, the first is {bad[0]}")
        if bad:
            named = ", ".join(islice(bad, 5)) + (", ..." if len(bad) > 5 else "")
            warnings.warn(f"{self.name}: skipped {len(bad)} of {len(self)} images, unreadable: {named}", stacklevel=2)
        self._kept = self._kept[np.array(readable)]
        self.skipped = (*self.skipped, *bad)
        return self

    def _is_readable(self, source: int) -> bool:
        try:
            self._decode(source)
        except UnreadableImageError:
            return False
        return True

    def _decode(self, source: int) -> Image.Image:
        try:
            return rgb(upright(self._read(source)))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow raises
            raise UnreadableImageError(self._image_names[source], str(error)) from error

    def __repr__(self) -> str:
        labelled = f"{len(self.classes)} classes" if self._labels is not None else "no labels"
        return f"Dataset({self.name!r}, {len(self)} images, {labelled})"


def _is_file_name(text: str) -> bool:
    """Whether text stands for bytes: a name that is no UTF-8 does, by surrogates that stand for one byte each."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True
