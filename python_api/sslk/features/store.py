"""The feature store: representations of a data set in a folder of memory-mapped, checked safetensors shards."""

from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sslk.features.identity import data_hash, dataset_name
from sslk.features.intact import check_contents, check_size, dtype_of, open_shard
from sslk.features.manifest import Manifest, ShardEntry, StoreError, StoreSpec
from sslk.features.reader import Batch, concatenate, in_order, iterate


class FeatureStore:
    """Reads a feature store: a folder of shards with a manifest, as `sslk.features.extraction` writes it.

    Shards are memory-mapped, so a store may be larger than memory. Opening checks that all files are there with the
    recorded sizes; the first read of a shard checks its identity and, unless the file is unchanged since it was last
    checked (size and time of modification, kept in a hidden file), its SHA-256.

    Args:
        path: the folder.

    Attributes:
        path: the folder.
        manifest: the manifest as it was on opening.

    Raises:
        StoreError: no store, or a shard is missing or truncated; named.

    >>> import tempfile, torch
    >>> from sslk.features.writer import StoreWriter
    >>> spec = StoreSpec("tiny", "0" * 64, "noise", "0" * 64, "none", samples=5, num_features=3, shard_rows=4)
    >>> folder = Path(tempfile.mkdtemp()) / "store"
    >>> with StoreWriter(folder, spec) as writer:
    ...     writer.write(0, torch.zeros(4, 3), torch.zeros(4, dtype=torch.long), torch.arange(4))
    ...     writer.write(1, torch.ones(1, 3), torch.ones(1, dtype=torch.long), torch.tensor([4]))
    >>> store = FeatureStore(folder)
    >>> len(store), store.complete, [len(batch.features) for batch in store.batches(2)]
    (5, True, [2, 2, 1])
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self.manifest = Manifest.read(self.path)
        self._numbers: Tensor | None = None  # of labels, where they are counted as another store counts them
        for entry in self.manifest.shards:
            check_size(self.path, entry)

    def with_classes_of(self, other: "FeatureStore") -> "FeatureStore":
        """The store with its labels numbered as in another, by class name; negative labels stay.

        Classes that the other lacks are numbered behind its own. A store without names, or with a name twice, is joined by
        number, as is one whose numbers agree: it comes back itself. The spec stays that of the files.

        Raises:
            StoreError: a label has no name; raised when its shard is read.
        """
        ours, theirs = self.spec.classes, other.spec.classes
        unique = len(set(ours)) == len(ours) and len(set(theirs)) == len(theirs)
        if not (ours and theirs and unique) or ours == theirs[: len(ours)]:
            return self
        names = (*theirs, *(name for name in ours if name not in theirs))
        place = {name: number for number, name in enumerate(names)}
        joined = FeatureStore(self.path)
        joined._numbers = torch.tensor([place[name] for name in ours])
        return joined

    @property
    def spec(self) -> StoreSpec:
        """What the store holds."""
        return self.manifest.spec

    @property
    def num_features(self) -> int:
        """D, the width of a row."""
        return self.spec.num_features

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the stored features."""
        return dtype_of(self.spec.dtype)

    @property
    def complete(self) -> bool:
        """Whether the extraction came to its end."""
        return self.manifest.complete

    @property
    def has_labels(self) -> bool:
        """Whether rows have labels."""
        return self.spec.labels

    def summary(self) -> str:
        """Where it is and what it holds, in one line."""
        return f"{self.path}: {len(self)} samples of {self.num_features} features" + ("" if self.complete else " so far")

    def __len__(self) -> int:
        return self.manifest.rows

    def require(self, *, labels: bool = False) -> "FeatureStore":
        """Check before long work that the store is complete and not empty, and has labels where they are needed.

        Returns:
            The store itself.

        Raises:
            StoreError: it is not.
        """
        if not self.complete:
            raise StoreError(
                f"{self.path} is not complete ({len(self)} of {self.spec.samples} samples): "
                "run the extraction again, it goes on where it stopped."
            )
        if not len(self):
            raise StoreError(f"{self.path} has no rows.")
        if labels and not self.has_labels:
            way = "import it with labels" if self.spec.imported else "extract from a labelled data set"
            raise StoreError(f"{self.path} has no labels, which are needed here: {way}.")
        return self

    def require_extracted(self) -> "FeatureStore":
        """Refuse an imported store where images are needed; the store itself otherwise.

        Raises:
            StoreError: it was imported.
        """
        if self.spec.imported:
            raise StoreError(
                f"{self.path} was imported and has no images, which are needed here: extract the features from the images "
                "with `sslk store extract`."
            )
        return self

    def require_images(self, dataset: Dataset[Any]) -> None:
        """Refuse a data set that the store was not extracted from.

        Raises:
            ValueError: another data set, or an imported store.
        """
        self.require_extracted()
        if data_hash(dataset) != self.spec.data_hash:
            raise ValueError(
                f"data must be what {self.path} was extracted from, {self.spec.dataset}, got {dataset_name(dataset)}."
            )

    def shard(self, entry: ShardEntry) -> Batch:
        """Map one shard, checked, into memory. Writing to the tensors never reaches the file.

        Raises:
            StoreError: the shard is missing, truncated, altered, of another store, or malformed; named.
        """
        check_contents(self.path, entry)
        batch = open_shard(self.path, entry, self.spec)
        if self._numbers is None or batch.labels is None or not len(batch.labels):
            return batch
        if int(batch.labels.max()) >= len(self._numbers):
            raise StoreError(
                f"{self.path / entry.file} holds the label {int(batch.labels.max())}, and the store names "
                f"{len(self._numbers)} classes: its labels cannot be joined with another store's by name."
            )
        labels = torch.where(batch.labels < 0, batch.labels, self._numbers[batch.labels.clamp(min=0)])
        return Batch(batch.features, labels, batch.indices)

    def shards(self) -> Iterator[Batch]:
        """The shards in order, mapped; the kernel reads the next one ahead.

        Raises:
            StoreError: a shard is damaged; named when it is reached.
        """
        return in_order(self, self.manifest.shards)

    def batches(
        self,
        batch_size: int = 1024,
        *,
        shuffle: bool = False,
        seed: int = 0,
        buffer_rows: int = 65536,
        rank: int = 0,
        world_size: int = 1,
    ) -> Iterator[Batch]:
        """Iterate over the rows in batches; all have `batch_size` rows but the last.

        In order, batches are views of the mapping and the next ones are read ahead by the kernel. Shuffled, shards
        come in random order and rows are drawn from a buffer in memory.

        Args:
            batch_size: rows per batch.
            shuffle: random order, the same for the same seed.
            seed: of the shuffling; pass the epoch.
            buffer_rows: rows held for shuffling.
            rank, world_size: read every `world_size`-th shard, beginning with `rank`; no row is read twice.

        Raises:
            ValueError: a size is not positive or the rank is not in [0, world_size).
            StoreError: a shard is damaged; named when it is reached.
        """
        return iterate(self, batch_size, shuffle=shuffle, seed=seed, buffer_rows=buffer_rows, rank=rank, world_size=world_size)

    def labels(self) -> Tensor:
        """All labels in the order of the rows, int64 `[len(self)]`.

        Raises:
            StoreError: the store has none.
        """
        self.require(labels=True)
        return torch.cat([shard.labels for shard in self.shards() if shard.labels is not None])

    def load(self) -> Batch:
        """The whole store in memory, as one batch.

        Raises:
            StoreError: a shard is damaged, or there are no rows.
        """
        self.require()
        return concatenate([*self.shards()])

    def __repr__(self) -> str:
        return (
            f"FeatureStore({str(self.path)!r}: {len(self)} x {self.num_features} {self.spec.dtype}, "
            f"{self.spec.model} on {self.spec.dataset})"
        )
