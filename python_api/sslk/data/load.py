"""`load_dataset`: a data set by name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from sslk.data.dataset import ON_ERROR, Dataset
from sslk.data.folders import folder_dataset
from sslk.data.manifests import manifest_dataset
from sslk.data.published import PUBLISHED_SETS, imagenet_dataset, published_dataset
from sslk.data.sources import array_dataset, camvid_dataset, huggingface_dataset, sample_dataset, tiny_imagenet_dataset

_PREFIXES = ("folder", "manifest", "npz", "hf", "camvid", "tiny-imagenet", "imagenet-100")
DATASET_NAMES = ("sample", *PUBLISHED_SETS, "imagenet", *(f"{prefix}:" for prefix in _PREFIXES))


def load_dataset(
    name: str,
    split: str = "test",
    *,
    root: str | Path | None = None,
    transform: Callable[[Image.Image], Any] | None = None,
    download: bool = False,
    on_error: str = "raise",
) -> Dataset:
    """Load a data set by name.

    Args:
        name: `sample` (embedded CIFAR-10 images); `cifar10`, `cifar100`, `stl10`, `fgvc-aircraft`, `flowers102`,
            `food101`, `stanford-cars`, `dtd`, `caltech101`, `places365` (torchvision's readers); `imagenet`;
            `imagenet-100:LIST` (a file of WordNet ids); `folder:PATH`; `manifest:PATH` (CSV, TSV or Parquet with the
            columns `file`, `label` and `split`, see `read_manifest`); `npz:PATH` (`images` uint8 `[N, H, W, 3]`,
            `labels`); `hf:NAME` (Hugging Face hub id or saved folder); `camvid:PATH`, `tiny-imagenet:PATH` (folder or
            zip).
        split: As the set calls it; ImageNet and Places-365 publish labels for `train` and `val` only, Caltech-101 has
            one split, `all`. A `folder:` with sub-folders train/val/test takes the one named, a `manifest:` the rows of
            that split, or all where it has no column `split`; `npz:` has no splits.
        root: Folder of the published sets; the environment variable SSLK_DATA by default.
        transform: Applied to every PIL image, see `sslk.models.evaluation_transform`.
        download: Let torchvision fetch the set.
        on_error: `raise`: reading a damaged image raises `UnreadableImageError`, which names it; `skip`: every image
            is decoded once now, and the unreadable ones are left out, with a warning that counts and names them.

    Returns:
        A map-style data set of `(image, label)`; see `Dataset`. Of a manifest with several labels an image it has the
        attribute `multi_labels`, int8 `[N, C]`.

    Raises:
        ValueError: An unknown name (near ones are listed) or split, or content that does not fit.
        FileNotFoundError: The files are not there.
        ImportError: An optional package is missing.
    """
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
    dataset = _load(name, split, root, download)
    dataset.transform = transform
    return dataset.without_unreadable() if on_error == "skip" else dataset


def _load(name: str, split: str, root: str | Path | None, download: bool) -> Dataset:
    prefix, colon, rest = name.partition(":")
    if colon and not rest:
        raise ValueError(f"the data set {name!r} needs a path or name after the colon")
    if name == "sample":
        return sample_dataset(f"{name}/{split}", split)
    if name in PUBLISHED_SETS:
        return published_dataset(name, split, _root(name, root), download)
    if name == "imagenet":
        return imagenet_dataset(name, split, _root(name, root), None)
    if prefix == "imagenet-100" and colon:
        return imagenet_dataset(name, split, _root(name, root), Path(rest))
    if prefix in ("npz", "folder", "manifest", "camvid", "tiny-imagenet") and colon:
        # One folder is one data set, from wherever it is named.
        rest = os.path.abspath(rest)
        name = f"{prefix}:{rest}"
    if prefix == "npz" and colon:
        return array_dataset(name, Path(rest))
    if prefix == "folder" and colon:
        return folder_dataset(name, Path(rest), split)
    if prefix == "manifest" and colon:
        return manifest_dataset(name, Path(rest), split)
    if prefix == "hf" and colon:
        return huggingface_dataset(f"{name}/{split}", rest, split)
    if prefix == "camvid" and colon:
        return camvid_dataset(f"{name}/{split}", Path(rest), split)
    if prefix == "tiny-imagenet" and colon:
        return tiny_imagenet_dataset(f"{name}/{split}", Path(rest), split)
    near = difflib.get_close_matches(f"{prefix}:" if colon else name, DATASET_NAMES, n=4, cutoff=0.4)
    raise ValueError(f"unknown data set {name!r}, near ones: {', '.join(near) or ', '.join(DATASET_NAMES)}")


def _root(name: str, root: str | Path | None) -> Path:
    chosen = root if root is not None else os.environ.get("SSLK_DATA")
    if chosen is None:
        raise ValueError(f"the data set {name!r} needs root=FOLDER, or the environment variable SSLK_DATA")
    return Path(chosen)
