"""The newest rows of a training: features, second views, labels and what the online probe said, on their device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sslk.distributed import all_gather, world
from sslk.probes.usable import UNLABELLED

Columns = dict[str, Tensor]


class FeatureQueue:
    """A ring of the newest rows. Pushing copies into it and lets no device wait.

    Columns: `features` `[n, D]` in their own dtype; `second`, the second view of the same images, NaN where there was none,
    if there ever was one; `labels` int64 `[n]`, -1 where there was none; `hits` int8 `[n]`, whether the online probe was
    right, -1 where it was not asked; `batches` int64 `[n]`, which push they came with.

    Args:
        length: rows of this process.

    Examples:
        >>> queue = FeatureQueue(4)
        >>> queue.push(torch.arange(6.0)[:3, None]); queue.push(torch.arange(6.0)[3:, None], labels=torch.arange(3))
        >>> queue.columns()["features"].flatten().tolist(), queue.columns()["labels"].tolist()
        ([2.0, 3.0, 4.0, 5.0], [-1, 0, 1, 2])
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.filled = self.place = self.pushes = 0  # on the host: no device is asked
        self.ring: Columns = {}

    def push(
        self, features: Tensor, second: Tensor | None = None, labels: Tensor | None = None, hits: Tensor | None = None
    ) -> None:
        """Append rows; the oldest make room.

        Raises:
            ValueError: features of another D than before.
        """
        if self.ring and self.ring["features"].shape[1] != features.shape[1]:
            raise ValueError(f"input gave D={self.ring['features'].shape[1]} features before and D={features.shape[1]} now.")
        for name, rows in {"features": features, "second": second, "labels": labels, "hits": hits}.items():
            self._put(name, rows, features)
        self._put("batches", self.pushes, features)
        self.pushes += 1
        count = min(len(features), self.length)
        self.place = (self.place + count) % self.length
        self.filled = min(self.length, self.filled + count)

    def _put(self, name: str, rows: Tensor | int | None, features: Tensor) -> None:
        """Rows of a column, or the same number in all of them; None where they are missing."""
        if name not in self.ring:
            if name == "second" and rows is None:
                return
            like = features if name in ("features", "second") else None
            shape = (self.length,) if like is None else (self.length, features.shape[1])
            dtype = {"labels": torch.int64, "hits": torch.int8, "batches": torch.int64}.get(name, features.dtype)
            missing = UNLABELLED if like is None else torch.nan
            self.ring[name] = torch.full(shape, missing, dtype=dtype, device=features.device)
        elif self.ring[name].device != features.device:  # loaded from a file
            self.ring[name] = self.ring[name].to(features.device)
        ring, count = self.ring[name], min(len(features), self.length)
        ends = min(count, self.length - self.place)
        if not isinstance(rows, Tensor):
            value = rows if rows is not None else torch.nan if ring.is_floating_point() else UNLABELLED
            ring[self.place : self.place + ends].fill_(value)
            ring[: count - ends].fill_(value)
            return
        rows = rows.detach()[-count:] if count else rows.detach()[:0]
        ring[self.place : self.place + ends].copy_(rows[:ends], non_blocking=True)
        ring[: count - ends].copy_(rows[ends:], non_blocking=True)

    def columns(self) -> Columns:
        """The rows by column, oldest first."""
        if self.filled < self.length:
            return {name: ring[: self.filled] for name, ring in self.ring.items()}
        return {name: ring.roll(-self.place, 0) for name, ring in self.ring.items()}

    def newest(self) -> Tensor:
        """bool `[n]`: the newest eighth and the rest of its batches, so that no row has one of its own batch among the others."""
        batches = self.columns()["batches"]
        places, start = torch.arange(self.filled, device=batches.device), self.filled - self.filled // 8
        whole = batches >= batches[min(start, self.filled - 1)]
        return torch.where(whole.all(), places >= start, whole)

    def state_dict(self) -> dict[str, Any]:
        """The rows."""
        return {name: column.clone() for name, column in self.columns().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the rows of `state_dict` in place of those here; of more than there is room for, the newest."""
        self.filled, self.place, self.ring = 0, 0, {}
        if state:
            self.push(state["features"], *(state.get(name) for name in ("second", "labels", "hits")))
            self.ring["batches"][: self.filled] = state["batches"][-self.length :]
            self.pushes = int(state["batches"].max()) + 1


def gathered(columns: Columns) -> Columns:
    """The rows of all processes, by rank; each may hold another number, and the columns must be the same."""
    if world()[1] == 1 or not torch.distributed.is_initialized():
        return columns
    counts = all_gather(torch.tensor(len(columns["features"]), device=columns["features"].device)).tolist()
    result = {}
    for name, column in columns.items():
        # Sums of one value and zeros: exact. In float32, as not every backend adds half precision.
        values = column.float() if column.dtype in (torch.float16, torch.bfloat16) else column
        padded = F.pad(values, (0, 0) * (values.ndim - 1) + (0, max(counts) - len(values)))
        parts = all_gather(padded)
        result[name] = torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]).to(column.dtype)
    return result
