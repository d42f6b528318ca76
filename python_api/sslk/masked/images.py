"""Images with their masks as one tensor, through the papers' geometry, before normalisation."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sslk.data import Dataset
from sslk.masked.mask_files import MaskError
from sslk.masked.masks import Masks
from sslk.models import EvaluationTransform


class MaskedImages(torch.utils.data.Dataset):
    """A map-style data set of `(uint8 [4, H, W], label)`: red, green, blue, and 1 in the foreground.

    Image and mask go through the same resize and crop (bilinear or as the model wants; nearest for the mask), and one
    decode serves all variants. Without masks the fourth channel is 0.

    Args:
        dataset: its own transform is not used.
        transform: geometry and normalisation of the model; only the geometry is applied here.
        masks: of the images to take; their indices choose them.
        indices: instead of masks, places of the images to take; all by default.
        on_bad_mask: images whose mask is empty or full in the centre crop, or came in another size, are kept or dropped.

    Attributes:
        indices: int64 `[N]`, places of the images in the data set.
        bad_masks: how many masks were empty, full, of another size.
        upsampled: images whose shorter side is below the crop's (known with masks).

    Raises:
        ValueError: the masks are of another data set, or none is left.
    """

    def __init__(
        self,
        dataset: Dataset,
        transform: EvaluationTransform,
        masks: Masks | None = None,
        *,
        indices: np.ndarray | None = None,
        on_bad_mask: Literal["keep", "drop"] = "keep",
    ) -> None:
        if on_bad_mask not in ("keep", "drop"):
            raise ValueError(f"on_bad_mask must be 'keep' or 'drop', got {on_bad_mask!r}.")
        if masks is not None and masks.dataset != dataset.name:
            raise ValueError(f"masks are those of {masks.dataset}, the data set is {dataset.name}.")
        self.dataset, self.masks = dataset, masks
        self.geometry = transform
        self.transform = f"{transform!r} as uint8"
        self.name, self.decoding = dataset.name, dataset.decoding
        self.classes = dataset.classes
        self.upsampled = 0
        self.bad_masks = {"empty": 0, "full": 0, "of another size": 0}
        if masks is None:
            self.indices = np.arange(len(dataset)) if indices is None else np.asarray(indices, dtype=np.int64)
            self._rows = np.arange(len(self.indices))
        else:
            bad = masks.empty | masks.full | masks.resized
            counts = (masks.empty, masks.full, masks.resized)
            self.bad_masks = {key: int(flags.sum()) for key, flags in zip(self.bad_masks, counts, strict=True)}
            self._rows = np.flatnonzero(~bad) if on_bad_mask == "drop" else np.arange(len(masks))
            self.indices = masks.indices[self._rows]
            self.upsampled = int((masks.sizes[self._rows].min(1) < min(transform.size)).sum())
        if len(self.indices) == 0:
            raise ValueError(f"no image of {self.name} is left: every mask is empty or full; see on_bad_mask.")

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        """Image with mask `[4, H, W]`, and label.

        Raises:
            UnreadableImageError: the image is damaged or gone.
            MaskError: the image has another size than its mask was found for.
        """
        index = int(self.indices[row])
        pixels = self.pixels(row)
        foreground = self.foreground(row)
        labels = self.dataset.labels
        return torch.cat([pixels, foreground[None]]), -1 if labels is None else int(labels[index])

    def pixels(self, row: int) -> Tensor:
        """uint8 `[3, H, W]`."""
        image = self.dataset.image(int(self.indices[row]))
        if self.masks is not None and (size := tuple(self.masks.sizes[self._rows[row]])) != (image.height, image.width):
            raise MaskError(
                f"the mask of {self.dataset.image_name(int(self.indices[row]))} is of an image of {size[0]} x {size[1]} "
                f"pixels, the image has {image.height} x {image.width}: build the masks of {self.masks.path} again."
            )
        return bare(self.geometry)(image)

    def foreground(self, row: int) -> Tensor:
        """uint8 `[H, W]`, 1 in the foreground."""
        if self.masks is None:
            return torch.zeros(self.geometry.size, dtype=torch.uint8)
        return self.geometry.mask(self.masks[int(self._rows[row])]).to(torch.uint8)

    @property
    def labels(self) -> np.ndarray | None:
        """int64 `[N]`, or None for a set without labels."""
        return None if self.dataset.labels is None else self.dataset.labels[self.indices]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the data set's fingerprint, the chosen images and the masks."""
        masks: Any = None if self.masks is None else self.masks.identity
        return hashlib.sha256(f"{self.dataset.fingerprint} {self.indices.tolist()} {masks}".encode()).hexdigest()


def bare(transform: EvaluationTransform) -> EvaluationTransform:
    """The transform without its normalisation: uint8 pixels."""
    from dataclasses import replace

    return replace(transform, normalize=False)


def choose_images(dataset: Dataset, images: int | None, seed: int = 0) -> np.ndarray:
    """Places of a random sample of a data set, without replacement, increasing; all where `images` is None.

    Raises:
        ValueError: images is not positive.

    >>> from sslk.data import load_dataset
    >>> choose_images(load_dataset("sample"), 3).tolist()
    [206, 222, 459]
    """
    if images is None or images >= len(dataset):
        return np.arange(len(dataset))
    if images < 1:
        raise ValueError(f"images must be at least 1, got {images}.")
    return np.sort(np.random.default_rng(seed).permutation(len(dataset))[:images])
