"""Scores that Q-Score is compared with; higher always means that the sample should be classified correctly."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from sslk.features.manifest import StoreError
from sslk.features.store import FeatureStore
from sslk.probes.source import store_finite
from sslk.progress import Progress
from sslk.quality.failure_neighbors import nearest_rows

OF_FEATURES = ("feature norm", "max feature")
LABEL_FREE = ("Q-Score", *OF_FEATURES, "k-NN distance", "neighbourhood consistency", "variance over views", "Mahalanobis")
LABEL_USING = ("confidence", "entropy", "energy", "Mahalanobis, class-wise")
READ_ROWS = 4096


def baseline_scores(norm: Tensor | None, largest: Tensor | None, logits: Tensor | None) -> dict[str, Tensor]:
    """The scores that features and logits hold themselves, by name.

    Args:
        norm, largest: L2 norm and largest feature of every sample, `[N]`.
        logits: of a classifier, `[N, C]`: confidence (largest softmax probability), negative entropy, and energy (log-sum-exp;
            Liu et al. 2020).
    """
    scores: dict[str, Tensor] = {}
    if norm is not None:
        scores[OF_FEATURES[0]] = norm
    if largest is not None:
        scores[OF_FEATURES[1]] = largest
    if logits is not None:
        log_probabilities = logits.double().log_softmax(dim=1)
        scores["confidence"] = log_probabilities.amax(dim=1).exp()
        scores["entropy"] = (log_probabilities.exp() * log_probabilities).sum(dim=1)
        scores["energy"] = logits.double().logsumexp(dim=1)
    return scores


def require_same_samples(first: FeatureStore, *others: FeatureStore) -> None:
    """Refuse stores that are not of the same samples, row by row.

    Raises:
        StoreError: one is not; named.
    """
    index = _indices(first.require())
    for other in others:
        if other.require().spec.data_hash != first.spec.data_hash or not torch.equal(_indices(other), index):
            raise StoreError(f"{other.path} does not hold the samples of {first.path}: extract both from one data set.")


def same_samples(first: FeatureStore, second: FeatureStore) -> bool:
    """Whether two stores of one model are of the same samples, row by row."""
    if first.spec.data_hash != second.spec.data_hash or not torch.equal(_indices(first), _indices(second)):
        return False
    # The hash is of names, sizes and labels, which two imported sets may share: equal images have equal features.
    rows = (next(iter(store.batches(64))).features.nan_to_num() for store in (first, second))
    return torch.equal(*rows)


def _indices(store: FeatureStore) -> Tensor:
    return torch.cat([shard.indices for shard in store.shards()])


def neighbour_distance(test: FeatureStore, train: FeatureStore, k: int = 50, *, progress: Progress | None = None) -> Tensor:
    """Negative distance to the k-th nearest training sample, of L2-normalised features, float32 `[N]`.

    Sun et al., "Out-of-distribution detection with deep nearest neighbors" (ICML 2022). Where both stores are of the same
    samples, none is its own neighbour. NaN for rows that are not finite; such training rows are left out. Cosines are float32,
    so distances below 3.5e-4, those of near copies, are not told apart.

    Args:
        test: whose samples are scored.
        train: where the neighbours are sought, a store of the same model.
        k: which neighbour; the paper takes 50 for CIFAR-10, 200 for CIFAR-100 and 1000 for ImageNet.
        progress: called with the rows searched and to search.

    Raises:
        ValueError: the training store has fewer than k finite rows.
    """
    alike = same_samples(test, train)
    similarity, _ = nearest_rows(test, train, k, usable=store_finite(train), exclude_itself=alike, progress=progress)
    return torch.where(store_finite(test), -(2 - 2 * similarity[:, -1]).clamp(min=0).sqrt(), torch.nan)


def neighbourhood_consistency(
    tests: Sequence[FeatureStore],
    references: Sequence[FeatureStore] | None = None,
    k: int = 100,
    *,
    progress: Progress | None = None,
) -> Tensor:
    """Share of the neighbours that several models agree on, `NC_k`, float64 `[N]` in [0, 1].

    For every test sample the k nearest reference samples (cosine) under each of M models; the mean over all pairs of models
    of the Jaccard index `|A ∩ B| / |A ∪ B|` of two such sets. Park et al., "Quantifying representation reliability in
    self-supervised learning models" (UAI 2024), who draw the reference samples from the pre-training data.

    Args:
        tests: the same samples under two models or more.
        references: the reference samples under the same models, in the same order; by default the other test samples.
        k: neighbours.
        progress: called with the models searched and to search.

    Returns:
        NaN for rows that are not finite under some model; such reference rows are left out under all.

    Raises:
        StoreError: the stores of a kind are not of the same samples.
        ValueError: there are fewer than two models or other numbers of stores, or k is larger than the reference.
    """
    banks = list(tests if references is None else references)
    if len(tests) < 2 or len(banks) != len(tests):
        raise ValueError(f"tests and references must be of the same two models or more, got {len(tests)} and {len(banks)}.")
    require_same_samples(*tests)
    require_same_samples(*banks)
    usable = torch.stack([store_finite(bank) for bank in banks]).all(0)
    finite = torch.stack([store_finite(test) for test in tests]).all(0)
    sets = []
    for number, (test, bank) in enumerate(zip(tests, banks, strict=True)):
        itself = references is None or same_samples(test, bank)
        sets.append(nearest_rows(test, bank, k, usable=usable, exclude_itself=itself)[1])
        if progress is not None:
            progress(number + 1, len(tests), "searching neighbours under every model")
    shared = torch.zeros(len(finite), dtype=torch.float64)
    pairs = list(itertools.combinations(sets, 2))
    for a, b in pairs:
        both = torch.cat([a, b], 1).sort(dim=1).values
        common = (both[:, 1:] == both[:, :-1]).sum(1).double()  # a set holds a row once
        shared += common / (2 * k - common) / len(pairs)
    return torch.where(finite, shared, torch.nan)


def view_variance(views: Tensor) -> Tensor:
    """Negative variance of L2-normalised representations over views, summed over the features, float64 `[N]`.

    `-1/q sum_v |h_v - mean_v h_v|^2`, which is `|mean_v h_v|^2 - 1`: how far the views of an image lie apart (test-time
    augmentation; the feature variance of Park et al. 2024 is that over models).

    Args:
        views: `[N, q, D]`, q representations of every sample.

    Raises:
        ValueError: another shape, or a single view.

    >>> view_variance(torch.tensor([[[1.0, 0.0], [2.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])).tolist()
    [-0.0, -0.5]
    """
    if views.ndim != 3 or views.shape[1] < 2:
        raise ValueError(f"views must be [N, q, D] of two views or more, got {list(views.shape)}.")
    h = torch.nn.functional.normalize(views.double(), dim=2)
    return -(h - h.mean(1, keepdim=True)).square().sum(2).mean(1)


def stored_view_variance(test: FeatureStore, views: Sequence[FeatureStore]) -> Tensor:
    """`view_variance` of a store and of stores of other views of its images, read in step, float64 `[N]`.

    Args:
        test: the images as they are evaluated, one of the views.
        views: the same images under the same model, augmented.

    Raises:
        StoreError: they are of other images, or of another model.
    """
    require_same_samples(test, *views)
    for store in views:
        if (store.spec.weights_hash, store.num_features) != (test.spec.weights_hash, test.num_features):
            raise StoreError(f"{store.path} is of another model than {test.path}: views are of one encoder.")
    parts = [
        view_variance(torch.stack([batch.features for batch in batches], 1))
        for batches in zip(*(store.batches(READ_ROWS) for store in (test, *views)), strict=True)
    ]
    return torch.cat(parts)


def norm_and_largest(test: FeatureStore) -> tuple[Tensor, Tensor]:
    """L2 norm and largest feature of every row, `[N]` each, in one pass."""
    norms, largest = [], []
    for batch in test.batches(READ_ROWS):
        norms.append(batch.features.double().norm(dim=1))
        largest.append(batch.features.amax(dim=1).float())
    return torch.cat(norms), torch.cat(largest)
