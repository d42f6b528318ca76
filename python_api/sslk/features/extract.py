"""Extraction: the representations of a data set under a model, into a feature store, resumable at any moment."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn
from torch.utils.data import Dataset

from sslk.features.identity import data_hash, dataset_name, labels_of, model_name, transform_text, weights_hash
from sslk.features.loading import Loaded, first_readable, loader
from sslk.features.manifest import MANIFEST, Manifest, StoreSpec, shard_name
from sslk.features.store import FeatureStore, dtype_of
from sslk.features.writer import StoreWriter

Precision = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class Progress:
    """How far an extraction is, for this process.

    Attributes:
        done: samples finished by this process in this run.
        total: samples this process has to do in this run.
        images_per_second: mean over this run.
        seconds_left: at this rate.
        unreadable: samples left out so far, in this run.
    """

    done: int
    total: int
    images_per_second: float
    seconds_left: float
    unreadable: int


def extract(
    model: nn.Module,
    dataset: Dataset[Any],
    out: str | PathLike[str],
    *,
    batch_size: int = 256,
    shard_rows: int | None = None,
    workers: int = 4,
    amp: Literal["off", "float16", "bfloat16"] = "off",
    dtype: Precision | None = None,
    device: str | torch.device | None = None,
    on_corrupt: Literal["raise", "skip"] = "raise",
    labels: bool | None = None,
    progress: Callable[[Progress], None] | None = None,
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
        batch_size: images per forward pass; a shard's last batch is smaller unless it divides `shard_rows`.
        shard_rows: samples per shard, what a kill can cost; 8192, or what the begun store has.
        workers: loading processes; 0 loads in this one.
        amp: dtype of autocast in the forward pass.
        dtype: dtype of the stored features; that of amp by default, float32 without.
        device: where to compute, the model is moved there; where the model is by default.
        on_corrupt: an unreadable image ends the run, or is left out, counted and listed in the manifest.
        labels: whether to store labels; where the data set has `labels` or `targets` by default.
        progress: called after every batch.

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
    >>> store = extract(model, images, Path(tempfile.mkdtemp()) / "store", workers=0, labels=True)
    >>> store.load().features.shape, store.labels().tolist()
    (torch.Size([10, 4]), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    out = Path(out)
    _check_sizes(dataset, batch_size, shard_rows, workers)
    if on_corrupt not in ("raise", "skip"):
        raise ValueError(f"on_corrupt must be 'raise' or 'skip', got {on_corrupt!r}.")
    known = labels_of(dataset) is not None
    if labels and not known and len(first_readable(dataset)) < 2:
        raise ValueError(f"labels=True needs a labelled data set, but {dataset_name(dataset)} has no labels.")
    device = torch.device(device) if device is not None else _device_of(model)
    model.to(device)
    rank, world_size = _place()
    with _evaluating(model, device, amp) as forward:
        spec = StoreSpec(
            model=model_name(model),
            weights_hash=weights_hash(model),
            dataset=dataset_name(dataset),
            data_hash=data_hash(dataset),
            transform=transform_text(dataset),
            samples=len(dataset),  # type: ignore[arg-type]
            num_features=_num_features(model, forward, dataset),
            dtype=dtype or ("float32" if amp == "off" else amp),
            amp=amp,
            labels=known if labels is None else labels,
            signed=bool(getattr(model, "signed", False)),
            classes=tuple(str(name) for name in getattr(dataset, "classes", None) or ()),
            shard_rows=shard_rows or _begun_shard_rows(out) or 8192,
            variants=tuple(getattr(model, "variants", ())),
        )
        with StoreWriter(out, spec, rank) as writer:
            mine = range(rank, spec.shard_count, world_size)
            todo = [number for number in mine if shard_name(number) not in writer.finished]
            if todo:
                _extract_shards(forward, dataset, writer, todo, batch_size, workers, device, on_corrupt, progress)
    if world_size > 1 and distributed.is_initialized():
        distributed.barrier()
    return FeatureStore(out)


def _extract_shards(
    forward: Callable[[Tensor], Tensor],
    dataset: Dataset[Any],
    writer: StoreWriter,
    numbers: list[int],
    batch_size: int,
    workers: int,
    device: torch.device,
    on_corrupt: str,
    progress: Callable[[Progress], None] | None,
) -> None:
    """Fill the given shards; loading runs ahead across their borders."""
    spec = writer.spec
    plan = {number: _batches(spec, number, batch_size) for number in numbers}
    loaded: Iterator[Loaded] = iter(
        loader(
            dataset,
            [indices for batches in plan.values() for indices in batches],
            labels=spec.labels,
            workers=workers,
            pin=device.type == "cuda",
        )
    )
    total = sum(len(indices) for batches in plan.values() for indices in batches)
    done = unreadable = 0
    start = time.monotonic()
    for number, batches in plan.items():
        # The shard is gathered on the device: one transfer back, and no wait for it after every batch.
        features: list[Tensor] = []
        labels: list[Tensor] = []
        index: list[Tensor] = []
        skipped: list[tuple[int, str]] = []
        for indices in batches:
            batch = next(loaded)
            if batch.unreadable and on_corrupt == "raise":
                sample, reason = batch.unreadable[0]
                raise ValueError(
                    f"sample {sample} of {spec.dataset} cannot be read ({reason}); "
                    "on_corrupt='skip' leaves such samples out."
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
                rate = done / max(time.monotonic() - start, 1e-9)
                progress(Progress(done, total, rate, (total - done) / rate, unreadable))
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


def _place() -> tuple[int, int]:
    """Rank and number of processes, from the process group or from torchrun's environment."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def _check_sizes(dataset: Dataset[Any], batch_size: int, shard_rows: int | None, workers: int) -> None:
    if batch_size < 1 or (shard_rows is not None and shard_rows < 1) or workers < 0:
        raise ValueError(
            f"batch_size and shard_rows must be at least 1 and workers at least 0, "
            f"got {batch_size}, {shard_rows} and {workers}."
        )
    if not len(dataset):  # type: ignore[arg-type]
        raise ValueError(f"dataset must not be empty, but {dataset_name(dataset)} has no samples.")
