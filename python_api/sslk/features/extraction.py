"""Extraction: the representations of a data set under a model, into feature stores, resumable at any moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.utils.data import Dataset

from sslk.distributed import require_device, world
from sslk.features.forward import Forward
from sslk.features.identity import data_hash, dataset_name, labels_of, model_name, transform_text, weights_hash
from sslk.features.loading import as_tensor, first_readable
from sslk.features.manifest import MANIFEST, Manifest, StoreSpec, shard_name
from sslk.features.settings import ExtractSettings
from sslk.features.shards import fill_shards
from sslk.features.store import FeatureStore
from sslk.features.writer import StoreWriter
from sslk.progress import Progress


def extract(
    model: nn.Module,
    dataset: Dataset[Any],
    out: str | PathLike[str],
    settings: ExtractSettings = ExtractSettings(),  # noqa: B008 (frozen)
    *,
    labels: bool | None = None,
    progress: Progress | None = None,
) -> FeatureStore:
    """Run a model over a data set and store the representations.

    Shards are finished one by one: killed at any moment, the next call with the same arguments goes on at the first
    unfinished shard and ends with the same bytes, because batches begin anew with every shard. Called again for a
    finished store it returns at once. Under `torchrun` process r of W writes the shards r, r + W, ...: no sample
    is stored twice, and the shards do not depend on W.

    Args:
        model: maps images `[n, C, H, W]` to representations `[n, D]`. Evaluated in eval mode, without gradients; its
            training flags are restored. Attributes `name`, `num_features`, `signed`, `variants` and `feature` (which
            representation it is, in words) are used where present.
        dataset: map-style; items `(image tensor, label)` or images; attributes `name`, `classes`, `labels` and
            `transform` are used where present.
        out: folder of the store.
        settings: batches, shards, precision; a shard's last batch is smaller unless `batch_size` divides `shard_rows`. The
            model is moved to the device; where it is by default.
        labels: whether to store labels; where the data set has `labels` or `targets` by default.
        progress: called after every batch with the samples of this process and run.

    Returns:
        The store. With several processes and an initialised process group, complete.

    Raises:
        StoreError: out holds another extraction (the fields that differ are named) or a damaged shard.
        ValueError: labels=True for a data set without labels, an empty data set, an unreadable image, a model whose
            output is no `[n, D]` or that cannot be compiled, an image that does not fit the memory, features that do not
            fit dtype, a device that is not there, or a size that is not positive.
        OSError: the disk is full or out cannot be written to.

    >>> import tempfile
    >>> images = torch.utils.data.TensorDataset(torch.randn(10, 3, 8, 8), torch.arange(10))
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> store = extract(model, images, Path(tempfile.mkdtemp()) / "store", ExtractSettings(workers=0), labels=True)
    >>> store.load().features.shape, store.labels().tolist()
    (torch.Size([10, 4]), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    (store,) = _extract(model, dataset, {"": Path(out)}, None, settings, labels, progress)
    return store


def extract_several(
    model: nn.Module,
    dataset: Dataset[Any],
    out: Mapping[str, str | PathLike[str]],
    settings: ExtractSettings = ExtractSettings(),  # noqa: B008 (frozen)
    *,
    labels: bool | None = None,
    progress: Progress | None = None,
) -> dict[str, FeatureStore]:
    """Store several representations of the same images, of several layers say, out of one forward pass.

    What is true of `extract` is true of each store. A shard is computed where any store lacks it, and written into those.

    Args:
        model: gives the representations `[n, D_k]` by name, in a mapping that `forward_several(images)` returns, or where
            it has no such method the model itself; or in a tuple, in the order of out. Where the model has
            `representations`, a mapping from their names, `num_features`, `signed`, `feature` and `weights_hash` are taken
            from its values; they are measured on the first image otherwise, and `feature` is the name.
        out: folder of the store of each representation; the model may give more of them.
        dataset, settings, labels, progress: as for `extract`.

    Raises:
        StoreError, ValueError, OSError: as for `extract`, or two representations have one folder.

    >>> import tempfile
    >>> class Two(nn.Module):
    ...     def forward(self, images):
    ...         return {"mean": images.mean((2, 3)), "max": images.amax((2, 3)), "pixels": images.flatten(1)}
    >>> images, folder = torch.utils.data.TensorDataset(torch.randn(10, 3, 8, 8)), Path(tempfile.mkdtemp())
    >>> stores = extract_several(Two(), images, {"max": folder / "a", "pixels": folder / "b"}, ExtractSettings(workers=0))
    >>> {name: (store.num_features, store.spec.signed) for name, store in stores.items()}
    {'max': (3, False), 'pixels': (192, True)}
    """
    if not isinstance(out, Mapping):
        raise TypeError(f"out must map the names of representations to folders, got {type(out).__name__}.")
    folders = {name: Path(path) for name, path in out.items()}
    if not folders or len({path.resolve() for path in folders.values()}) < len(folders):
        raise ValueError(f"out must name representations, each with a folder of its own, got {dict(out)}.")
    stores = _extract(model, dataset, folders, tuple(folders), settings, labels, progress)
    return dict(zip(folders, stores, strict=True))


def _extract(
    model: nn.Module,
    dataset: Dataset[Any],
    out: Mapping[str, Path],
    names: tuple[str, ...] | None,
    settings: ExtractSettings,
    labels: bool | None,
    progress: Progress | None,
) -> list[FeatureStore]:
    _check(dataset, settings)
    known = labels_of(dataset) is not None
    if labels and not known and len(first_readable(dataset)) < 2:
        raise ValueError(f"labels=True needs a labelled data set, but {dataset_name(dataset)} has no labels.")
    device = require_device(settings.device) if settings.device is not None else _device_of(model)
    model.to(device)
    rank, world_size = world()
    first_image = cache(lambda: as_tensor(first_readable(dataset)[0]))
    begun = next((Manifest.read(folder).spec for folder in out.values() if (folder / MANIFEST).exists()), None)
    common: dict[str, Any] = {
        "model": model_name(model),
        "weights_hash": weights_hash(model),
        "dataset": dataset_name(dataset),
        "data_hash": data_hash(dataset),
        "transform": transform_text(dataset),
        "samples": len(dataset),  # type: ignore[arg-type]
        "dtype": settings.dtype or ("float32" if settings.amp == "off" else settings.amp),
        "amp": settings.amp,
        "labels": known if labels is None else labels,
        "classes": tuple(str(name) for name in getattr(dataset, "classes", None) or ()),
        "shard_rows": settings.shard_rows or (begun.shard_rows if begun else 8192),
        "variants": tuple(getattr(model, "variants", ())),
    }
    with ExitStack() as stack:
        forward = stack.enter_context(Forward(model, names, settings, device))
        facts = _representations(model, names, forward, first_image, begun)
        specs = [StoreSpec(**{**common, **fact}) for fact in facts]
        writers = [stack.enter_context(StoreWriter(path, spec, rank)) for path, spec in zip(out.values(), specs, strict=True)]
        mine = range(rank, specs[0].shard_count, world_size)
        todo = [number for number in mine if any(shard_name(number) not in writer.finished for writer in writers)]
        if todo:
            largest = min(specs[0].shard_rows, specs[0].samples)
            forward.batch_size = min(largest, settings.batch_size or _usual_batch(device, first_image))
            fill_shards(forward, dataset, writers, todo, settings, progress)
    if world_size > 1 and distributed.is_initialized():
        distributed.barrier()
    return [FeatureStore(path) for path in out.values()]


def _representations(
    model: nn.Module, names: tuple[str, ...] | None, forward: Forward, first_image: Callable[[], Tensor], begun: StoreSpec | None
) -> list[dict[str, Any]]:
    """D, sign and description of each representation: as the model says, or as the first image shows."""
    if names is None:
        width, signed, feature = (getattr(model, name, None) for name in ("num_features", "signed", "feature"))
        if begun is not None and begun.weights_hash == weights_hash(model):  # measured when the store was begun
            width = width if isinstance(width, int) else begun.num_features
            signed = signed if isinstance(signed, bool) else begun.signed
        if not isinstance(width, int) or not isinstance(signed, bool):
            (measured,) = forward.first(first_image())
            width = width if isinstance(width, int) else measured.shape[1]
            signed = signed if isinstance(signed, bool) else bool((measured < 0).any())
        return [{"num_features": width, "signed": signed, "feature": feature if isinstance(feature, str) else ""}]
    about = getattr(model, "representations", {})
    if all(name in about for name in names):
        return [
            {
                "num_features": about[name].num_features,
                "signed": bool(about[name].signed),
                "feature": str(getattr(about[name], "feature", name)),
                # What one layer depends on is not what another does.
                **({"weights_hash": about[name].weights_hash} if hasattr(about[name], "weights_hash") else {}),
            }
            for name in names
        ]
    outputs = forward.first(first_image())
    return [
        {"num_features": output.shape[1], "signed": bool((output < 0).any()), "feature": name}
        for name, output in zip(names, outputs, strict=True)
    ]


def _usual_batch(device: torch.device, first_image: Callable[[], Tensor]) -> int:
    """256; on a CPU, which is no faster for many images at once, as many as have the pixels of 32 at 224 x 224."""
    if device.type != "cpu":
        return 256
    try:
        return max(1, min(256, 32 * 3 * 224 * 224 // first_image().numel()))
    except ValueError:  # which sample cannot be read is said where it is its turn
        return 32


def _device_of(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in model.state_dict().values()), torch.device("cpu"))


def _check(dataset: Dataset[Any], settings: ExtractSettings) -> None:
    batch_size, shard_rows, workers = settings.batch_size, settings.shard_rows, settings.workers
    if settings.on_corrupt not in ("raise", "skip"):
        raise ValueError(f"on_corrupt must be 'raise' or 'skip', got {settings.on_corrupt!r}.")
    if settings.amp not in ("off", "float16", "bfloat16"):
        raise ValueError(f"amp must be 'off', 'float16' or 'bfloat16', got {settings.amp!r}.")
    if (batch_size is not None and batch_size < 1) or (shard_rows is not None and shard_rows < 1) or workers < 0:
        raise ValueError(
            f"batch_size and shard_rows must be at least 1 and workers at least 0, got {batch_size}, {shard_rows} and {workers}."
        )
    if not len(dataset):  # type: ignore[arg-type]
        raise ValueError(f"dataset must not be empty, but {dataset_name(dataset)} has no samples.")
