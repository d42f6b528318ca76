"""Batches of views whose order and randomness depend on seed, epoch and place alone: resumable, equal for all arms.

On a GPU the random numbers of images kept in memory are drawn there: other ones than on a CPU, with the same property.
A batch is the same however often the run was interrupted and over however many processes it is spread: process r of W
takes every W-th image of the global batch, with the random numbers that this image has in it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from sslk.data.augment import BatchSimCLRTransform
from sslk.data.workers import loading_processes

LOCAL_SCALE = (0.05, 0.2)
SMALL_IMAGE = 64  # pixels; sets of such images are kept in memory and augmented a batch at a time
_MIX = 1_000_003  # spreads neighbouring seeds and epochs over different streams


def batch_indices(count: int, batch_size: int, epoch: int, seed: int) -> Tensor:
    """The order of an epoch, int64 `[batches, batch_size]`; images that fill no batch are left out of this epoch.

    >>> batch_indices(5, 2, epoch=0, seed=0).shape
    torch.Size([2, 2])
    """
    generator = torch.Generator().manual_seed(seed * _MIX + epoch)
    order = torch.randperm(count, generator=generator)
    return order[: count // batch_size * batch_size].view(-1, batch_size)


class Batches:
    """All batches of a run as one stream that can begin anywhere: what a training loop iterates over.

    Args:
        count: images in the set.
        batch_size: of the global batch.
        epochs: how often the set is passed.
        seed: of the order and the views.
        source: makes a batch of each key: its images, their rows in the global batch, its seed.
        rank, world_size: this process and how many there are.

    Attributes:
        per_epoch: batches of an epoch.
        position: batches already given out, of the whole run.

    Raises:
        ValueError: fewer images than one batch, or a batch that cannot be split evenly over the processes.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        epochs: int,
        seed: int,
        source: TensorViews | ImageViews,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if count < batch_size:
            raise ValueError(
                f"the data must hold at least one batch of {batch_size} images over {world_size} process(es), got {count} images."
            )
        if batch_size % world_size or batch_size // world_size < 2:
            raise ValueError(
                f"batch_size must give each of {world_size} process(es) the same number of images, at least 2, got {batch_size}."
            )
        self.count, self.batch_size, self.epochs, self.seed = count, batch_size, epochs, seed
        self.source, self.rank, self.world_size = source, rank, world_size
        self.per_epoch = count // batch_size
        self.position = 0

    def __len__(self) -> int:
        return self.epochs * self.per_epoch

    def __iter__(self) -> Iterator[Any]:
        for batch in self.source.batches(self._keys(self.position)):
            self.position += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]

    def _keys(self, start: int) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Of every batch from `start` on: this process's images, their rows in the global batch, the batch's seed."""
        device = self.source.device
        rows = torch.arange(self.rank, self.batch_size, self.world_size, device=device)
        order, epoch = torch.empty(0), -1
        for position in range(start, len(self)):
            if position // self.per_epoch != epoch:
                epoch = position // self.per_epoch
                order = batch_indices(self.count, self.batch_size, epoch, self.seed).to(device)
            seed = ((self.seed * _MIX + 1) * _MIX + position) % 2**63
            yield order[position % self.per_epoch][rows], rows, seed


class TensorViews(nn.Module):
    """Views of images that are kept in memory, augmented a whole batch at a time on the device that trains.

    On a GPU the images go there when the run starts and the order once per epoch; a batch copies nothing. Its random
    numbers are drawn there, from a generator seeded for this batch, so that views differ from those on a CPU.

    Args:
        images: uint8 `[N, 3, H, W]`.
        batch_size: of the global batch: the random numbers are drawn for all of it.
        size: side of the views, in pixels.
        mean, std: normalisation of images in [0, 1].
        local_views: further crops per image, of half the side and 5 to 20 % of the area.
    """

    def __init__(
        self, images: Tensor, batch_size: int, size: int, mean: tuple[float, ...], std: tuple[float, ...], local_views: int = 0
    ) -> None:
        super().__init__()
        self.images, self.batch_size = images, batch_size
        augment = BatchSimCLRTransform(size, normalization=(mean, std))
        local = BatchSimCLRTransform(size // 2, LOCAL_SCALE, normalization=(mean, std))
        self.augments = nn.ModuleList([augment, augment, *[local] * local_views])

    def __len__(self) -> int:
        """Images in the set."""
        return len(self.images)

    @property
    def device(self) -> torch.device:
        """Where the views are made."""
        return self.augments[0].mean.device  # type: ignore[return-value]

    def batches(self, keys: Iterator[tuple[Tensor, Tensor, int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Images uint8 `[n, 3, H, W]` and random numbers `[views, 11, n]`, on the device."""
        images, generator = self.images.to(self.device), torch.Generator(self.device)
        for index, rows, seed in keys:
            generator.manual_seed(seed)
            drawn = [a.draw(self.batch_size, generator, images.device)[:, rows] for a in self.augments]  # type: ignore[operator]
            yield images[index], torch.stack(drawn)

    def forward(self, batch: tuple[Tensor, Tensor]) -> list[Tensor]:
        images, numbers = batch
        with torch.autocast(images.device.type, enabled=False):  # colours and coordinates are float32
            return [augment.render(images, u) for augment, u in zip(self.augments, numbers, strict=True)]  # type: ignore[operator]


class ImageViews(nn.Module):
    """Views of a data set of PIL images, made by a transform in loading processes.

    Args:
        dataset: `dataset[i]` is `(PIL image, anything)`.
        transform: PIL image -> list of views; its random numbers may come from torch, NumPy and `random`.
        workers: loading processes.
    """

    def __init__(self, dataset: TorchDataset[Any], transform: Callable[[Any], list[Tensor]], workers: int = 4) -> None:
        super().__init__()
        self.items, self.workers = _SeededItems(dataset, transform), workers

    def __len__(self) -> int:
        """Images in the set."""
        return len(self.items.dataset)  # type: ignore[arg-type]

    @property
    def device(self) -> torch.device:
        """Where the views are made: loading processes have no GPU."""
        return torch.device("cpu")

    def batches(self, keys: Iterator[tuple[Tensor, Tensor, int]]) -> Iterator[list[Tensor]]:
        samples = (
            [(i, (seed * _MIX + row) % 2**63) for i, row in zip(index.tolist(), rows.tolist(), strict=True)]
            for index, rows, seed in keys
        )
        yield from DataLoader(
            self.items,
            batch_sampler=samples,
            num_workers=loading_processes(self.workers),
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # seeds the loading processes; from the global one it would move that one
        )

    def forward(self, batch: list[Tensor]) -> list[Tensor]:
        return list(batch)


class _SeededItems(TorchDataset[Any]):
    """Views of an image that depend on the seed it is asked for with, whichever process makes them."""

    def __init__(self, dataset: TorchDataset[Any], transform: Callable[[Any], list[Tensor]]) -> None:
        self.dataset, self.transform = dataset, transform

    def __getitem__(self, key: tuple[int, int]) -> list[Tensor]:
        index, seed = key
        image = self.dataset[index][0]
        python, numpy = random.getstate(), np.random.get_state()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            try:
                return list(self.transform(image))
            finally:
                random.setstate(python)
                np.random.set_state(numpy)


class UnequalImages(ValueError):
    """The images of a data set differ in size."""


def images_in_memory(dataset: Any) -> Tensor:
    """All images of a data set of equally large PIL images, uint8 `[N, 3, H, W]`.

    Raises:
        UnequalImages: the images differ in size; names the first that does.

    >>> from sslk.data import load_dataset
    >>> images_in_memory(load_dataset("sample", "test")).shape
    torch.Size([1000, 3, 32, 32])
    """
    first = dataset[0][0].size
    images = torch.empty(len(dataset), 3, first[1], first[0], dtype=torch.uint8)
    for i in range(len(dataset)):
        image = dataset[i][0]
        if image.size != first:
            raise UnequalImages(f"image {i} of the data must be {first[0]} x {first[1]} pixels like the first, got {image.size}.")
        images[i] = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return images
