"""Mahalanobis distance to the training samples, of one Gaussian or of one for each class, from streamed sums."""

from __future__ import annotations

import torch
from torch import Tensor

from sslk.features.store import FeatureStore
from sslk.probes.usable import finite_rows

READ_ROWS = 4096


class Gaussians:
    """Means and covariances of a store's features, in one pass: of all rows, and within the classes of the labelled ones.

    Sums are float64 and taken about the mean of the first batch, so that a large common offset cancels. Directions without
    variance (dead features, fewer rows than features) have no say: the covariance is inverted on the others. Rows that are
    not finite are left out.

    Args:
        store: the training samples, of any size.

    Raises:
        StoreError: it is not complete or empty.
        ValueError: no row is finite.
    """

    def __init__(self, store: FeatureStore) -> None:
        width = store.require().num_features
        labels = store.labels() if store.has_labels else torch.full((len(store),), -1)
        self.classes = labels[labels >= 0].unique()
        self._shift: Tensor | None = None
        sums = torch.zeros(len(self.classes) + 1, width, dtype=torch.float64)  # last: unlabelled
        counts = torch.zeros(len(self.classes) + 1, dtype=torch.float64)
        products = torch.zeros(2, width, width, dtype=torch.float64)  # labelled, unlabelled
        start = 0
        for batch in store.batches(READ_ROWS):
            finite = finite_rows(batch.features)
            own = labels[start : start + len(finite)][finite]
            start += len(finite)
            x = batch.features[finite].double()
            if not len(x):
                continue
            if self._shift is None:
                self._shift = x.mean(0)
            x -= self._shift
            place = torch.where(own >= 0, torch.searchsorted(self.classes, own), len(self.classes))
            sums.index_add_(0, place, x)
            counts += torch.bincount(place, minlength=len(counts))
            for part, rows in enumerate((own >= 0, own < 0)):
                if bool(rows.any()):
                    products[part].addmm_(x[rows].T, x[rows])
        if self._shift is None:
            raise ValueError(f"{store.path} must hold a row that is finite, got NaN or infinity in all {len(store)}.")
        total = counts.sum()
        self._mean = sums.sum(0) / total
        self._whitening = _inverse_root(products.sum(0) / total - torch.outer(self._mean, self._mean))
        self._within: tuple[Tensor, Tensor] | None = None
        kept = counts[:-1] > 0
        if int(kept.sum()) >= 2:
            labelled, means = counts[:-1][kept], sums[:-1][kept] / counts[:-1][kept, None]
            between = (means * labelled[:, None]).T @ means
            root = _inverse_root((products[0] - between) / labelled.sum())
            self._within = root, means @ root

    def distances(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Squared distance to the mean of all, and to the nearest class mean where there are classes, float64 `[n]` each."""
        assert self._shift is not None
        x = features.double() - self._shift
        whole = ((x - self._mean) @ self._whitening).square().sum(1)
        if self._within is None:
            return whole, None
        root, means = self._within
        return whole, torch.cdist(x @ root, means, compute_mode="donot_use_mm_for_euclid_dist").square().amin(1)


def _inverse_root(covariance: Tensor) -> Tensor:
    """`R` `[D, r]` with `R R' = ` the pseudo-inverse of a covariance, so that `|x R|^2 = x' C^+ x`."""
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    kept = values > values[-1] * len(values) * torch.finfo(torch.float64).eps
    return vectors[:, kept] / values[kept].sqrt()


def mahalanobis_scores(test: FeatureStore, gaussians: Gaussians) -> dict[str, Tensor]:
    """Negative squared Mahalanobis distances of a store's samples, float64 `[N]` by name; NaN for rows that are not finite.

    `Mahalanobis` is label-free: the distance to the mean of all training samples under their covariance. `Mahalanobis,
    class-wise` is that to the nearest class mean under the covariance within classes (Lee et al., "A simple unified framework
    for detecting out-of-distribution samples and adversarial attacks", 2018) and uses the training labels.
    """
    whole, nearest = [], []
    for batch in test.batches(READ_ROWS):
        distances = gaussians.distances(batch.features)
        whole.append(-distances[0])
        if distances[1] is not None:
            nearest.append(-distances[1])
    found = {"Mahalanobis": torch.cat(whole)}
    if nearest:
        found["Mahalanobis, class-wise"] = torch.cat(nearest)
    return {name: torch.where(values.isfinite(), values, torch.nan) for name, values in found.items()}
