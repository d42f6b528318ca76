"""Masks of annotated regions, by image and kind: from classes per pixel, from boxes, or from a folder with a table.

A source of masks is called with an image's index, height and width, and gives a dictionary from kind (`core`,
`spurious`, ...) to a bool mask in the coordinates of the untransformed image; a kind that an image lacks is left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from sslk.data import Dataset
from sslk.data.archives import Archive
from sslk.files.tables import parse_rows, records
from sslk.masked.masks import Masks

SOFT_MASK_CUT = 128  # a grey mask counts from half of full scale


class MaskSource(Protocol):
    """Masks of the images of one data set."""

    kinds: tuple[str, ...]

    def __call__(self, index: int, height: int, width: int) -> dict[str, np.ndarray]:
        """bool `[height, width]` per kind that image `index` has."""
        ...


class ClassMasks:
    """Masks from a class per pixel: `core` where it is one of the core classes, `spurious` where it is another.

    Args:
        dataset: with masks, such as CamVid.
        core: names of classes.
        void: names of classes that are neither.
        per_class: also give one kind per class, by its name.

    Raises:
        ValueError: a class is unknown, or all are core.

    Attributes:
        kinds: `core`, `spurious` and, if asked for, the classes.
    """

    def __init__(self, dataset: Dataset, core: Sequence[str], *, void: Sequence[str] = (), per_class: bool = False) -> None:
        unknown = [name for name in (*core, *void) if name not in dataset.classes]
        if unknown or not core:
            raise ValueError(
                f"core and void must name classes of {dataset.name} ({', '.join(dataset.classes)}), "
                f"got {', '.join(unknown) or 'none'}."
            )
        self._dataset = dataset
        self._core = [dataset.classes.index(name) for name in core]
        self._void = [dataset.classes.index(name) for name in void]
        rest = [i for i in range(len(dataset.classes)) if i not in (*self._core, *self._void)]
        if not rest:
            raise ValueError(f"core must leave a class of {dataset.name} for the spurious masks, got all of them.")
        self._single = {dataset.classes[i]: i for i in sorted((*self._core, *rest))} if per_class else {}
        self.kinds: tuple[str, ...] = ("core", "spurious", *self._single)

    def __repr__(self) -> str:
        return f"ClassMasks(core={self._core}, void={self._void}, kinds={self.kinds})"

    def __call__(self, index: int, height: int, width: int) -> dict[str, np.ndarray]:
        mask = self._dataset.annotation(index).mask
        if mask is None:
            return {}
        core = np.isin(mask, self._core)
        masks = {"core": core, "spurious": ~core & ~np.isin(mask, self._void)}
        masks |= {name: mask == number for name, number in self._single.items()}
        return {kind: mask for kind, mask in masks.items() if mask.any()}


class BoxMasks:
    """Masks from bounding boxes: `core` inside any box, `spurious` outside all of them.

    Args:
        dataset: with boxes, such as Tiny-ImageNet.
    """

    kinds: tuple[str, ...] = ("core", "spurious")

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __repr__(self) -> str:
        return "BoxMasks()"

    def __call__(self, index: int, height: int, width: int) -> dict[str, np.ndarray]:
        boxes = self._dataset.annotation(index).boxes
        if boxes is None or not len(boxes):
            return {}
        core = np.zeros((height, width), dtype=bool)
        for x0, y0, x1, y1 in np.rint(boxes).astype(int):
            core[max(y0, 0) : y1, max(x0, 0) : x1] = True
        return {kind: mask for kind, mask in (("core", core), ("spurious", ~core)) if mask.any()}


class ForegroundMasks:
    """Masks that `sslk masked build` found: `core` in the foreground, `spurious` outside it.

    Args:
        path: folder of `sslk.masked.build_masks`.
        dataset: whose images they are of.

    Raises:
        ValueError: the folder is damaged, or holds masks of another data set.
    """

    kinds: tuple[str, ...] = ("core", "spurious")

    def __init__(self, path: str | Path, dataset: Dataset) -> None:
        self._masks = Masks(path)
        self._masks.require_images(dataset)
        self._place = {index: k for k, index in enumerate(self._masks.indices.tolist())}

    def __repr__(self) -> str:
        return f"ForegroundMasks({self._masks.identity})"

    def __call__(self, index: int, height: int, width: int) -> dict[str, np.ndarray]:
        if index not in self._place:
            return {}
        core = self._masks[self._place[index]]
        return {kind: mask for kind, mask in (("core", core), ("spurious", ~core)) if mask.any()}


class MaskFolder:
    """Masks in a folder or zip with a table `masks.csv` of the columns `image`, `mask` and `kind`.

    `image` is the image's name in the data set, or the end of it after a slash, with or without its suffix; `mask` is a
    file relative to the table, in grey, an image's own size or the size of the model's input; `kind` is free, `core`
    and `spurious` are those of the paper. Several masks of one image and kind are joined.

    Args:
        path: folder or zip.
        dataset: whose images the table names.

    Attributes:
        kinds: those in the table, `core` and `spurious` first.
        unmatched: names in the table that are no image of the data set.

    Raises:
        FileNotFoundError: there is no such folder or zip.
        ValueError: no table, a missing column, no row that fits the data set, or an ambiguous name.
    """

    def __init__(self, path: str | Path, dataset: Dataset) -> None:
        self._archive = Archive(path)
        root = self._archive.root_of("masks.csv")
        table = parse_rows(self._archive.text(f"{root}masks.csv").splitlines(), f"masks.csv in {path}")
        rows = records(table, f"masks.csv in {path}", ("image", "mask", "kind"))
        if not rows:
            raise ValueError(f"masks.csv in {path} holds no rows below its header.")
        known = {row["image"] for row in rows}
        files: dict[tuple[str, str], list[str]] = defaultdict(list)
        for row in rows:
            files[row["image"], row["kind"]].append(root + row["mask"])
        self._masks: dict[int, dict[str, list[str]]] = {}
        kinds = {row["kind"] for row in rows}
        self.kinds = tuple(sorted(kinds, key=lambda kind: (kind != "core", kind != "spurious", kind)))
        used: dict[str, int] = {}
        for index in range(len(dataset)):
            name = next((name for name in _short_names(dataset.image_name(index)) if name in known), None)
            if name is None:
                continue
            if name in used:
                raise ValueError(
                    f"masks.csv in {path} names {name!r}, which is both image {used[name]} and image {index} of "
                    f"{dataset.name}: give longer names, with folders."
                )
            used[name] = index
            self._masks[index] = {kind: files[name, kind] for kind in self.kinds if (name, kind) in files}
        self.unmatched = tuple(sorted(known - set(used)))
        if not used:
            raise ValueError(
                f"masks.csv in {path} names no image of {dataset.name}: it says {rows[0]['image']!r}, the data set "
                f"{dataset.image_name(0)!r}."
            )

    def __call__(self, index: int, height: int, width: int) -> dict[str, np.ndarray]:
        found = self._masks.get(index, {})
        return {kind: join_masks([self._archive.image(file) for file in files]) for kind, files in found.items()}

    def __repr__(self) -> str:
        return f"MaskFolder({str(self._archive.path)!r}, {self._masks})"


def join_masks(images: Sequence[Image.Image]) -> np.ndarray:
    """Where any of the grey images is at least half of full scale; bool `[H, W]`.

    Raises:
        ValueError: they differ in size.
    """
    arrays = [np.asarray(image.convert("L")) >= (SOFT_MASK_CUT if image.mode != "1" else 1) for image in images]
    if len({array.shape for array in arrays}) > 1:
        raise ValueError(f"masks of one image must have one size, got {[image.size for image in images]}.")
    return np.logical_or.reduce(arrays)


def _short_names(name: str) -> list[str]:
    """A name and what may stand for it: ever fewer folders in front, with and without the suffix."""
    parts = name.replace("\\", "/").split("/")
    tails = ["/".join(parts[start:]) for start in range(len(parts))]
    return [form for tail in tails for form in (tail, tail.rpartition(".")[0] or tail)]
