"""Filling the shards of one store or several in one pass over a data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sslk.features.forward import Forward
from sslk.features.loading import Loaded, ahead, first_readable, loader
from sslk.features.manifest import StoreSpec, shard_name
from sslk.features.settings import ExtractSettings
from sslk.features.writer import StoreWriter
from sslk.progress import Progress


class Shard:
    """What is gathered of one shard: K representations of the same samples.

    They stay on the device until the shard is whole: one transfer back, and no wait for it after every batch.
    """

    def __init__(self, specs: Sequence[StoreSpec]) -> None:
        self.specs = specs
        self.features: list[list[Tensor]] = [[] for _ in specs]
        self.labels = [torch.zeros(0, dtype=torch.int64)]
        self.index = [torch.zeros(0, dtype=torch.int64)]
        self.skipped: list[tuple[int, str]] = []

    def add(self, batch: Loaded, forward: Forward) -> None:
        """Run a batch through the network and keep what comes out."""
        self.skipped += batch.unreadable
        if batch.images is None:
            return
        for outputs in forward(batch.images):
            for spec, gathered, output in zip(self.specs, self.features, outputs, strict=True):
                if output.shape[1] != spec.num_features:
                    of = f" for {spec.feature}" if forward.names else ""
                    raise ValueError(
                        f"model.num_features says {spec.num_features}{of}, but the output has {output.shape[1]} features."
                    )
                gathered.append(output)
        self.index.append(batch.indices)
        if batch.labels is not None:
            self.labels.append(batch.labels)

    def write(self, number: int, writers: Sequence[StoreWriter]) -> None:
        """Into every store that lacks it."""
        for writer, spec, features in zip(writers, self.specs, self.features, strict=True):
            if shard_name(number) not in writer.finished:
                writer.write(
                    number,
                    torch.cat(features) if features else torch.zeros(0, spec.num_features),
                    torch.cat(self.labels) if spec.labels else None,
                    torch.cat(self.index),
                    tuple(self.skipped),
                )


def fill_shards(
    forward: Forward,
    dataset: Dataset[Any],
    writers: Sequence[StoreWriter],
    numbers: Sequence[int],
    settings: ExtractSettings,
    progress: Progress | None,
) -> None:
    """Write the given shards into the stores that lack them; loading runs ahead across their borders.

    Args:
        forward: gives the representation of every store, in their order.
        dataset: the images.
        writers: of K stores that differ in nothing but the representation.
        numbers: of the shards.
        settings: of the loading.
        progress: called after every batch.
    """
    spec = writers[0].spec
    plan = {number: _batches(spec, number, forward.batch_size) for number in numbers}
    everything = [indices for batches in plan.values() for indices in batches]
    pin = forward.device.type == "cuda"
    loaded: Iterator[Loaded] = ahead(
        loader(dataset, everything, labels=spec.labels, workers=settings.workers, pin=pin), forward.device
    )
    total = sum(len(indices) for indices in everything)
    done = unreadable = 0
    for number, batches in plan.items():
        shard = Shard([writer.spec for writer in writers])
        for indices in batches:
            batch = next(loaded)
            if batch.unreadable and settings.on_corrupt == "raise":
                sample, reason = batch.unreadable[0]
                raise ValueError(
                    f"sample {sample} of {spec.dataset} cannot be read ({reason}); on_corrupt='skip' leaves such samples out."
                )
            shard.add(batch, forward)
            done += len(indices)
            unreadable += len(batch.unreadable)
            if progress is not None:
                progress(done, total, "extracting")
        if unreadable == done:  # nothing so far in this run; earlier runs or other processes may have read samples
            sample, reason = shard.skipped[0]
            try:
                first_readable(dataset)
            except ValueError:
                message = f"no sample of {spec.dataset} could be read; the first, {sample}: {reason}."
                raise ValueError(message) from None
        shard.write(number, writers)


def _batches(spec: StoreSpec, number: int, batch_size: int) -> list[range]:
    """The indices of a shard's batches; they depend on nothing but the shard."""
    first, last = number * spec.shard_rows, min((number + 1) * spec.shard_rows, spec.samples)
    return [range(start, min(start + batch_size, last)) for start in range(first, last, batch_size)]
