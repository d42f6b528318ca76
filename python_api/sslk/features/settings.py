"""Settings of extraction; importing them loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class ExtractSettings:
    """How images go through a model into a store.

    Attributes:
        batch_size: images per forward pass, halved where they do not fit the memory; by default 256, and on a CPU as
            many as have the pixels of 32 images of 224 x 224, at most 256.
        shard_rows: samples per shard, what an interruption can cost; 8192 by default.
        workers: loading processes.
        amp: dtype of mixed precision, or off.
        dtype: dtype of the stored features; that of amp by default, float32 without.
        device: where to compute; a GPU where there is one (under torchrun that of the local rank).
        on_corrupt: an unreadable image ends the run, or is left out, counted and listed.
        compile: run the network through torch.compile; the features then differ in the last digits.
    """

    batch_size: int | None = None
    shard_rows: int | None = None
    workers: int = 4
    amp: Literal["off", "float16", "bfloat16"] = "off"
    dtype: Precision | None = None
    device: str | None = None
    on_corrupt: Literal["raise", "skip"] = "raise"
    compile: bool = False
