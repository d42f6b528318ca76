"""Extraction with model and data set given by name, as the command line does it."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path

from sslk.data import Dataset, load_dataset, splits_of
from sslk.data.source import DataSource
from sslk.distributed import require_device
from sslk.features.extraction import extract
from sslk.features.manifest import MANIFEST
from sslk.features.settings import ExtractSettings
from sslk.features.store import FeatureStore
from sslk.features.unreadable import require_readable
from sslk.models import Backbone, evaluation_transform
from sslk.models.source import ModelSource
from sslk.progress import Progress, renamed


def extract_by_name(
    model: ModelSource,
    data: DataSource,
    out: str | PathLike[str],
    settings: ExtractSettings = ExtractSettings(),  # noqa: B008 (frozen)
    *,
    progress: Progress | None = None,
) -> FeatureStore:
    """Extract the representations of a data set under a model, both by name, with the papers' evaluation transform.

    Interrupted at any moment, the same call goes on; called again for a finished store it returns at once. Run under
    `torchrun`, every process extracts its share.

    Args:
        model: with its checkpoint.
        data: with its split.
        out: folder of the store.
        settings: batches, precision, device.
        progress: called after every batch.

    Raises:
        ValueError: an unknown name (near ones are listed), a checkpoint that does not fit, an unreadable image, a device
            that is not there, or a folder that holds another extraction.
        OSError: a file is missing, the disk is full or out cannot be written to.

    >>> import tempfile
    >>> folder, settings = tempfile.mkdtemp() + "/s", ExtractSettings(workers=0, device="cpu")
    >>> store = extract_by_name(ModelSource("embedded"), DataSource("sample", "test"), folder, settings)
    >>> len(store), store.num_features, store.complete
    (1000, 256, True)
    """
    settings = replace(settings, device=str(require_device(settings.device)))
    backbone = model.load()
    images = images_for(backbone, model, data, early=settings.on_corrupt == "raise" and not (Path(out) / MANIFEST).exists())
    return extract(backbone, images, out, settings, progress=progress)


def images_for(backbone: Backbone, model: ModelSource, data: DataSource, *, early: bool) -> Dataset:
    """A data set as a backbone wants its images; `early` looks for unreadable ones before any work.

    Raises:
        ValueError: an unknown name, or an unreadable image.
    """
    transform = evaluation_transform(backbone, image_size=model.image_size)
    images = load_dataset(data.data, data.split, root=data.root, transform=transform)
    if early:
        require_readable(images)
    return images


def extract_pair(
    model: ModelSource,
    data: str,
    out: str | PathLike[str],
    settings: ExtractSettings = ExtractSettings(),  # noqa: B008
    *,
    root: str | None = None,
    progress: Progress | None = None,
) -> tuple[FeatureStore, FeatureStore]:
    """Both splits of a data set, labelled: `out/train` and `out/test`.

    Args:
        model, out, settings, progress: as for `extract_by_name`.
        data: as `splits_of` takes it.
        root: of the published data sets.

    Raises:
        StoreError: the data set has no labels; else as for `extract_by_name`.
    """
    if settings.on_corrupt == "raise" and not (Path(out) / "test" / MANIFEST).exists():  # before the training split's hours
        part, split = splits_of(data)[1]
        require_readable(load_dataset(part, split, root=root))
    train, test = (
        extract_by_name(
            model, DataSource(part, split, root), Path(out) / role, settings, progress=renamed(progress, f"extracting {split}")
        ).require(labels=True)
        for role, (part, split) in zip(("train", "test"), splits_of(data), strict=True)
    )
    return train, test


def images_of(store: FeatureStore, data: DataSource) -> Dataset:
    """The data set that a store was extracted from, by name; row i of the store is its image `indices[i]`.

    Raises:
        ValueError: another data set.
    """
    dataset = data.load()
    store.require_images(dataset)
    return dataset
