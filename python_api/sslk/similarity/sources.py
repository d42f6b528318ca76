"""What is compared: stores or arrays of the same samples, read in step, with the rows that are finite in all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslk.features.store import FeatureStore
from sslk.probes.usable import finite_rows, matrix
from sslk.progress import Progress

READ_ROWS = 4096


class Sources:
    """Representations of the same samples by name.

    Args:
        representations: stores, or tensors or arrays `[N, D]`; widths may differ.

    Raises:
        ValueError: fewer than two, an array without features, or other samples in one than in another.
        StoreError: a store is incomplete or empty.
    """

    def __init__(self, representations: Mapping[str, Any]) -> None:
        if len(representations) < 2:
            raise ValueError(f"representations must name at least two, got {', '.join(representations) or 'none'}.")
        self.parts: dict[str, FeatureStore | Tensor] = {
            name: part.require() if isinstance(part, FeatureStore) else matrix(part, name)
            for name, part in representations.items()
        }
        self.names = tuple(self.parts)
        self.widths = [part.num_features if isinstance(part, FeatureStore) else part.shape[1] for part in self.parts.values()]
        (first, one), *others = self.parts.items()
        for name, part in others:
            if len(part) != len(one):
                raise ValueError(
                    f"representations must be of the same samples, {name!r} has {len(part)} rows and {first!r} {len(one)}."
                )
            _require_same(first, one, name, part)
        self.given = len(one)
        self.samples = 0  # known after the first pass

    def batches(
        self, places: Sequence[int] | None = None, progress: Progress | None = None, stage: str = ""
    ) -> Iterator[list[Tensor]]:
        """The representations at these places, all by default, batch by batch: rows that are finite in all of them, also those
        not asked for.
        """
        asked = range(len(self.parts)) if places is None else places
        done = kept = 0
        for parts in zip(*(_read(part) for part in self.parts.values()), strict=True):
            finite = torch.stack([finite_rows(part) for part in parts]).all(0)
            done += len(finite)
            kept += int(finite.sum())
            if progress is not None:
                progress(done, self.given, stage)
            if bool(finite.any()):
                yield [parts[place] if bool(finite.all()) else parts[place][finite] for place in asked]
        self.samples = kept

    def count(self) -> int:
        """How many rows are finite in all representations; a pass over them where none was made before."""
        if not self.samples:
            for _ in self.batches([]):
                pass
        return self.samples

    def sampled(self, rows: int, seed: int) -> list[Tensor]:
        """The same rows of every representation, drawn without replacement, float32 or float64 as they are kept."""
        chosen = np.sort(np.random.default_rng(seed).permutation(self.count())[:rows])
        start, found = 0, []
        for parts in self.batches():
            here = torch.from_numpy(chosen[(chosen >= start) & (chosen < start + len(parts[0]))] - start)
            found.append([part[here] for part in parts])
            start += len(parts[0])
        return [
            torch.cat(part).to(torch.float64 if part[0].dtype == torch.float64 else torch.float32)
            for part in zip(*found, strict=True)
        ]


def two(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Two arrays of the same samples, as they came, in floating point.

    Raises:
        ValueError: no matrices, other numbers of rows, or a row that is not finite.
    """
    a, b = (part if part.is_floating_point() else part.double() for part in (matrix(x, "x"), matrix(y, "y")))
    if len(a) != len(b):
        raise ValueError(f"x and y must hold the same samples, got {len(a)} and {len(b)} rows.")
    bad = int((~(finite_rows(a) & finite_rows(b))).sum())
    if bad:
        raise ValueError(f"x and y must be finite, got {bad} of {len(a)} rows that are not: leave them out, or use `compare`.")
    return a, b


def varies(x: Tensor) -> bool:
    """Whether rows differ by more than the rounding of a constant."""
    rows = x.double()
    return bool((rows - rows.mean(0)).square().sum() > 1e-24 * rows.square().sum())


def _read(part: FeatureStore | Tensor) -> Iterator[Tensor]:
    blocks = (batch.features for batch in part.batches(READ_ROWS)) if isinstance(part, FeatureStore) else part.split(READ_ROWS)
    for block in blocks:
        yield block if block.is_floating_point() else block.double()


def _require_same(first: str, one: FeatureStore | Tensor, name: str, part: FeatureStore | Tensor) -> None:
    """Refuse stores of other images, or of the same ones with others left out."""
    if not (isinstance(one, FeatureStore) and isinstance(part, FeatureStore)):
        return
    if one.spec.data_hash != part.spec.data_hash:
        raise ValueError(
            f"representations must be of the same samples, {name!r} is of {part.spec.dataset} and {first!r} of "
            f"{one.spec.dataset}, or of other labels of it."
        )
    if one.manifest.skipped or part.manifest.skipped:
        indices = [torch.cat([shard.indices for shard in store.shards()]) for store in (one, part)]
        if not torch.equal(*indices):
            raise ValueError(f"representations must be of the same samples, {name!r} and {first!r} left out others.")
