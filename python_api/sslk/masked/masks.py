"""Foreground masks of a data set, found once and kept: packed bits in a folder, resumable, told apart by settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image

from sslk.data import Dataset, UnreadableImageError
from sslk.data.source import OnCorrupt
from sslk.features.unreadable import check_on_corrupt, refusal, require_readable
from sslk.masked.mask_files import (
    FORMAT,
    MANIFEST,
    FoundMask,
    MaskError,
    MaskManifest,
    packed,
    read_manifest,
    read_shard,
    shard_name,
)
from sslk.masked.segmenters.scene import Scene, Segmenter
from sslk.progress import Progress
from sslk.results.atomic import write_atomically

_SHARD = 512


class Masks:
    """Masks of chosen images of a data set, read from the folder that `build_masks` filled.

    `masks[k]` is bool `[H, W]`, true in the foreground, in the size of the k-th image before any transform: a mask that
    was found at a smaller size is enlarged, nearest, so that it goes through the same resize and crop as its image.

    Attributes:
        path: the folder.
        settings: of the segmenter, with the size at which it works.
        dataset: name of the data set.
        indices: int64 `[K]`, places of the images in the data set, increasing.
        chosen: int64, places of all images that masks were wanted of.
        unreadable: int64, those that could not be read and have no mask.
        sizes: int64 `[K, 2]`, heights and widths of the images.
        mask_sizes: int64 `[K, 2]`, heights and widths at which the masks were found.
        share: float64 `[K]`, share of the foreground in the largest centred square, what a square crop shows.
        resized: bool `[K]`, whether the segmenter's mask had another size than the image (it was resized, nearest).
        identity: SHA-256 of the data set, the images and the settings.

    Raises:
        MaskError: the folder holds no masks, is not finished, or a file of it is damaged.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._manifest = manifest = read_manifest(self.path)
        self.settings, self.dataset, self.identity = manifest.settings, manifest.dataset, manifest.identity
        self._shards: dict[int, dict[str, np.ndarray]] = {}
        shards = [self._shard(number) for number in range(-(-len(manifest.indices) // manifest.shard))]
        self._starts = np.cumsum([0, *(len(shard["numbers"]) for shard in shards)])
        self.indices = np.concatenate([shard["numbers"] for shard in shards])
        self.chosen = np.array(manifest.indices, dtype=np.int64)
        self.unreadable = np.setdiff1d(self.chosen, self.indices)
        self.sizes = np.concatenate([shard["sizes"] for shard in shards])
        self.mask_sizes = np.concatenate([shard["mask_sizes"] for shard in shards])
        self.share = np.concatenate([shard["share"] for shard in shards])
        self.resized = np.concatenate([shard["resized"] for shard in shards]).astype(bool)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, k: int) -> np.ndarray:
        number = int(np.searchsorted(self._starts, k, side="right")) - 1
        shard, row = self._shard(number), k - int(self._starts[number])
        height, width = shard["mask_sizes"][row].tolist()
        start = int(shard["offsets"][row])
        bits = shard["bits"][start : start + -(-height * width // 8)]
        return _fitted(np.unpackbits(bits, count=height * width).reshape(height, width).astype(bool), tuple(self.sizes[k]))

    @property
    def empty(self) -> np.ndarray:
        """bool `[K]`: no foreground in the largest centred square."""
        return self.share == 0

    @property
    def full(self) -> np.ndarray:
        """bool `[K]`: nothing but foreground in the largest centred square."""
        return self.share == 1

    def require_images(self, dataset: Dataset) -> None:
        """Refuse a data set that the masks are not of.

        Raises:
            MaskError: another data set, or other images.
        """
        if identity_of(self.settings, dataset, self.chosen, self._manifest.version) != self.identity:
            raise MaskError(f"{self.path} holds masks of {self.dataset}, not of {dataset.name}, or of other images.")

    def summary(self) -> str:
        """How many, by which segmenter, and which of them say little."""
        return (
            f"{len(self)} masks by {self.settings}, foreground {self.share.mean():.1%} of the centre square; "
            f"{self.empty.sum()} empty, {self.full.sum()} full, {self.resized.sum()} of another size"
        )

    def _shard(self, number: int) -> dict[str, np.ndarray]:
        if number not in self._shards:
            file = self.path / shard_name(number)
            try:
                self._shards[number] = read_shard(file, self._manifest, self._manifest.part(number))
            except FileNotFoundError:
                raise MaskError(
                    f"{self.path} is not finished ({file.name} is missing): build the masks again, it goes on."
                ) from None
        return self._shards[number]

    def __repr__(self) -> str:
        return f"Masks({str(self.path)!r}: {len(self)} of {self.dataset} by {self.settings})"


def build_masks(
    dataset: Dataset,
    segmenter: Segmenter,
    out: str | PathLike[str],
    *,
    indices: Sequence[int] | np.ndarray | None = None,
    on_corrupt: OnCorrupt = "raise",
    progress: Progress | None = None,
) -> Masks:
    """Find the foreground of every image and keep the masks in a folder.

    A segmenter with a `side` sees every image reduced to that shorter side, and its mask is kept at that size. Killed,
    the same call goes on after the last 512 images; finished, it returns at once.

    Args:
        dataset: its transform is not used.
        segmenter: see `sslk.masked.segmenter`.
        out: the folder.
        indices: places of the wanted images in the data set, increasing; all by default.
        on_corrupt: an unreadable image ends the work, or has no mask and is listed in `Masks.unreadable`.
        progress: called with images done and in all.

    Raises:
        MaskError: out holds masks of other images or settings (both are named), or other files.
        ValueError: an image cannot be read and on_corrupt is `raise`, none can, or the segmenter cannot work on this
            data set.

    >>> import tempfile
    >>> from sslk.data import load_dataset
    >>> from sslk.masked import segmenter
    >>> masks = build_masks(load_dataset("sample"), segmenter("grabcut"), tempfile.mkdtemp(), indices=range(8))
    >>> len(masks), masks[0].shape, masks.settings
    (8, (32, 32), 'grabcut:center(0.8) x5 256px')
    """
    check_on_corrupt(on_corrupt)
    folder = Path(out)
    chosen = np.arange(len(dataset)) if indices is None else np.asarray(indices, dtype=np.int64)
    if len(chosen) == 0 or chosen.min() < 0 or chosen.max() >= len(dataset) or (np.diff(chosen) <= 0).any():
        raise ValueError(f"indices must increase within [0, {len(dataset)}), got {list(chosen[:3])}...")
    manifest = _begin(folder, dataset, segmenter.settings, chosen)
    todo = [n for n in range(-(-len(chosen) // manifest.shard)) if not (folder / shard_name(n)).exists()]
    if on_corrupt == "raise":
        require_readable(dataset, [index for number in todo for index in manifest.part(number)])
    for number in range(-(-len(chosen) // manifest.shard)):
        part = manifest.part(number)
        if number in todo:
            write_atomically(folder / shard_name(number), packed(_segment(dataset, segmenter, part, on_corrupt)))
        if progress is not None:
            progress(min((number + 1) * manifest.shard, len(chosen)), len(chosen), "masks")
    masks = Masks(folder)
    if len(masks.unreadable) and (on_corrupt == "raise" or not len(masks)):
        require_readable(dataset, masks.unreadable)
        raise MaskError(f"{folder} lacks masks of {len(masks.unreadable)} images that could not be read: take another folder.")
    return masks


def _begin(folder: Path, dataset: Dataset, settings: str, chosen: np.ndarray) -> MaskManifest:
    """The manifest of the folder, written where there is none."""
    identity = identity_of(settings, dataset, chosen)
    if (folder / MANIFEST).exists():
        found = read_manifest(folder)
        if found.identity != identity_of(settings, dataset, chosen, found.version):
            raise MaskError(
                f"{folder} holds masks of {len(found.indices)} images of {found.dataset} by {found.settings}, "
                f"wanted are {len(chosen)} of {dataset.name} by {settings}: take another folder."
            )
        return found
    if folder.exists() and any(not file.name.startswith(".") for file in folder.iterdir()):
        raise MaskError(f"{folder} is neither empty nor a folder of masks (it has no {MANIFEST}).")
    folder.mkdir(parents=True, exist_ok=True)
    manifest = MaskManifest(settings, dataset.name, identity, chosen.tolist(), _SHARD)
    content = {"format": FORMAT, **{name: value for name, value in asdict(manifest).items() if name != "version"}}
    write_atomically(folder / MANIFEST, json.dumps(content).encode())
    return manifest


def identity_of(settings: str, dataset: Dataset, indices: np.ndarray, version: int = 2) -> str:
    """SHA-256 of the segmenter's settings, the data set and the chosen images: equal for equal masks.

    In format 2 also of how files were decoded, which decides how an image lies; in format 1 sizes alone tell.
    """
    facts = [settings, dataset.name, dataset.fingerprint, indices.tolist()]
    if version > 1 and dataset.decoding:
        facts.append(dataset.decoding)
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def scene_of(dataset: Dataset, index: int) -> Scene:
    """An image of a data set as a segmenter wants it."""
    return Scene(dataset.image(index), dataset.image_name(index), dataset.classes, lambda: dataset.annotation(index))


def _segment(dataset: Dataset, segmenter: Segmenter, indices: list[int], on_corrupt: OnCorrupt) -> list[FoundMask]:
    found = []
    for index in indices:
        try:
            scene = scene_of(dataset, index)
        except UnreadableImageError as error:
            if on_corrupt == "raise":
                raise refusal(error) from error
            continue
        shown = scene.reduced(getattr(segmenter, "side", None))
        mask, size = segmenter(shown), (shown.image.height, shown.image.width)
        fitted = _fitted(mask, size)
        whole = scene.image.height, scene.image.width
        found.append(FoundMask(index, fitted, whole, float(_central(fitted).mean()), mask.shape != size))
    return found


def _fitted(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask in another size, nearest."""
    if mask.shape == tuple(size):
        return mask
    height, width = (int(side) for side in size)
    return np.array(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))


def _central(mask: np.ndarray) -> np.ndarray:
    side = min(mask.shape)
    top, left = (mask.shape[0] - side) // 2, (mask.shape[1] - side) // 2
    return mask[top : top + side, left : left + side]
