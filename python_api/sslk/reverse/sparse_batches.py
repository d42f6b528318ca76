"""Batches of concept rows in the two orders that softmax regression needs: by row and, transposed, by concept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sslk.reverse.concepts.table import ConceptTable

_EVALUATED = 2048  # rows whose logits are held at once when only the loss is wanted


class SparseBatch(NamedTuple):
    """Rows of a concept table, int32, and their clusters.

    Attributes:
        columns, offsets: CSR: the concepts of row r are `columns[offsets[r]:offsets[r + 1]]`.
        rows, column_offsets: the transpose: the rows that show concept m are `rows[column_offsets[m]:...]`.
        clusters: int64 `[n]`.
    """

    columns: Tensor
    offsets: Tensor
    rows: Tensor
    column_offsets: Tensor
    clusters: Tensor


class Batches:
    """The rows of one part of the data."""

    def __init__(self, concepts: ConceptTable, clusters: Tensor, device: torch.device) -> None:
        self.concepts = concepts.num_concepts
        self.offsets = concepts.offsets.to(device)
        self.columns = concepts.columns.to(device)
        self.clusters = clusters.long().to(device)

    def __len__(self) -> int:
        return len(self.clusters)

    def epoch(self, batch_size: int, generator: torch.Generator) -> Iterator[SparseBatch]:
        """All rows once in random order; the last batch is smaller. Transposed for the whole epoch in one pass."""
        order = torch.randperm(len(self), generator=generator).to(self.clusters.device)
        lengths = self.offsets.diff()[order]
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        columns = self.columns[
            torch.arange(len(self.columns), device=order.device)
            + torch.repeat_interleave(self.offsets[order] - offsets[:-1], lengths)
        ]
        rows, column_offsets = _transposed(columns, lengths, batch_size, self.concepts)
        clusters = self.clusters[order]
        starts = range(0, len(self), batch_size)
        borders = offsets[torch.tensor([*starts, len(self)], device=order.device)].tolist()
        offsets, column_offsets = offsets.int(), column_offsets.int()
        for number, start in enumerate(starts):
            first, last = borders[number], borders[number + 1]
            by_column = column_offsets[number * self.concepts : (number + 1) * self.concepts + 1]
            yield SparseBatch(
                columns[first:last],
                offsets[start : start + batch_size + 1] - first,
                rows[first:last],
                by_column - first,
                clusters[start : start + batch_size],
            )

    def in_order(self, rows: int = _EVALUATED) -> Iterator[SparseBatch]:
        """All rows in order, without their transpose."""
        empty = self.columns[:0]
        for start in range(0, len(self), rows):
            offsets = self.offsets[start : start + rows + 1]
            first, last = int(offsets[0]), int(offsets[-1])
            clusters = self.clusters[start : start + rows]
            yield SparseBatch(self.columns[first:last], (offsets - first).int(), empty, empty, clusters)

    def whole(self) -> SparseBatch:
        """All rows as one batch."""
        rows, column_offsets = _transposed(self.columns, self.offsets.diff(), len(self), self.concepts)
        return SparseBatch(self.columns, self.offsets.int(), rows, column_offsets.int(), self.clusters)


def _transposed(columns: Tensor, lengths: Tensor, batch_size: int, concepts: int) -> tuple[Tensor, Tensor]:
    """The transposes of all batches behind each other: rows within the batch, int32, and offsets `[batches * M + 1]`."""
    row = torch.repeat_interleave(torch.arange(len(lengths), device=columns.device), lengths)
    batches = -(-len(lengths) // batch_size)
    if columns.is_cuda or batches * concepts >= 2**31:
        key = row // batch_size * concepts + columns
        order = torch.argsort(key, stable=True)
        counts = torch.bincount(key, minlength=batches * concepts)
        return (row % batch_size)[order].int(), torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    import numpy as np
    from scipy.sparse import csr_array

    # One counting sort by (batch, concept).
    key = (row // batch_size * concepts + columns).int()
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    ones = np.ones(len(columns), dtype=np.int8)
    matrix = csr_array((ones, key.numpy(), offsets.numpy()), shape=(len(lengths), batches * concepts)).tocsc()
    rows = torch.from_numpy(matrix.indices.astype(np.int64)) % batch_size
    return rows.int(), torch.from_numpy(matrix.indptr.astype(np.int64))
