"""Where a command's features come from: two stores, or a model and data, extracted into the run's folder first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sslk.commands.console import progress_bar
from sslk.features.by_name import extract_by_name
from sslk.features.extract import Progress
from sslk.features.store import FeatureStore
from sslk.probes.source import joined
from sslk.quality.transfer import splits_of


@dataclass(frozen=True)
class Extraction:
    """A model and its data by name, in place of feature stores.

    Attributes:
        model: torchvision:NAME, timm:NAME, hf:NAME, lightly:NAME, cifar:NAME or embedded.
        data: name of a data set with a training and a test split, or TRAIN+TEST.
        weights: checkpoint of the model.
        checkpoint_format: layout of the checkpoint, detected by default.
        image_size: side of the image crop, the model's own by default.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        batch_size: images per forward pass.
        workers: loading processes.
        amp: dtype of mixed precision, or off.
    """

    model: str | None = None
    data: str | None = None
    weights: str | None = None
    checkpoint_format: str | None = None
    image_size: int | None = None
    root: str | None = None
    batch_size: int = 256
    workers: int = 4
    amp: Literal["off", "float16", "bfloat16"] = "off"


def open_stores(
    train: str | None, test: str | None, extraction: Extraction, out: Path, device: str | None, quiet: bool
) -> tuple[FeatureStore, FeatureStore]:
    """The training and the test store, labelled and of one model; extracted first where a model is named.

    Raises:
        ValueError: neither stores nor a model with data are named, or both.
        StoreError: a store is incomplete, has no labels, or the two are of different models.
    """
    named = train is not None or test is not None
    if named == (extraction.model is not None):
        raise ValueError("give either --train and --test, feature stores, or --extraction.model and --extraction.data.")
    if train is not None and test is not None:
        stores = FeatureStore(train), FeatureStore(test)
    elif extraction.model is None or extraction.data is None:
        raise ValueError("both of a pair are needed: --train and --test, or --extraction.model and --extraction.data.")
    else:
        first, second = (
            extracted(extraction, extraction.model, data, split, out / "features" / role, device, quiet)
            for role, (data, split) in zip(("train", "test"), splits_of(extraction.data), strict=True)
        )
        stores = first, second
    for store in stores:
        store.require(labels=True)
    return stores[0], joined(*stores)


def extracted(
    extraction: Extraction, model: str, data: str, split: str, out: Path, device: str | None, quiet: bool
) -> FeatureStore:
    """One split, extracted with a progress bar; at once where that has been done."""
    with progress_bar(f"extracting {split}", quiet) as update:

        def show(progress: Progress) -> None:
            update(progress.done, progress.total)

        return extract_by_name(
            model, data, str(out), split=split, weights=extraction.weights,
            checkpoint_format=extraction.checkpoint_format, image_size=extraction.image_size, root=extraction.root,
            batch_size=extraction.batch_size, workers=extraction.workers, amp=extraction.amp, device=device,
            progress=show,
        )  # fmt: skip


def described(store: FeatureStore) -> dict[str, Any]:
    """What provenance says about a store."""
    spec = store.spec
    return {
        "model": spec.model,
        "weights": spec.weights_hash[:12],
        "data": spec.dataset,
        "samples": len(store),
        "features": spec.num_features,
    }


def parsed_eps(value: float | str) -> float | Literal["auto"]:
    """An option's threshold: a number, or auto."""
    if value == "auto":
        return "auto"
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"eps must be a number or auto, got {value!r}.") from None
