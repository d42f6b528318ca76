"""Splits into training, validation and test rows, stratified by cluster."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of the three parts, int64, ascending.

    Attributes:
        train, validation, test: disjoint; together all rows.
        too_small: clusters with too few rows to have one in every part; how they fell is left to chance.
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    too_small: int


def stratified_split(clusters: Tensor, *, test_share: float = 0.2, validation_share: float = 0.2, seed: int = 0) -> Split:
    """Every cluster's rows in the same shares, to within one row; the parts' sizes depend on N alone.

    The rows, shuffled and sorted by cluster, are dealt out at even steps, so that clusters of one row too go to the
    parts in these shares.

    Args:
        clusters: integers `[N]`.
        test_share: of all rows; the paper's is 0.2.
        validation_share: of the rows that are left; the paper's is 0.2.
        seed: of the shuffling.

    Raises:
        ValueError: a share is not in (0, 1), or there are too few rows for three parts.

    >>> split = stratified_split(torch.arange(100) % 4)
    >>> [len(part) for part in (split.train, split.validation, split.test)], (split.test % 4).bincount().tolist()
    ([64, 16, 20], [5, 5, 5, 5])
    """
    for name, share in (("test_share", test_share), ("validation_share", validation_share)):
        if not 0 < share < 1:
            raise ValueError(f"{name} must be in (0, 1), got {share}.")
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(clusters), generator=generator)
    order = shuffled[torch.argsort(clusters[shuffled], stable=True)]
    test = _dealt(len(order), test_share)
    rest = order[~test]
    validation = _dealt(len(rest), validation_share)
    parts = [rest[~validation], rest[validation], order[test]]
    if min(map(len, parts)) == 0:
        raise ValueError(f"a split needs rows in all three parts, got {[len(part) for part in parts]} of {len(order)}.")
    train, held_out, tested = (part.sort().values for part in parts)
    present = clusters.unique()
    complete = torch.stack([torch.isin(present, clusters[part]) for part in (train, held_out, tested)]).all(0)
    return Split(train, held_out, tested, int((~complete).sum()))


def _dealt(rows: int, share: float) -> Tensor:
    """bool `[rows]`: an even pattern of `share`."""
    steps = torch.floor(torch.arange(rows + 1, dtype=torch.float64) * share + 0.5)
    return steps.diff() > 0
