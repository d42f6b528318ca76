"""The files of a folder of masks: a manifest, and masks of up to 512 images in a file as packed bits.

Format 2 (`sslk-masks-2`): a mask has the size at which its segmenter worked, stated beside the image's size and in the
settings; images that could not be read have no row. In format 1 every chosen image has a mask of its own size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from sslk.files.tensors import read_tensors, require_tensors
from sslk.files.text import from_fields, read_json

MANIFEST = "masks.json"
FORMAT = "sslk-masks-2"
_FIRST = "sslk-masks-1"
_FIRST_SHARD = 512
_MOST_PIXELS = 1 << 28
_TENSORS = {"bits": "uint8 1", "offsets": "int64 1", "sizes": "int64 2", "share": "float64 1", "resized": "uint8 1"}
_ADDED = {"mask_sizes": "int64 2", "numbers": "int64 1"}


class MaskError(ValueError):
    """A folder holds no masks, or masks of other images or settings."""


@dataclass(frozen=True)
class MaskManifest:
    """What `masks.json` says.

    Attributes:
        settings: of the segmenter.
        dataset: name of the data set.
        identity: SHA-256 of the data set, the images and the settings.
        indices: places of the chosen images in the data set, increasing.
        shard: chosen images per file.
        version: of the format.
    """

    settings: str
    dataset: str
    identity: str
    indices: list[int]
    shard: int = _FIRST_SHARD
    version: int = 2

    def __post_init__(self) -> None:
        chosen = self.indices
        if not chosen or not 0 <= chosen[0] <= chosen[-1] < 2**63 or (np.diff(chosen) <= 0).any():
            raise ValueError("indices must increase from 0 on, and be at least one")
        if self.shard < 1:
            raise ValueError(f"shard must be at least 1, got {self.shard}")

    def part(self, number: int) -> list[int]:
        """The chosen images of one file."""
        return self.indices[number * self.shard : (number + 1) * self.shard]


@dataclass(frozen=True, eq=False)
class FoundMask:
    """What became of one image.

    Attributes:
        number: its place in the data set.
        mask: bool `[h, w]`, as the segmenter found it.
        size: height and width of the image.
        share: of the foreground in the largest centred square.
        resized: whether the segmenter's mask had another size than the image it was shown.
    """

    number: int
    mask: np.ndarray
    size: tuple[int, int]
    share: float
    resized: bool


def shard_name(number: int) -> str:
    """The file of some chosen images in a row."""
    return f"masks-{number:06d}.safetensors"


def packed(masks: list[FoundMask]) -> bytes:
    """One file."""
    bits = [np.packbits(found.mask) for found in masks]
    offsets = np.cumsum([0, *map(len, bits)])[:-1]
    return save(
        {
            "bits": np.concatenate([np.zeros(0, np.uint8), *bits]),
            "offsets": offsets.astype(np.int64),
            "sizes": np.array([found.size for found in masks], dtype=np.int64).reshape(-1, 2),
            "mask_sizes": np.array([found.mask.shape for found in masks], dtype=np.int64).reshape(-1, 2),
            "share": np.array([found.share for found in masks], dtype=np.float64),
            "resized": np.array([found.resized for found in masks], dtype=np.uint8),
            "numbers": np.array([found.number for found in masks], dtype=np.int64),
        }
    )


def read_manifest(folder: Path) -> MaskManifest:
    """The manifest of a folder.

    Raises:
        MaskError: there is none, or a damaged one.
    """
    path = folder / MANIFEST
    try:
        content = read_json(path, "the masks", MaskError)
    except FileNotFoundError:
        raise MaskError(f"{folder} holds no masks: it has no {MANIFEST}.") from None
    versions = {_FIRST: 1, FORMAT: 2}
    if not isinstance(content, dict) or (written := content.pop("format", None)) not in versions:
        raise MaskError(f"{path} is not of the format {FORMAT}.")
    return from_fields(MaskManifest, {**content, "version": versions[written]}, str(path), MaskError)


def read_shard(file: Path, manifest: MaskManifest, chosen: list[int]) -> dict[str, np.ndarray]:
    """The masks of some chosen images, whose bits are all there.

    Raises:
        FileNotFoundError: the file is not there.
        MaskError: it is damaged.
    """
    try:
        tensors, _ = read_tensors(file, "the masks")
    except ValueError as error:
        raise MaskError(f"{file.name} is damaged, {str(error)[:-1]}; delete it and build the masks again.") from None
    first = manifest.version == 1
    require_tensors(tensors, _TENSORS if first else {**_TENSORS, **_ADDED}, str(file), MaskError)
    shard = {name: tensor.numpy() for name, tensor in tensors.items()}
    if first:
        shard |= {"mask_sizes": shard["sizes"], "numbers": np.array(chosen, dtype=np.int64)}
    if not np.isin(shard["numbers"], chosen).all():
        raise MaskError(f"{file} holds masks of other images than {MANIFEST} lists; delete it and build the masks again.")
    rows = len(shard["numbers"])
    shapes = [shard[name].shape for name in ("offsets", "sizes", "mask_sizes", "share", "resized")]
    whole = shapes == [(rows,), (rows, 2), (rows, 2), (rows,), (rows,)]
    whole = whole and bool(((shard["share"] >= 0) & (shard["share"] <= 1)).all()) and bool((shard["sizes"] > 0).all())
    whole = whole and bool((np.diff(shard["numbers"]) > 0).all())
    whole = whole and bool((shard["mask_sizes"] <= shard["sizes"]).all())
    # What a file says must not fill the memory: a mask is enlarged to its image's size, and Pillow decodes no larger one.
    whole = whole and all(math.prod(size) <= _MOST_PIXELS for size in shard["sizes"].tolist())
    start = 0
    for offset, size in zip(shard["offsets"].tolist(), shard["mask_sizes"].tolist(), strict=False):
        whole = whole and offset == start and min(size) > 0
        start += -(-math.prod(size) // 8)
    if not whole or start != len(shard["bits"]):
        raise MaskError(f"{file} is damaged: its sizes do not fit its bits; delete it and build the masks again.")
    return shard
