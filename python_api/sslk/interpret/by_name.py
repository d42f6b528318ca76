"""A data set with its masks by name, as the command line gives them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sslk.data import Dataset
from sslk.data.source import DataSource, OnCorrupt
from sslk.features.unreadable import check_on_corrupt, readable_numbers, require_readable
from sslk.interpret.masks import BoxMasks, ClassMasks, ForegroundMasks, MaskFolder, MaskSource
from sslk.interpret.salient_imagenet import salient_imagenet
from sslk.interpret.settings import MaskSettings
from sslk.masked.masks import MANIFEST


def data_and_masks(data: DataSource, settings: MaskSettings) -> tuple[Dataset, MaskSource]:
    """The data set and its masks: `annotation` (boxes, or classes per pixel with `core`), `folder:PATH`, `salient:PATH`.

    Raises:
        ValueError: another name, or something that this kind of masks needs is missing.
    """
    masks, core = settings.masks, settings.core
    kind, _, path = masks.partition(":")
    if kind == "salient" and path:
        if settings.answers is None:
            raise ValueError("masks=salient:PATH needs --answers, the table discover_spurious_features.csv.")
        return salient_imagenet(path, settings.answers, settings.images)
    dataset = data.load()
    if kind == "folder" and path:
        built = (Path(path) / MANIFEST).exists()  # by `sslk masked build`
        return dataset, ForegroundMasks(path, dataset) if built else MaskFolder(path, dataset)
    if masks != "annotation":
        raise ValueError(f"masks must be annotation, folder:PATH or salient:PATH, got {masks!r}.")
    annotation = dataset.annotation(0)
    if annotation.boxes is not None:
        return dataset, BoxMasks(dataset)
    if not core:
        raise ValueError(f"masks=annotation of {dataset.name} needs --core with some of: {', '.join(dataset.classes)}.")
    return dataset, ClassMasks(dataset, core, void=settings.void, per_class=True)


@dataclass(frozen=True, eq=False)
class ChosenImages:
    """Some images of a data set with their masks.

    Attributes:
        images, masks: the images alone, and their masks by place among them.
        numbers: place of each in the data set.
        left_out: names of images that cannot be read.
    """

    images: Dataset
    masks: MaskSource
    numbers: list[int]
    left_out: list[str]


def limited(dataset: Dataset, source: MaskSource, limit: int | None, on_corrupt: OnCorrupt = "raise") -> ChosenImages:
    """Up to so many images, evenly spread, less those that cannot be read.

    Raises:
        ValueError: no images are wanted, or one cannot be read and on_corrupt is `raise`: a look of some seconds.
    """
    check_on_corrupt(on_corrupt)
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}.")
    count = len(dataset)
    spread = range(count) if limit is None else np.unique(np.linspace(0, count - 1, min(limit, count)).astype(int)).tolist()
    numbers, left_out = list(spread), list[str]()
    if on_corrupt == "skip":
        numbers, left_out = readable_numbers(dataset, numbers)
    else:
        require_readable(dataset, numbers)
    if len(numbers) == count:
        return ChosenImages(dataset, source, numbers, [])
    return ChosenImages(dataset.subset(numbers), _Chosen(source, np.array(numbers)), numbers, left_out)


class _Chosen:
    """The masks of some images of a source."""

    def __init__(self, source: MaskSource, chosen: np.ndarray) -> None:
        self.kinds, self._source, self._chosen = source.kinds, source, chosen

    def __call__(self, index: int, height: int, width: int) -> dict[str, np.ndarray]:
        return self._source(int(self._chosen[index]), height, width)

    def __repr__(self) -> str:
        return f"{self._source!r}[{self._chosen.tolist()}]"
