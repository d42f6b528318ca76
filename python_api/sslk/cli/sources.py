"""Where a command's features come from: two stores, or a model and data, extracted into the run's folder first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sslk.data.source import OnCorrupt
from sslk.features.settings import ExtractSettings
from sslk.models.source import ModelSource

if TYPE_CHECKING:
    from sslk.features.store import FeatureStore
    from sslk.progress import Progress
    from sslk.results.run import Run


@dataclass(frozen=True)
class Extraction:
    """A model and its data by name, in place of feature stores.

    Attributes:
        model: torchvision:NAME, timm:NAME, hf:NAME, python:FILE.py:FACTORY, ..., with @WEIGHTS; project:NAME or embedded.
        data: name of a data set with a training and a test split, or TRAIN+TEST.
        checkpoint_format: layout of the checkpoint, ema or LAYOUT+ema for averaged weights; detected by default.
        image_size: side of the image crop in pixels; the model's own by default.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        batch_size: images per forward pass.
        workers: loading processes.
        amp: dtype of mixed precision, or off.
        on_corrupt: an unreadable image ends the work, or is left out, counted and listed.
    """

    model: str | None = None
    data: str | None = None
    checkpoint_format: str | None = None
    image_size: int | None = None
    root: str | None = None
    batch_size: int | None = None
    workers: int = 4
    amp: Literal["off", "float16", "bfloat16"] = "off"
    on_corrupt: OnCorrupt = "raise"

    def source(self) -> ModelSource:
        """The model.

        Raises:
            ValueError: none is named, or no data.
        """
        if self.model is None or self.data is None:
            raise ValueError("both of a pair are needed: --train and --test, or --extraction.model and --extraction.data.")
        return ModelSource(self.model, self.checkpoint_format, self.image_size)


def train_and_test(
    train: str | None,
    test: str | None,
    extraction: Extraction,
    out: str,
    device: str | None = None,
    progress: Progress | None = None,
) -> tuple[FeatureStore, FeatureStore]:
    """The labelled training and test store; extracted first where a model is named.

    Raises:
        ValueError: neither stores nor a model with data are named, or both.
        StoreError: a store is incomplete or has no labels.
    """
    from sslk.features import FeatureStore

    if (train is not None or test is not None) == (extraction.model is not None):
        raise ValueError("give either --train and --test, feature stores, or --extraction.model and --extraction.data.")
    if train is not None and test is not None:
        return FeatureStore(train).require(labels=True), FeatureStore(test).require(labels=True)
    from sslk.features.by_name import extract_pair

    model, root = extraction.source(), extraction.root
    settings = ExtractSettings(
        extraction.batch_size, workers=extraction.workers, amp=extraction.amp, device=device, on_corrupt=extraction.on_corrupt
    )
    return extract_pair(model, str(extraction.data), Path(out) / "features", settings, root=root, progress=progress)


def with_left_out(run: Run, extraction: Extraction, stores: Sequence[FeatureStore]) -> Run:
    """The run, with the names of the images that its extraction left out, unreadable."""
    from sslk.features import unreadable

    names = _left_out(extraction, stores)
    return unreadable.with_left_out(run, names, sum(store.spec.samples for store in stores))


def _left_out(extraction: Extraction, stores: Sequence[FeatureStore]) -> list[str]:
    """None where stores were given."""
    from sslk.data import load_dataset, splits_of
    from sslk.features.unreadable import left_out_of

    if extraction.model is None or not any(store.manifest.skipped for store in stores):
        return []
    parts = zip(stores, splits_of(str(extraction.data)), strict=True)
    return [name for store, part in parts for name in left_out_of(store, load_dataset(*part, root=extraction.root))]
