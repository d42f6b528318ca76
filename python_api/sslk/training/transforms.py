"""lightly's augmentations of each method, for images of any size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightly.transforms import (
    BYOLTransform,
    BYOLView1Transform,
    BYOLView2Transform,
    DINOTransform,
    MoCoV2Transform,
    SimCLRTransform,
    SimSiamTransform,
    SwaVTransform,
    VICRegTransform,
)


def image_transform(
    method: str, size: int, mean: tuple[float, ...], std: tuple[float, ...], local_views: int = 0
) -> Callable[[Any], Any]:
    """The views of one PIL image, a list of tensors, as `method` was published with.

    Args:
        method: one of `METHODS`.
        size: side of the two global views, in pixels.
        mean, std: normalisation of images in [0, 1].
        local_views: crops of about half the side, for SwAV and DINO.

    Raises:
        ValueError: local views for another method.

    >>> from PIL import Image
    >>> views = image_transform("swav", 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 2)(Image.new("RGB", (40, 40)))
    >>> [tuple(view.shape) for view in views]
    [(3, 32, 32), (3, 32, 32), (3, 16, 16), (3, 16, 16)]
    """
    norm = {"mean": list(mean), "std": list(std)}
    if method == "swav":
        return SwaVTransform(crop_sizes=(size, size // 2), crop_counts=(2, local_views), normalize=norm)
    if method == "dino":
        return DINOTransform(global_crop_size=size, local_crop_size=size // 2, n_local_views=local_views, normalize=norm)
    if local_views:
        raise ValueError(f"local_views must be 0 for {method}: only swav and dino use local crops, got {local_views}.")
    if method in ("byol", "barlow-twins"):
        return BYOLTransform(
            BYOLView1Transform(input_size=size, normalize=norm), BYOLView2Transform(input_size=size, normalize=norm)
        )
    simple = {"simclr": SimCLRTransform, "moco": MoCoV2Transform, "simsiam": SimSiamTransform, "vicreg": VICRegTransform}
    return simple[method](input_size=size, normalize=norm)
