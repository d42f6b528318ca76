"""Settings of models; importing them loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Token = Literal["cls", "mean", "cls+mean", "pooler"]
Interpolation = Literal["bilinear", "bicubic", "lanczos", "nearest"]
ChannelOrder = Literal["rgb", "bgr"]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a network expects its images, where that is not what its family says.

    Attributes:
        mean: per channel, in the network's order and scale.
        std: per channel, likewise.
        interpolation: of the resize.
        channel_order: bgr for networks out of Caffe or OpenCV.
        input_scale: value of white: 1, or 255 for networks that take pixels as they are.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: Interpolation | None = None
    channel_order: ChannelOrder = "rgb"
    input_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            value = getattr(self, name)
            if value is not None and len(value) != 3:
                raise ValueError(f"{name} must hold three numbers, one a channel, got {list(value)}.")
        if self.std is not None and not min(self.std) > 0:
            raise ValueError(f"std must be positive, got {list(self.std)}.")
        if not 0 < self.input_scale < float("inf"):
            raise ValueError(f"input_scale must be positive, usually 1 or 255, got {self.input_scale}.")
        if self.channel_order not in ("rgb", "bgr"):
            raise ValueError(f"channel_order must be 'rgb' or 'bgr', got {self.channel_order!r}.")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std must be given together.")
        if self.input_scale != 1 and self.mean is None:
            raise ValueError("input_scale needs mean and std in the same scale: 0 0 0 and 1 1 1 for pixels as they are.")


AS_BUILT = Preprocessing()
