"""What the atlas says about features, in one pass over a feature store: who activates them, most and together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.cluster import AgglomerativeClustering
from torch import Tensor
from torch.nn import functional as F

import ssl_kernels
from sslk.data.dataset import class_count
from sslk.features import FeatureStore
from sslk.progress import Progress
from sslk.quality.discriminative import DiscriminativeFeatures


@dataclass(frozen=True, eq=False)
class AtlasStatistics:
    """Statistics of F chosen features over the N rows of a store.

    Attributes:
        features: int64 `[F]`, the features.
        active: int64 `[F]`, samples in whose `L_i` each is.
        by_class: int64 `[F, C]`, those samples by class; C = 0 without labels.
        class_sizes: int64 `[C]`.
        top_rows: int64 `[F, K]`, indices into the data set of the samples with the largest values, descending.
        top_values: float32 `[F, K]`, values of the L2-normalised feature; its distance to the row's mean if two-sided.
        top_labels: int64 `[F, K]`, -1 without labels.
        together: int64 `[F, F]`, samples that activate both features.
        rows: N.
    """

    features: Tensor
    active: Tensor
    by_class: Tensor
    class_sizes: Tensor
    top_rows: Tensor
    top_values: Tensor
    top_labels: Tensor
    together: Tensor
    rows: int


def collect(
    store: FeatureStore, found: DiscriminativeFeatures, features: Tensor, *, top: int = 8, progress: Progress | None = None
) -> AtlasStatistics:
    """Read the store once.

    Args:
        store: complete; its labels are used where it has them.
        found: gives eps and sidedness.
        features: int64 `[F]`.
        top: K, how many of the most activating samples to keep.
        progress: called with the rows read and the rows to read.
    """
    store.require()
    classes = max(len(store.spec.classes), class_count(store.labels(), str(store.path))) if store.has_labels else 0
    count = len(features)
    active = torch.zeros(count, dtype=torch.int64)
    by_class, sizes = torch.zeros(classes, count, dtype=torch.int64), torch.zeros(classes, dtype=torch.int64)
    together = torch.zeros(count, count, dtype=torch.float64)  # exact: counts stay below 2^53
    values, rows = torch.zeros(0, count), torch.zeros(0, count, dtype=torch.int64)
    labels = torch.zeros(0, count, dtype=torch.int64)
    done = 0
    for batch in store.batches(4096):
        on = ssl_kernels.activating_mask(batch.features, found.eps, found.two_sided)[:, features]
        active += on.sum(0)
        together += (on.float().T @ on.float()).double()
        given = torch.full((len(on),), -1) if batch.labels is None else batch.labels
        if batch.labels is not None:
            known = given >= 0
            by_class.index_add_(0, given[known], on[known].long())
            sizes += torch.bincount(given[known], minlength=classes)
        unit = F.normalize(batch.features.float())
        shown = (unit - unit.mean(1, keepdim=True)).abs() if found.two_sided else unit
        shown = shown[:, features]
        shown[~batch.features.isfinite().all(1)] = -torch.inf  # a row that is not finite is nobody's top image
        wide = (len(on), count)
        merged = (
            torch.cat([values, shown]),
            torch.cat([rows, batch.indices[:, None].expand(wide)]),
            torch.cat([labels, given[:, None].expand(wide)]),
        )
        order = merged[0].argsort(dim=0, descending=True, stable=True)[:top]  # stable: ties go to the earlier sample
        values, rows, labels = (part.gather(0, order) for part in merged)
        done += len(on)
        if progress is not None:
            progress(done, len(store), "reading features")
    return AtlasStatistics(
        features,
        active,
        by_class.T.contiguous(),
        sizes,
        rows.T.contiguous(),
        values.T.contiguous(),
        labels.T.contiguous(),
        together.long(),
        len(store),
    )


def coactivation_groups(together: Tensor, rows: int, min_correlation: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Groups of features that fire together (figure A.4): average linkage on the correlation of their activations.

    Args:
        together: int64 `[F, F]`, samples that activate both; the diagonal holds those that activate each.
        rows: N.
        min_correlation: groups are merged while the mean correlation between them is at least this.

    Returns:
        group: int64 `[F]`, from 0, the largest group first; features that are alone come last, with numbers of their own.
        correlation: `[F, F]`, the phi coefficient of the two activations; 0 for a feature that never or always fires.

    >>> together = torch.tensor([[50, 50, 0], [50, 50, 0], [0, 0, 50]])
    >>> coactivation_groups(together, 100)[0].tolist()
    [0, 0, 1]
    """
    joint = together.double().numpy() / rows
    rate = np.diag(joint)
    deviation = np.sqrt(rate * (1 - rate))
    scale = np.outer(deviation, deviation)
    phi = np.divide(joint - np.outer(rate, rate), scale, out=np.zeros_like(joint), where=scale > 0)
    np.fill_diagonal(phi, 1.0)
    if len(phi) < 2:
        return np.zeros(len(phi), dtype=np.int64), phi
    clustering = AgglomerativeClustering(
        n_clusters=None, distance_threshold=1 - min_correlation, metric="precomputed", linkage="average"
    )
    found = clustering.fit_predict(np.clip(1 - phi, 0, 2))
    sizes = np.bincount(found)
    first = np.array([np.flatnonzero(found == group)[0] for group in range(len(sizes))])
    rank = np.empty(len(sizes), dtype=np.int64)
    rank[np.lexsort((first, -sizes))] = np.arange(len(sizes))
    return rank[found], phi
