"""A data set with its masks by name, as the command line gives them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sslk.data import Dataset
from sslk.data.source import DataSource
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


def limited(dataset: Dataset, source: MaskSource, limit: int | None) -> tuple[Dataset, MaskSource, list[int]]:
    """Up to so many images, evenly spread, their masks, and their numbers in the data set."""
    if limit is None:
        return dataset, source, list(range(len(dataset)))
    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}.")
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(limit, len(dataset))).astype(int))
    labels = None if dataset.labels is None else dataset.labels[chosen]
    names = [dataset.image_name(index) for index in chosen.tolist()]
    part = Dataset(dataset.name, lambda i: dataset[int(chosen[i])][0], names, labels, dataset.classes)

    return part, _Chosen(source, chosen), chosen.tolist()


class _Chosen:
    """The masks of some images of a source."""

    def __init__(self, source: MaskSource, chosen: np.ndarray) -> None:
        self.kinds, self._source, self._chosen = source.kinds, source, chosen

    def __call__(self, index: int, height: int, width: int) -> dict[str, np.ndarray]:
        return self._source(int(self._chosen[index]), height, width)

    def __repr__(self) -> str:
        return f"{self._source!r}[{self._chosen.tolist()}]"
