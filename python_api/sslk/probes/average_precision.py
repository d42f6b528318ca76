"""Average precision of many labels, on the samples and on resamples of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK_BYTES = 128 << 20


def average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    """Average precision `sum_n (R_n - R_(n-1)) P_n` over the distinct scores, of every label.

    Args:
        scores: `[N, C]`, higher should mean 1; equal ones count together.
        labels: int8 `[N, C]`: 1, 0, or -1 for unknown, which is left out.

    Returns:
        float64 `[C]`; NaN for a label without a 1.

    >>> scores = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    >>> average_precision(scores, torch.tensor([[1, 0], [0, 0], [1, -1]])).tolist()
    [0.8333333333333333, nan]
    """
    ones = torch.ones(1, len(scores), dtype=torch.float64)  # float32 counts to 2^24
    return torch.cat([_of_label(scores[:, c], labels[:, c], ones) for c in range(labels.shape[1])])


def micro_average_precision(scores: Tensor, labels: Tensor) -> float:
    """Average precision of all known entries of all labels, taken together."""
    return float(average_precision(scores.reshape(-1, 1), labels.reshape(-1, 1))[0])


def resampled(scores: Tensor, labels: Tensor, resamples: int, seed: int) -> Iterator[tuple[int, Tensor]]:
    """Average precision on resamples of the samples, with replacement (Efron 1979); every label sees the same ones.

    Yields:
        A label and its values, float64 `[B]`, B in all once every label has come in every block; NaN where a resample has no 1.
    """
    count, generator = len(scores), torch.Generator().manual_seed(seed)
    block = max(1, BLOCK_BYTES // (16 * count))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = torch.randint(count, (size, count), generator=generator)
        times = torch.zeros(size, count).scatter_add_(1, drawn, torch.ones(size, count))
        for c in range(labels.shape[1]):
            yield c, _of_label(scores[:, c], labels[:, c], times)


def _of_label(scores: Tensor, labels: Tensor, times: Tensor) -> Tensor:
    """float64 `[B]`, where sample n occurs `times[b, n]` times."""
    known = (labels >= 0).nonzero().squeeze(1)
    values = scores[known].double()
    order = values.argsort(descending=True, stable=True)
    ordered = known[order]
    positive = (labels[ordered] == 1).nonzero().squeeze(1)  # places of the ones, best first
    if not len(positive):
        return torch.full((len(times),), torch.nan, dtype=torch.float64)
    # A score shared by several samples is one threshold: precision counts at the last of them.
    _, sizes = torch.unique_consecutive(values[order], return_counts=True)
    last = torch.repeat_interleave(sizes.cumsum(0) - 1, sizes)[positive]
    ones = times[:, ordered[positive]]
    hits = ones.cumsum(1)[:, torch.searchsorted(positive, last, right=True) - 1].double()
    total = times[:, ordered].cumsum(1)[:, last].double()
    return (ones * (hits / total.clamp(min=1))).sum(1) / ones.sum(1, dtype=torch.float64)
