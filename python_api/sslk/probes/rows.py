"""Where a probe's features come from: tensors, feature stores larger than memory, or an encoder run on the fly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from sslk.data.workers import loading_processes
from sslk.distributed import require_device
from sslk.features.store import FeatureStore
from sslk.probes.usable import RowCounts, matrix, whole_labels

READ_ROWS = 4096


@runtime_checkable
class Rows(Protocol):
    """Labelled features, read in shuffled batches or in order; features arrive in float32."""

    labels: Tensor  # int64 [N]
    num_features: int

    def shuffled(self, keep: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch over the rows `keep` (positions): features `[n, D]` and positions `[n]`."""
        ...

    def steps(self, keep: Tensor, batch_size: int) -> int:
        """How many batches `shuffled` gives at most."""
        ...

    def ordered(self, keep: Tensor | None = None) -> Iterator[Tensor]:
        """Features of the rows `keep`, ascending positions, or of all, in order."""
        ...


class TensorRows:
    """Features `[N, D]` in memory."""

    def __init__(self, name: str, features: Any, labels: Any) -> None:
        prefix = f"{name}_" if name else ""
        features = matrix(features, f"{prefix}features")
        numbers = whole_labels(labels, f"{prefix}labels")
        if len(features) != len(numbers):
            raise ValueError(
                f"{prefix}features must be [N, D] with {prefix}labels [N], got {list(features.shape)} and {list(numbers.shape)}."
            )
        self.features, self.labels, self.num_features = features, numbers, features.shape[1]

    def shuffled(self, keep: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of a permutation."""
        for part in torch.randperm(len(keep), generator=generator).split(batch_size):
            rows = keep[part]
            yield self.features[rows].float(), rows

    def steps(self, keep: Tensor, batch_size: int) -> int:
        """Batches an epoch."""
        return -(-len(keep) // batch_size)

    def ordered(self, keep: Tensor | None = None) -> Iterator[Tensor]:
        """Blocks in order."""
        for block in (self.features if keep is None else self.features[keep]).split(READ_ROWS):
            yield block.float()


class StoreRows:
    """A labelled feature store, never wholly in memory; shuffled by shard and buffer."""

    def __init__(self, store: FeatureStore) -> None:
        self.store = store.require(labels=True)
        self.labels, self.num_features = store.labels(), store.num_features
        index = torch.cat([shard.indices for shard in store.shards()])
        # At most the data set's samples, which a complete store holds or lists one by one: see `open_shard`.
        self.position = torch.full((int(index.max()) + 1,), -1, dtype=torch.int64)
        self.position[index] = torch.arange(len(index))
        if int((self.position >= 0).sum()) < len(index):
            raise ValueError(f"{store.path} holds a sample of its data set twice.")

    def shuffled(self, keep: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of the store, less the rows that are not kept."""
        kept = torch.zeros(len(self.labels), dtype=torch.bool)
        kept[keep] = True
        seed = int(torch.randint(2**31, (), generator=generator))
        for batch in self.store.batches(batch_size, shuffle=True, seed=seed):
            rows = self.position[batch.indices]
            chosen = kept[rows]
            if bool(chosen.any()):
                yield batch.features[chosen].float(), rows[chosen]

    def steps(self, keep: Tensor, batch_size: int) -> int:
        """Batches an epoch, those without a kept row included."""
        return -(-len(self.labels) // batch_size)

    def ordered(self, keep: Tensor | None = None) -> Iterator[Tensor]:
        """Batches in order, less the rows that are not kept."""
        kept = torch.ones(len(self.labels), dtype=torch.bool)
        if keep is not None:
            kept.zero_()[keep] = True
        start = 0
        for batch in self.store.batches(READ_ROWS):
            chosen = kept[start : start + len(batch.indices)]
            start += len(batch.indices)
            yield batch.features[chosen].float()


class EncoderRows:
    """Images through a frozen encoder at every epoch, augmented for training and plain otherwise.

    Args:
        encoder: `[n, C, H, W] -> [n, D]`, in eval mode; run without gradients, its buffers do not change.
        dataset: map-style, items `(uint8 image [C, H, W], label)`.
        labels: int64 `[N]`.
        augment: `(images, generator) -> images` for training.
        plain: images as the encoder expects them, for validation and test.
        device: where the encoder is.
        workers: loading processes.
    """

    def __init__(
        self,
        encoder: nn.Module,
        dataset: Dataset[Any],
        labels: Tensor,
        augment: Callable[[Tensor, torch.Generator], Tensor],
        plain: Callable[[Tensor], Tensor],
        device: str | torch.device = "cpu",
        workers: int = 0,
    ) -> None:
        self.encoder, self.dataset, self.labels = encoder.eval(), dataset, labels
        self.augment, self.plain, self.device, self.workers = augment, plain, require_device(device), workers
        self.num_features = self._encode(self.plain(dataset[0][0][None])).shape[1]

    def shuffled(self, keep: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Features of fresh views."""
        order = keep[torch.randperm(len(keep), generator=generator)]
        loaded = self._images(order, batch_size)
        for rows, images in zip(order.split(batch_size), loaded, strict=True):
            yield self._encode(self.augment(images, generator)), rows

    def steps(self, keep: Tensor, batch_size: int) -> int:
        """Batches an epoch."""
        return -(-len(keep) // batch_size)

    def ordered(self, keep: Tensor | None = None) -> Iterator[Tensor]:
        """Features of the plain images."""
        rows = torch.arange(len(self.labels)) if keep is None else keep
        for images in self._images(rows, 256):
            yield self._encode(self.plain(images))

    def _images(self, rows: Tensor, batch_size: int) -> Iterator[Tensor]:
        loader = DataLoader(
            Subset(self.dataset, rows.tolist()),
            batch_size,
            num_workers=loading_processes(self.workers),
            generator=torch.Generator().manual_seed(0),  # leaves the caller's random state alone
        )
        return (images for images, _ in loader)

    @torch.inference_mode()
    def _encode(self, images: Tensor) -> Tensor:
        return self.encoder(images.to(self.device)).float()


class KeptRows:
    """Some rows of others, numbered anew: those that can be used.

    Args:
        rows: all of them.
        kept: int64, the positions that are left, ascending.
        counts: how many there were, and why the others are left out.
    """

    def __init__(self, rows: Rows, kept: Tensor, counts: RowCounts) -> None:
        self.rows, self.kept, self.counts = rows, kept, counts
        self.labels, self.num_features = rows.labels[kept], rows.num_features
        self.place = torch.full((len(rows.labels),), -1, dtype=torch.int64)
        self.place[kept] = torch.arange(len(kept))

    def shuffled(self, keep: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of the others, as they come."""
        for features, rows in self.rows.shuffled(self.kept[keep], batch_size, generator):
            yield features, self.place[rows]

    def steps(self, keep: Tensor, batch_size: int) -> int:
        """Batches an epoch, at most."""
        return self.rows.steps(self.kept[keep], batch_size)

    def ordered(self, keep: Tensor | None = None) -> Iterator[Tensor]:
        """Blocks in order."""
        return self.rows.ordered(self.kept if keep is None else self.kept[keep])
