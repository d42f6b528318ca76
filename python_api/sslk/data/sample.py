"""The embedded sample of CIFAR-10, real images for demos and tests without any download; see sample_files/PROVENANCE.md."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PER_CLASS = {"train": 200, "test": 100}
COLUMNS = 50  # images per row of the mosaic


def path(split: str) -> Path:
    """The mosaic of a split."""
    return Path(__file__).parent / "sample_files" / f"cifar10_{split}.webp"


def load_sample(split: str) -> tuple[Tensor, Tensor]:
    """The class-balanced sample: 2,000 images of CIFAR-10's training set, or 1,000 of its test set.

    Args:
        split: `"train"` or `"test"`.

    Returns:
        Images uint8 `[N, 3, 32, 32]`, RGB, and labels int64 `[N]`, positions in `CLASSES`; sorted by class.

    Raises:
        ValueError: another split.

    >>> images, labels = load_sample("test")
    >>> tuple(images.shape), labels.bincount().tolist() == [100] * 10
    ((1000, 3, 32, 32), True)
    """
    if split not in PER_CLASS:
        raise ValueError(f"split must be 'train' or 'test', got {split!r}.")
    with Image.open(path(split)) as mosaic:
        pixels = np.asarray(mosaic.convert("RGB"))
    tiles = pixels.reshape(-1, 32, COLUMNS, 32, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, 32, 32)
    labels = torch.arange(len(CLASSES)).repeat_interleave(PER_CLASS[split])
    return torch.from_numpy(tiles.copy()), labels
