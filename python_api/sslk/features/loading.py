"""Loading the samples of one shard after another in worker processes, corrupt ones told apart."""

import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sslk.data.workers import loading_processes
from sslk.features.identity import labels_of

# What decoders raise on damaged files. Anything else, a TypeError in a transform say, is a bug and stays fatal.
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError)


class Sample(NamedTuple):
    """One sample of the data set, or why it could not be read."""

    number: int
    image: Tensor | None
    label: int | None
    error: str = ""


class Loaded(NamedTuple):
    """One batch: images `[n, C, H, W]` (None where n = 0), labels and indices int64 `[n]`, `(sample, reason)` pairs."""

    images: Tensor | None
    labels: Tensor | None
    indices: Tensor
    unreadable: tuple[tuple[int, str], ...]

    def pin_memory(self) -> "Loaded":
        """Called by the DataLoader: pinned images travel to the accelerator while it computes."""
        return self._replace(images=None if self.images is None else self.images.pin_memory())


class Samples(Dataset[Sample]):
    """The samples of a data set by index, errors of damaged files caught in the worker."""

    def __init__(self, dataset: Dataset[Any], labels: bool) -> None:
        self.dataset = dataset
        self.labels = labels

    def __getitem__(self, index: int) -> Sample:
        try:
            item = self.dataset[index]
        except UNREADABLE as error:
            return Sample(index, None, None, _reason(error))
        labelled = isinstance(item, tuple | list)
        image = as_tensor(item[0] if labelled else item)
        if not self.labels:
            return Sample(index, image, None)
        return Sample(index, image, int(item[1] if labelled else labels_of(self.dataset)[index]))  # type: ignore[index]


def first_readable(dataset: Dataset[Any]) -> tuple[Any, ...]:
    """The first item that can be read, as a tuple.

    Raises:
        ValueError: there is none.
    """
    for number in range(len(dataset)):  # type: ignore[arg-type]
        try:
            item = dataset[number]
        except UNREADABLE as error:
            reason = _reason(error)
            continue
        return tuple(item) if isinstance(item, tuple | list) else (item,)
    raise ValueError(f"dataset has no readable sample; the last error was {reason}.")


def as_tensor(image: object) -> Tensor:
    """An image of the data set.

    Raises:
        TypeError: it is no tensor.
    """
    if not isinstance(image, Tensor):
        kind = type(image).__name__
        raise TypeError(f"dataset must give image tensors, got {kind}: add a transform that ends in a tensor.")
    return image


def _reason(error: Exception) -> str:
    """What went wrong, alike in every run: without the addresses of objects."""
    return re.sub(r" at 0x[0-9a-f]+", "", f"{type(error).__name__}: {error}")


def collate(samples: list[Sample]) -> Loaded:
    """Stack the readable samples."""
    good = [sample for sample in samples if sample.image is not None]
    return Loaded(
        torch.stack([sample.image for sample in good if sample.image is not None]) if good else None,
        torch.tensor([sample.label for sample in good], dtype=torch.int64) if good and good[0].label is not None else None,
        torch.tensor([sample.number for sample in good], dtype=torch.int64),
        tuple((sample.number, sample.error) for sample in samples if sample.image is None),
    )


def loader(dataset: Dataset[Any], batches: list[range], *, labels: bool, workers: int, pin: bool) -> DataLoader[Loaded]:
    """A DataLoader over the given batches of indices, in their order."""
    return DataLoader(
        Samples(dataset, labels),  # type: ignore[arg-type]
        batch_sampler=batches,  # type: ignore[arg-type]
        num_workers=loading_processes(workers),
        collate_fn=collate,
        pin_memory=pin,
        generator=torch.Generator().manual_seed(0),  # leaves the caller's random state alone
    )


def ahead(batches: Iterable[Loaded], device: torch.device) -> Iterator[Loaded]:
    """The batches; on CUDA the next one travels to the device while the network computes."""
    if device.type != "cuda":
        yield from batches
        return
    copying, computing = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    waiting: tuple[Loaded, torch.cuda.Event] | None = None
    computed: tuple[torch.cuda.Event | None, torch.cuda.Event | None] = (None, None)
    for batch in batches:
        if computed[0] is not None:
            computed[0].synchronize()  # at most three batches are on the device, however quick the loading
        following = _copied(batch, device, copying)
        if waiting is not None:
            yield _arrived(*waiting, computing)
            computed = (computed[1], computing.record_event())
        waiting = following
    if waiting is not None:
        yield _arrived(*waiting, computing)


def _copied(batch: Loaded, device: torch.device, stream: torch.cuda.Stream) -> tuple[Loaded, torch.cuda.Event]:
    """The batch on its way, and the event of its arrival; a batch that does not fit stays, and goes in pieces later."""
    with torch.cuda.stream(stream):
        if batch.images is not None:
            try:
                batch = batch._replace(images=batch.images.to(device, non_blocking=True))
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
        return batch, stream.record_event()


def _arrived(batch: Loaded, event: torch.cuda.Event, stream: torch.cuda.Stream) -> Loaded:
    stream.wait_event(event)
    if batch.images is not None and batch.images.is_cuda:
        batch.images.record_stream(stream)  # not to be overwritten by the next copy before the network has read it
    return batch
