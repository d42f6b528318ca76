"""A contact sheet of images with their masks."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from sslk.data import Dataset
from sslk.masked.figures import contact_sheet
from sslk.masked.masks import Masks


def preview_masks(
    folder: str | os.PathLike[str], images: Dataset, out: str | os.PathLike[str], *, count: int = 32, seed: int = 0
) -> str:
    """Draw some images with their masks into one picture, and say what it shows.

    Args:
        folder: what `build_masks` filled.
        images: the data set the masks are of.
        out: picture to write, .png or .svg.
        count: images on the sheet.
        seed: which are drawn.

    Raises:
        ValueError: no images are wanted, or the masks are of another data set.
    """
    from matplotlib import pyplot as plt

    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}.")
    found = Masks(folder)
    if found.dataset != images.name:
        raise ValueError(f"{folder} holds masks of {found.dataset}, not of {images.name}.")
    rows = np.sort(np.random.default_rng(seed).permutation(len(found))[:count]).tolist()
    figure = contact_sheet(
        [np.array(images.image(int(found.indices[row]))) for row in rows],
        [found[row] for row in rows],
        [f"{int(found.indices[row])}: {found.share[row]:.0%}" for row in rows],
    )
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)
    plt.close(figure)
    return f"{out}: {len(rows)} of {len(found)} masks by {found.settings}"
