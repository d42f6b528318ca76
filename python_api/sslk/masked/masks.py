"""Foreground masks of a data set, found once and kept: packed bits in a folder, resumable, told apart by settings."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save

from sslk.data import Dataset
from sslk.files.tensors import read_tensors, require_tensors
from sslk.files.text import from_fields, read_json
from sslk.masked.segmenters.scene import Scene, Segmenter
from sslk.progress import Progress
from sslk.results.atomic import write_atomically

MANIFEST = "masks.json"
_FORMAT = "sslk-masks-1"
_SHARD = 512


class MaskError(ValueError):
    """A folder holds no masks, or masks of other images or settings."""


class Masks:
    """Masks of chosen images of a data set, read from the folder that `build_masks` filled.

    `masks[k]` is bool `[H, W]`, true in the foreground, in the size of the k-th image before any transform.

    Attributes:
        path: the folder.
        settings: of the segmenter.
        dataset: name of the data set.
        indices: int64 `[K]`, places of the images in the data set, increasing.
        sizes: int64 `[K, 2]`, heights and widths.
        share: float64 `[K]`, share of the foreground in the largest centred square, what a square crop shows.
        resized: bool `[K]`, whether the segmenter's mask had another size than the image (it was resized, nearest).
        identity: SHA-256 of the data set, the images and the settings.

    Raises:
        MaskError: the folder holds no masks, is not finished, or a file of it is damaged.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        manifest = _read_manifest(self.path)
        self.settings, self.dataset, self.identity = manifest.settings, manifest.dataset, manifest.identity
        self.indices = np.array(manifest.indices, dtype=np.int64)
        self._shards: dict[int, dict[str, np.ndarray]] = {}
        shards = [self._shard(number) for number in range(-(-len(self.indices) // _SHARD))]
        self.sizes = np.concatenate([shard["sizes"] for shard in shards])
        self.share = np.concatenate([shard["share"] for shard in shards])
        self.resized = np.concatenate([shard["resized"] for shard in shards]).astype(bool)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, k: int) -> np.ndarray:
        shard = self._shard(k // _SHARD)
        row = k % _SHARD
        height, width = shard["sizes"][row]
        start = int(shard["offsets"][row])
        bits = shard["bits"][start : start + -(-height * width // 8)]
        return np.unpackbits(bits, count=height * width).reshape(height, width).astype(bool)

    @property
    def empty(self) -> np.ndarray:
        """bool `[K]`: no foreground in the largest centred square."""
        return self.share == 0

    @property
    def full(self) -> np.ndarray:
        """bool `[K]`: nothing but foreground in the largest centred square."""
        return self.share == 1

    def summary(self) -> str:
        """How many, by which segmenter, and which of them say little."""
        return (
            f"{len(self)} masks by {self.settings}, foreground {self.share.mean():.1%} of the centre square; "
            f"{self.empty.sum()} empty, {self.full.sum()} full, {self.resized.sum()} of another size"
        )

    def _shard(self, number: int) -> dict[str, np.ndarray]:
        if number not in self._shards:
            file = self.path / _shard_name(number)
            rows = min(_SHARD, len(self.indices) - number * _SHARD)
            try:
                self._shards[number] = _read_shard(file, rows)
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
    progress: Progress | None = None,
) -> Masks:
    """Find the foreground of every image and keep the masks in a folder.

    Killed, the same call goes on after the last 512 images; finished, it returns at once.

    Args:
        dataset: its transform is not used.
        segmenter: see `sslk.masked.segmenter`.
        out: the folder.
        indices: places of the wanted images in the data set, increasing; all by default.
        progress: called with images done and in all.

    Raises:
        MaskError: out holds masks of other images or settings (both are named), or other files.
        ValueError: an image cannot be read, or the segmenter cannot work on this data set.

    >>> import tempfile
    >>> from sslk.data import load_dataset
    >>> from sslk.masked import segmenter
    >>> masks = build_masks(load_dataset("sample"), segmenter("grabcut"), tempfile.mkdtemp(), indices=range(8))
    >>> len(masks), masks[0].shape, masks.settings
    (8, (32, 32), 'grabcut:center(0.8) x5')
    """
    folder = Path(out)
    chosen = np.arange(len(dataset)) if indices is None else np.asarray(indices, dtype=np.int64)
    if len(chosen) == 0 or chosen.min() < 0 or chosen.max() >= len(dataset) or (np.diff(chosen) <= 0).any():
        raise ValueError(f"indices must increase within [0, {len(dataset)}), got {list(chosen[:3])}...")
    identity = identity_of(segmenter.settings, dataset, chosen)
    manifest = {
        "format": _FORMAT,
        "settings": segmenter.settings,
        "dataset": dataset.name,
        "identity": identity,
        "indices": chosen.tolist(),
    }
    if (folder / MANIFEST).exists():
        found = _read_manifest(folder)
        if found.identity != identity:
            raise MaskError(
                f"{folder} holds masks of {len(found.indices)} images of {found.dataset} by {found.settings}, "
                f"wanted are {len(chosen)} of {dataset.name} by {segmenter.settings}: take another folder."
            )
    else:
        if folder.exists() and any(not file.name.startswith(".") for file in folder.iterdir()):
            raise MaskError(f"{folder} is neither empty nor a folder of masks (it has no {MANIFEST}).")
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / MANIFEST, json.dumps(manifest).encode())
    for number, start in enumerate(range(0, len(chosen), _SHARD)):
        part = chosen[start : start + _SHARD]
        if not (folder / _shard_name(number)).exists():
            write_atomically(folder / _shard_name(number), _segment(dataset, segmenter, part))
        if progress is not None:
            progress(start + len(part), len(chosen), "masks")
    return Masks(folder)


def identity_of(settings: str, dataset: Dataset, indices: np.ndarray) -> str:
    """SHA-256 of the segmenter's settings, the data set and the chosen images: equal for equal masks."""
    facts = [settings, dataset.name, dataset.fingerprint, indices.tolist()]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def scene_of(dataset: Dataset, index: int) -> Scene:
    """An image of a data set as a segmenter wants it."""
    return Scene(dataset.image(index), dataset.image_name(index), dataset.classes, lambda: dataset.annotation(index))


def _segment(dataset: Dataset, segmenter: Segmenter, indices: np.ndarray) -> bytes:
    bits, sizes, share, resized = [], [], [], []
    for index in indices.tolist():
        scene = scene_of(dataset, index)
        mask = segmenter(scene)
        size = scene.image.height, scene.image.width
        resized.append(mask.shape != size)
        if mask.shape != size:
            mask = np.array(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))
        bits.append(np.packbits(mask))
        sizes.append(size)
        share.append(_central(mask).mean())
    offsets = np.cumsum([0, *(len(part) for part in bits[:-1])])
    return save(
        {
            "bits": np.concatenate(bits),
            "offsets": offsets.astype(np.int64),
            "sizes": np.array(sizes, dtype=np.int64),
            "share": np.array(share, dtype=np.float64),
            "resized": np.array(resized, dtype=np.uint8),
        }
    )


def _central(mask: np.ndarray) -> np.ndarray:
    side = min(mask.shape)
    top, left = (mask.shape[0] - side) // 2, (mask.shape[1] - side) // 2
    return mask[top : top + side, left : left + side]


def _shard_name(number: int) -> str:
    return f"masks-{number:06d}.safetensors"


@dataclass(frozen=True)
class _Manifest:
    settings: str
    dataset: str
    identity: str
    indices: list[int]

    def __post_init__(self) -> None:
        chosen = self.indices
        if not chosen or not 0 <= chosen[0] <= chosen[-1] < 2**63 or (np.diff(chosen) <= 0).any():
            raise ValueError("indices must increase from 0 on, and be at least one")


def _read_manifest(folder: Path) -> _Manifest:
    path = folder / MANIFEST
    try:
        content = read_json(path, "the masks", MaskError)
    except FileNotFoundError:
        raise MaskError(f"{folder} holds no masks: it has no {MANIFEST}.") from None
    if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
        raise MaskError(f"{path} is not of the format {_FORMAT}.")
    return from_fields(_Manifest, content, str(path), MaskError)


def _read_shard(file: Path, rows: int) -> dict[str, np.ndarray]:
    """The masks of up to 512 images, whose bits are all there."""
    try:
        tensors, _ = read_tensors(file, "the masks")
    except ValueError as error:
        raise MaskError(f"{file.name} is damaged, {str(error)[:-1]}; delete it and build the masks again.") from None
    wanted = {"bits": "uint8 1", "offsets": "int64 1", "sizes": "int64 2", "share": "float64 1", "resized": "uint8 1"}
    require_tensors(tensors, wanted, str(file), MaskError)
    shard = {name: tensor.numpy() for name, tensor in tensors.items()}
    shapes = [shard[name].shape for name in ("offsets", "sizes", "share", "resized")]
    start = 0
    whole = shapes == [(rows,), (rows, 2), (rows,), (rows,)] and bool(((shard["share"] >= 0) & (shard["share"] <= 1)).all())
    for offset, size in zip(shard["offsets"].tolist(), shard["sizes"].tolist(), strict=False):
        whole = whole and offset == start and min(size) > 0
        start += -(-math.prod(size) // 8)
    if not whole or start != len(shard["bits"]):
        raise MaskError(f"{file} is damaged: its sizes do not fit its bits; delete it and build the masks again.")
    return shard
