"""Where a command's features come from: two stores, or a model and data, extracted into the run's folder first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sslk.features.settings import ExtractSettings
from sslk.models.source import ModelSource

if TYPE_CHECKING:
    from sslk.features.store import FeatureStore
    from sslk.progress import Progress


@dataclass(frozen=True)
class Extraction:
    """A model and its data by name, in place of feature stores.

    Attributes:
        model: torchvision:NAME, timm:NAME, hf:NAME, lightly:NAME, cifar:NAME or embedded, with @CHECKPOINT.
        data: name of a data set with a training and a test split, or TRAIN+TEST.
        checkpoint_format: layout of the checkpoint; detected by default.
        image_size: side of the image crop in pixels; the model's own by default.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        batch_size: images per forward pass.
        workers: loading processes.
        amp: dtype of mixed precision, or off.
    """

    model: str | None = None
    data: str | None = None
    checkpoint_format: str | None = None
    image_size: int | None = None
    root: str | None = None
    batch_size: int = 256
    workers: int = 4
    amp: Literal["off", "float16", "bfloat16"] = "off"

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
    settings = ExtractSettings(extraction.batch_size, None, extraction.workers, extraction.amp, None, device)
    return extract_pair(model, str(extraction.data), Path(out) / "features", settings, root=root, progress=progress)
