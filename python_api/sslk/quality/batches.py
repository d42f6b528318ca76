"""Features as Q-Score reads them: a matrix, or a feature store of any size, one batch in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike

import torch
from torch import Tensor

from sslk.features.store import FeatureStore
from sslk.quality.discriminative import check_features

BATCH_BYTES = 16 << 20  # on the CPU a batch is a view of the mapping; on an accelerator this much is copied at a time

Features = Tensor | FeatureStore | str | PathLike[str]
"""A matrix `[N, D]` (an array too), a complete feature store, or its folder."""


def opened(features: Features) -> Tensor | FeatureStore:
    """A checked matrix, or a complete store.

    Raises:
        StoreError: the store is incomplete or damaged.
        TypeError, ValueError: the matrix is none.
    """
    if isinstance(features, FeatureStore | str | PathLike):
        return (features if isinstance(features, FeatureStore) else FeatureStore(features)).require()
    return check_features(features)


def feature_batches(store: FeatureStore, device: torch.device) -> Iterator[Tensor]:
    """Its features in order; no batch spans two shards, joining them would be a copy."""
    rows = max(1, BATCH_BYTES // (store.num_features * store.dtype.itemsize))
    for shard in store.shards():
        for features in shard.features.split(rows):
            yield features.to(device)
