"""Extraction with model and data set given by name, as the command line does it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from sslk.data import Dataset, load_dataset
from sslk.features.extract import Precision, Progress, extract
from sslk.features.identity import data_hash
from sslk.features.store import FeatureStore
from sslk.models import evaluation_transform, load_backbone


def extract_by_name(
    model: str,
    data: str,
    out: str,
    *,
    split: str = "train",
    weights: str | None = None,
    checkpoint_format: str | None = None,
    image_size: int | None = None,
    root: str | None = None,
    batch_size: int = 256,
    shard_rows: int | None = None,
    workers: int = 4,
    amp: Literal["off", "float16", "bfloat16"] = "off",
    dtype: Precision | None = None,
    device: str | None = None,
    on_corrupt: Literal["raise", "skip"] = "raise",
    progress: Callable[[Progress], None] | None = None,
) -> FeatureStore:
    """Extract the representations of a data set under a model, both by name, with the papers' evaluation transform.

    Interrupted at any moment, the same call goes on; called again for a finished store it returns at once. Run under
    `torchrun`, every process extracts its share.

    Args:
        model: as for `load_backbone`: `torchvision:resnet50`, `timm:NAME`, `hf:NAME`, `embedded`, ...
        data: as for `load_dataset`: `cifar10`, `folder:PATH`, `npz:PATH`, `sample`, ...
        out: folder of the store.
        split: of the data set.
        weights: checkpoint of the model.
        checkpoint_format: layout of the checkpoint, detected by default.
        image_size: side of the image crop, the model's own by default.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        batch_size: images per forward pass.
        shard_rows: samples per shard, what an interruption can cost; 8192 by default.
        workers: loading processes.
        amp: dtype of mixed precision, or off.
        dtype: dtype of the stored features; that of amp by default, float32 without.
        device: where to compute; a GPU where there is one (under torchrun that of the local rank).
        on_corrupt: an unreadable image ends the run, or is left out, counted and listed.
        progress: called after every batch.

    Raises:
        ValueError: an unknown name (near ones are listed), a checkpoint that does not fit, an unreadable image, or a
            folder that holds another extraction.
        OSError: a file is missing, the disk is full or out cannot be written to.

    >>> import tempfile
    >>> store = extract_by_name("embedded", "sample", tempfile.mkdtemp() + "/s", split="test", workers=0, device="cpu")
    >>> len(store), store.num_features, store.complete
    (1000, 256, True)
    """
    if device is None:
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    backbone = load_backbone(model, weights, checkpoint_format=checkpoint_format, image_size=image_size)
    transform = evaluation_transform(backbone, image_size=image_size)
    return extract(
        backbone,
        load_dataset(data, split, root=root, transform=transform),
        Path(out),
        batch_size=batch_size,
        shard_rows=shard_rows,
        workers=workers,
        amp=amp,
        dtype=dtype,
        device=device,
        on_corrupt=on_corrupt,
        progress=progress,
    )


def images_of(store: FeatureStore, data: str, split: str, root: str | None = None) -> Dataset:
    """The data set that a store was extracted from, by name; row i of the store is its image `indices[i]`.

    Raises:
        ValueError: another data set.
    """
    dataset = load_dataset(data, split, root=root)
    if data_hash(dataset) != store.spec.data_hash:
        raise ValueError(
            f"data must be what {store.path} was extracted from, {store.spec.dataset}, got {dataset.name}."
        )
    return dataset
