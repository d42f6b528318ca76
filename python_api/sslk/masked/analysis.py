"""What is computed from the stores of a study, model by model: features of one variant at a time, or of a sample."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sslk.features import FeatureStore, StoreError
from sslk.masked.evaluation import FoldAccuracy, fold_accuracy
from sslk.masked.extract import variant_features, variant_width
from sslk.similarity.streamed import Stream


def streams_of(stores: dict[str, FeatureStore]) -> dict[str, Stream]:
    """What `compare_variants` reads.

    Raises:
        StoreError: the stores hold other variants or images, or rows that are not finite.
    """
    first = next(iter(stores.values()))
    for model, store in stores.items():
        if (rows := sum(entry.nonfinite_rows for entry in store.manifest.shards)) > 0:
            raise StoreError(
                f"{store.path} holds {rows} rows that are not finite, which have no similarity: look at the weights of "
                f"{model}, or extract without mixed precision."
            )
        if store.spec.variants != first.spec.variants or not torch.equal(_index(store), _index(first)):
            raise StoreError(f"{store.path} holds other images or variants than {first.path}: extract both alike.")
    return {model: partial(variant_features, store) for model, store in stores.items()}


def _index(store: FeatureStore) -> Tensor:
    return torch.cat([shard.indices for shard in store.shards()])


def one_variant(store: FeatureStore, variant: str) -> Tensor:
    """All representations `[N, D]` of one variant, in memory."""
    place = store.spec.variants.index(variant)
    return torch.cat([parts[place].float() for parts in variant_features(store)])


def sampled_variants(store: FeatureStore, images: int, seed: int) -> list[Tensor]:
    """The V representations `[n, D]` of a random sample of the images, the same for every store of equal length."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(store))[:images])
    width, start, parts = variant_width(store), 0, []
    for rows in _rows(store):
        here = chosen[(chosen >= start) & (chosen < start + len(rows))] - start
        parts.append(rows[torch.from_numpy(here)].float())
        start += len(rows)
    return [part.contiguous() for part in torch.cat(parts).split(width, dim=1)]


def _rows(store: FeatureStore) -> Iterator[Tensor]:
    for batch in store.batches(1024):
        yield batch.features


def accuracies(store: FeatureStore, folds: int, seed: int) -> dict[str, FoldAccuracy]:
    """Cross-validated balanced accuracy of every variant, over the labelled images."""
    labels = store.labels()
    known = labels >= 0
    return {
        variant: fold_accuracy(one_variant(store, variant)[known], labels[known], folds, seed=seed)
        for variant in store.spec.variants
    }


def umap_of(representations: list[Tensor], seed: int) -> np.ndarray:
    """UMAP of the pooled representations in two dimensions, `[V * n, 2]`; cosine distance, umap-learn's defaults.

    Raises:
        ImportError: umap-learn is not installed.
    """
    from sslk.models.architectures import optional_import

    umap = optional_import("umap", "the scatter of variants", "umap-learn")
    pooled = torch.cat(representations).numpy()
    return umap.UMAP(n_neighbors=min(15, len(pooled) - 1), metric="cosine", random_state=seed, n_jobs=1).fit_transform(pooled)
