"""Extraction of several layers or tokens of a model by name, in one forward pass, a store each."""

from __future__ import annotations

import re
from dataclasses import replace
from os import PathLike
from pathlib import Path

from sslk.data import splits_of
from sslk.data.source import DataSource
from sslk.distributed import require_device
from sslk.features.by_name import images_for
from sslk.features.extraction import extract_several
from sslk.features.manifest import MANIFEST
from sslk.features.settings import ExtractSettings
from sslk.features.store import FeatureStore
from sslk.models import Readouts
from sslk.models.source import ModelSource
from sslk.progress import Progress, renamed


def extract_layers(
    model: ModelSource,
    data: DataSource,
    out: str | PathLike[str],
    settings: ExtractSettings = ExtractSettings(),  # noqa: B008 (frozen)
    *,
    progress: Progress | None = None,
) -> dict[str, FeatureStore]:
    """Every representation that the model's `layer` and `token` name, in a folder of its own below `out`.

    Args:
        model: with its layers and tokens.
        data: with its split.
        out: folder of the stores' folders, which are named by their representation.
        settings: batches, precision, device.
        progress: called after every batch.

    Raises:
        ValueError, OSError: as for `extract_by_name`, or there is no such layer or token.

    >>> import tempfile
    >>> model, settings = ModelSource("embedded", layer=("0", "-1")), ExtractSettings(workers=0, device="cpu")
    >>> stores = extract_layers(model, DataSource("sample", "test"), tempfile.mkdtemp(), settings)
    >>> {name: (store.path.name, store.num_features) for name, store in stores.items()}
    {'mean of stages.0': ('mean-of-stages.0', 16), 'mean of stages.3': ('mean-of-stages.3', 256)}
    """
    settings = replace(settings, device=str(require_device(settings.device)))
    readouts = Readouts(model.load_several())
    folders = {name: Path(out) / re.sub(r"[^\w.+]+", "-", name) for name in readouts.representations}
    begun = any((folder / MANIFEST).exists() for folder in folders.values())
    first = next(iter(readouts.representations.values()))
    images = images_for(first, model, data, early=settings.on_corrupt == "raise" and not begun)
    return extract_several(readouts, images, folders, settings, progress=progress)


def extract_pairs(
    model: ModelSource,
    data: str,
    out: str | PathLike[str],
    settings: ExtractSettings = ExtractSettings(),  # noqa: B008
    *,
    root: str | None = None,
    progress: Progress | None = None,
) -> dict[str, tuple[FeatureStore, FeatureStore]]:
    """`extract_layers` for both splits of a data set, below `out/train` and `out/test`: name -> (training, test) store.

    Args:
        model, out, settings, progress: as for `extract_layers`.
        data: as `splits_of` takes it.
        root: of the published data sets.

    Raises:
        ValueError, OSError: as for `extract_layers`.
    """
    train, test = (
        extract_layers(
            model, DataSource(part, split, root), Path(out) / role, settings, progress=renamed(progress, f"extracting {split}")
        )
        for role, (part, split) in zip(("train", "test"), splits_of(data), strict=True)
    )
    return {name: (train[name], test[name]) for name in train}
