"""Rows of a concept table and their clusters as plain tensors on a device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sslk.concepts.table import ConceptTable

_EVALUATED = 2048  # rows whose logits are held at once when only the loss is wanted


@dataclass(frozen=True, eq=False)
class SparseRows:
    """Concepts of rows in CSR, and the rows' clusters.

    Attributes:
        columns: int32; the concepts of row i are `columns[offsets[i]:offsets[i + 1]]`.
        offsets: int64 `[n + 1]`.
        clusters: int64 `[n]`.
    """

    columns: Tensor
    offsets: Tensor
    clusters: Tensor

    @classmethod
    def of(cls, concepts: ConceptTable, clusters: Tensor, device: torch.device) -> SparseRows:
        """The rows of a table on a device."""
        return cls(concepts.columns.to(device), concepts.offsets.to(device), clusters.long().to(device))

    def __len__(self) -> int:
        return len(self.clusters)

    def split(self, rows: int = _EVALUATED) -> Iterator[SparseRows]:
        """All rows in order, some at a time."""
        for start in range(0, len(self), rows):
            offsets = self.offsets[start : start + rows + 1]
            first, last = int(offsets[0]), int(offsets[-1])
            yield SparseRows(self.columns[first:last], offsets - first, self.clusters[start : start + rows])

    def transposed(self, concepts: int) -> tuple[Tensor, Tensor]:
        """The rows that show concept m: `rows[offsets[m]:offsets[m + 1]]`, int32 and int64 `[M + 1]`."""
        row = torch.repeat_interleave(torch.arange(len(self), device=self.columns.device), self.offsets.diff())
        counts = torch.bincount(self.columns, minlength=concepts)
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return row[torch.argsort(self.columns, stable=True)].int(), offsets
