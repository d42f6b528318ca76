"""A contact sheet of images with their masks."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from sslk.data import Dataset, UnreadableImageError
from sslk.data.source import OnCorrupt
from sslk.features.unreadable import check_on_corrupt, left_out_text, refusal
from sslk.masked.figures import contact_sheet
from sslk.masked.masks import Masks


def preview_masks(
    folder: str | os.PathLike[str],
    images: Dataset,
    out: str | os.PathLike[str],
    *,
    count: int = 32,
    seed: int = 0,
    on_corrupt: OnCorrupt = "raise",
) -> str:
    """Draw some images with their masks into one picture, and say what it shows.

    Args:
        folder: what `build_masks` filled.
        images: the data set the masks are of.
        out: picture to write, .png or .svg.
        count: images on the sheet.
        seed: which are drawn.
        on_corrupt: an image that cannot be read ends the work, or the next of the draw takes its place.

    Raises:
        ValueError: no images are wanted, the masks are of another data set, or an image cannot be read.
    """
    from matplotlib import pyplot as plt

    check_on_corrupt(on_corrupt)
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}.")
    found = Masks(folder)
    if found.dataset != images.name:
        raise ValueError(f"{folder} holds masks of {found.dataset}, not of {images.name}.")
    pictures: dict[int, np.ndarray] = {}
    unread: list[str] = []
    for row in np.random.default_rng(seed).permutation(len(found)).tolist():
        if len(pictures) == count:
            break
        try:
            pictures[row] = np.array(images.image(int(found.indices[row])))
        except UnreadableImageError as error:
            if on_corrupt == "raise":
                raise refusal(error) from error
            unread.append(error.image_name)
    rows = sorted(pictures)
    left_out = [images.image_name(number) for number in found.unreadable.tolist()] + unread
    figure = contact_sheet(
        [pictures[row] for row in rows],
        [found[row] for row in rows],
        [f"{int(found.indices[row])}: {found.share[row]:.0%}" for row in rows],
    )
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)
    plt.close(figure)
    said = f"{out}: {len(rows)} of {len(found)} masks by {found.settings}"
    return said + (f"\n{left_out_text(left_out, len(found.chosen))}" if left_out else "")
