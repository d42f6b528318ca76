"""The rows of a store that codes are fitted on and those held out, read batch by batch, and how well codes explain them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sslk.codes.autoencoder import SparseAutoencoder
from sslk.features.store import FeatureStore
from sslk.probes.usable import finite_rows
from sslk.statistics.moments import batch_moments, merge_moments, unpack_moments

READ_ROWS = 4096


class SplitRows:
    """A store's finite rows, a share of them held out; which ones depends on the seed and on no order.

    Args:
        store: complete.
        share: of the rows that are held out, at least one row.
        seed: of the choice.
        device: where batches go.
    """

    def __init__(self, store: FeatureStore, share: float, seed: int, device: torch.device) -> None:
        self.store, self.device = store, device
        count = store.spec.samples
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        self.held = torch.zeros(count, dtype=torch.bool)
        self.held[order[: max(1, round(share * count))]] = True

    def batches(self, held: bool, size: int = READ_ROWS, shuffled_by: int | None = None) -> Iterator[Tensor]:
        """Features `[n, D]`, float32: of up to `size` rows that are read, those that are held out, or the others.

        Shards come in random order, and rows out of a buffer of 65,536, where `shuffled_by` gives a seed.
        """
        for batch in self.store.batches(size, shuffle=shuffled_by is not None, seed=shuffled_by or 0):
            keep = (self.held[batch.indices] == held) & finite_rows(batch.features)
            yield batch.features[keep].float().to(self.device)

    def moments(self) -> tuple[int, Tensor, Tensor]:
        """Number, mean and population variance, float64 `[D]`, of the rows to fit on."""
        total = torch.zeros(1 + 2 * self.store.num_features, dtype=torch.float64, device=self.device)
        for batch in self.batches(False):
            total = merge_moments(torch.stack([total, batch_moments(batch)]))
        count, mean, deviation = unpack_moments(total)
        return int(count), mean, deviation / count.clamp(min=1)


@dataclass(frozen=True, eq=False)
class Explained:
    """How well codes explain rows.

    Attributes:
        rows: how many.
        variance: share of their variance about their own mean that the reconstruction explains; NaN where they have none.
        active: latents above 0 in a row, in the mean.
        counts: int64 `[M]`, in how many rows a latent is above 0.
    """

    rows: int
    variance: float
    active: float
    counts: Tensor


@torch.no_grad()
def explained(auto: SparseAutoencoder, rows: SplitRows, held: bool) -> Explained:
    """`1 - sum ||x' - x'^||^2 / sum ||x' - mean(x')||^2` of rows, summed in float64, and which latents are active."""
    missed = torch.zeros((), dtype=torch.float64, device=rows.device)
    total = torch.zeros(1 + 2 * auto.num_features, dtype=torch.float64, device=rows.device)
    counts = torch.zeros(auto.latents, dtype=torch.int64, device=rows.device)
    for batch in rows.batches(held):
        x = auto.normalized(batch)
        active = auto.active(auto.before_topk(x))
        missed += (x - auto.decoded(active) - auto.pre_bias).double().square().sum()
        total = merge_moments(torch.stack([total, batch_moments(x)]))
        counts += torch.bincount(active.places[active.values > 0], minlength=auto.latents)
    count = int(total[0])
    spread = float(unpack_moments(total)[2].sum())
    variance = 1 - float(missed) / spread if spread else float("nan")
    return Explained(count, variance, int(counts.sum()) / max(count, 1), counts.cpu())
