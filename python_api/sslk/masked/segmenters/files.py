"""Foreground from mask files that lie beside the images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sslk.data.archives import decode, read_bytes
from sslk.files.arrays import read_array
from sslk.masked.segmenters.scene import Scene

SUFFIXES = (".png", ".npy", ".bmp", ".tif", ".tiff")


class FileSegmenter:
    """One mask or label map per image in a folder, found by the image's path below it or by its bare name.

    Args:
        folder: holds `<name>.png` (or .npy, .bmp, .tif) with values from 0 to 255; colours are refused.
        values: labels of the foreground; by default everything but 0.

    A path is tried before a bare name, so that equal names in several class folders stay apart. Images of arrays are
    called `file.npz[7]`; their masks `7.png`.
    """

    def __init__(self, folder: str | Path, values: Sequence[int] = ()) -> None:
        self.folder = Path(folder)
        self.values = tuple(values)
        if not self.folder.is_dir():
            raise FileNotFoundError(f"folder must be a folder of masks, got {folder}")

    @property
    def settings(self) -> str:
        chosen = f"={','.join(map(str, sorted(self.values)))}" if self.values else ""
        return f"files:{self.folder.resolve()}{chosen}"

    def __call__(self, scene: Scene) -> np.ndarray:
        """True where the file holds one of the values.

        Raises:
            FileNotFoundError: there is no file for the image.
            ValueError: the file is no grey or label image.
        """
        path = self._find(scene.image_name)
        labels = read_array(path, "the mask") if path.suffix == ".npy" else np.array(decode(read_bytes(path), str(path)))
        if labels.ndim != 2 or labels.dtype.kind not in "biu" or 0 in labels.shape:
            raise ValueError(
                f"{path} must be a mask [H, W] of one channel of whole numbers, got {labels.dtype} {list(labels.shape)}."
            )
        return np.isin(labels, self.values) if self.values else labels != 0

    def _find(self, image_name: str) -> Path:
        name = image_name.rpartition("[")[2].removesuffix("]") if image_name.endswith("]") else image_name
        parts = Path(name).with_suffix("").parts
        for start in range(len(parts)):
            stem = Path(*parts[start:])
            for suffix in SUFFIXES:
                if not stem.is_absolute() and (path := self.folder / f"{stem}{suffix}").is_file():
                    return path
        raise FileNotFoundError(f"{self.folder} holds no mask for the image {image_name}, such as {parts[-1]}.png")
