"""Extraction: the representations of a data set under a model, into a feature store, resumable at any moment."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.utils.data import Dataset

from sslk.distributed import world
from sslk.features.identity import data_hash, dataset_name, labels_of, model_name, transform_text, weights_hash
from sslk.features.loading import Loaded, first_readable, loader
from sslk.features.manifest import MANIFEST, Manifest, StoreSpec, shard_name
from sslk.features.settings import ExtractSettings
from sslk.features.store import FeatureStore, dtype_of
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
            training flags are restored. Attributes `name`, `num_features`, `signed` and `variants` are used where
            present.
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
            output is no `[n, D]`, features that do not fit dtype, or a size that is not positive.
        OSError: the disk is full or out cannot be written to.

    >>> import tempfile
    >>> images = torch.utils.data.TensorDataset(torch.randn(10, 3, 8, 8), torch.arange(10))
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> store = extract(model, images, Path(tempfile.mkdtemp()) / "store", ExtractSettings(workers=0), labels=True)
    >>> store.load().features.shape, store.labels().tolist()
    (torch.Size([10, 4]), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    out = Path(out)
    _check(dataset, settings)
    known = labels_of(dataset) is not None
    if labels and not known and len(first_readable(dataset)) < 2:
        raise ValueError(f"labels=True needs a labelled data set, but {dataset_name(dataset)} has no labels.")
    device = torch.device(settings.device) if settings.device is not None else _device_of(model)
    model.to(device)
    rank, world_size = world()
    with _evaluating(model, device, settings.amp) as forward:
        spec = StoreSpec(
            model=model_name(model),
            weights_hash=weights_hash(model),
            dataset=dataset_name(dataset),
            data_hash=data_hash(dataset),
            transform=transform_text(dataset),
            samples=len(dataset),  # type: ignore[arg-type]
            num_features=_num_features(model, forward, dataset),
            dtype=settings.dtype or ("float32" if settings.amp == "off" else settings.amp),
            amp=settings.amp,
            labels=known if labels is None else labels,
            signed=bool(getattr(model, "signed", False)),
            classes=tuple(str(name) for name in getattr(dataset, "classes", None) or ()),
            shard_rows=settings.shard_rows or _begun_shard_rows(out) or 8192,
            variants=tuple(getattr(model, "variants", ())),
        )
        with StoreWriter(out, spec, rank) as writer:
            mine = range(rank, spec.shard_count, world_size)
            todo = [number for number in mine if shard_name(number) not in writer.finished]
            if todo:
                _extract_shards(forward, dataset, writer, todo, settings, device, progress)
    if world_size > 1 and distributed.is_initialized():
        distributed.barrier()
    return FeatureStore(out)


def _extract_shards(
    forward: Callable[[Tensor], Tensor],
    dataset: Dataset[Any],
    writer: StoreWriter,
    numbers: list[int],
    settings: ExtractSettings,
    device: torch.device,
    progress: Progress | None,
) -> None:
    """Fill the given shards; loading runs ahead across their borders."""
    spec = writer.spec
    plan = {number: _batches(spec, number, settings.batch_size) for number in numbers}
    loaded: Iterator[Loaded] = iter(
        loader(
            dataset,
            [indices for batches in plan.values() for indices in batches],
            labels=spec.labels,
            workers=settings.workers,
            pin=device.type == "cuda",
        )
    )
    total = sum(len(indices) for batches in plan.values() for indices in batches)
    done = unreadable = 0
    for number, batches in plan.items():
        # The shard is gathered on the device: one transfer back, and no wait for it after every batch.
        features: list[Tensor] = []
        labels: list[Tensor] = []
        index: list[Tensor] = []
        skipped: list[tuple[int, str]] = []
        for indices in batches:
            batch = next(loaded)
            if batch.unreadable and settings.on_corrupt == "raise":
                sample, reason = batch.unreadable[0]
                raise ValueError(
                    f"sample {sample} of {spec.dataset} cannot be read ({reason}); on_corrupt='skip' leaves such samples out."
                )
            skipped += batch.unreadable
            if batch.images is not None:
                output = forward(batch.images.to(device, non_blocking=True))
                _checked(output, len(batch.indices), spec.num_features)
                features.append(output)
                index.append(batch.indices)
                if batch.labels is not None:
                    labels.append(batch.labels)
            done += len(indices)
            unreadable += len(batch.unreadable)
            if progress is not None:
                progress(done, total, "extracting")
        if unreadable == done:  # nothing so far in this run; earlier runs or other processes may have read samples
            sample, reason = skipped[0]
            try:
                first_readable(dataset)
            except ValueError:
                message = f"no sample of {spec.dataset} could be read; the first, {sample}: {reason}."
                raise ValueError(message) from None
        empty = torch.zeros(0, dtype=torch.int64)
        writer.write(
            number,
            torch.cat(features) if features else torch.zeros(0, spec.num_features),
            torch.cat([empty, *labels]) if spec.labels else None,
            torch.cat([empty, *index]),
            tuple(skipped),
        )


def _batches(spec: StoreSpec, number: int, batch_size: int) -> list[range]:
    """The indices of a shard's batches; they depend on nothing but the shard."""
    first, last = number * spec.shard_rows, min((number + 1) * spec.shard_rows, spec.samples)
    return [range(start, min(start + batch_size, last)) for start in range(first, last, batch_size)]


def _checked(output: object, rows: int, num_features: int | None = None) -> Tensor:
    """The model's output, refused unless it is `[rows, num_features]`."""
    if not isinstance(output, Tensor) or output.dim() != 2 or len(output) != rows or not output.is_floating_point():
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            f"model must return representations [n, D], but gave {found} for {rows} images: "
            "pool the feature map, or pass the backbone alone."
        )
    if num_features is not None and output.shape[1] != num_features:
        raise ValueError(f"model.num_features says {num_features}, but the output has {output.shape[1]} features.")
    return output


@contextmanager
def _evaluating(model: nn.Module, device: torch.device, amp: str) -> Iterator[Callable[[Tensor], Tensor]]:
    """The model's forward pass in eval mode, without gradients and in mixed precision; flags are restored after."""
    training = [module for module in model.modules() if module.training]
    precision: AbstractContextManager[Any] = nullcontext()
    if amp != "off":
        precision = torch.autocast(device.type, dtype=dtype_of(amp))
    model.eval()
    try:
        with torch.inference_mode(), precision:
            yield model
    finally:
        for module in training:
            module.training = True


def _num_features(model: nn.Module, forward: Callable[[Tensor], Tensor], dataset: Dataset[Any]) -> int:
    """D: as the backbone says, or as the first sample shows."""
    stated = getattr(model, "num_features", None)
    if isinstance(stated, int):
        return stated
    image = first_readable(dataset)[0]
    return _checked(forward(image[None].to(_device_of(model))), 1).shape[1]


def _device_of(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in model.state_dict().values()), torch.device("cpu"))


def _begun_shard_rows(out: Path) -> int | None:
    return Manifest.read(out).spec.shard_rows if (out / MANIFEST).exists() else None


def _check(dataset: Dataset[Any], settings: ExtractSettings) -> None:
    batch_size, shard_rows, workers = settings.batch_size, settings.shard_rows, settings.workers
    if settings.on_corrupt not in ("raise", "skip"):
        raise ValueError(f"on_corrupt must be 'raise' or 'skip', got {settings.on_corrupt!r}.")
    if batch_size < 1 or (shard_rows is not None and shard_rows < 1) or workers < 0:
        raise ValueError(
            f"batch_size and shard_rows must be at least 1 and workers at least 0, got {batch_size}, {shard_rows} and {workers}."
        )
    if not len(dataset):  # type: ignore[arg-type]
        raise ValueError(f"dataset must not be empty, but {dataset_name(dataset)} has no samples.")
