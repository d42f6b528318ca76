"""The concept table: a sparse binary matrix, one row per image, one named column per concept, columns in groups."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from sslk.files.tensors import read_tensors, require_tensors
from sslk.files.text import from_fields, parse_json
from sslk.results.atomic import write_atomically

_FORMAT = "sslk-concepts-1"


class ConceptError(ValueError):
    """A concept table is damaged, or does not fit what it is used with; the message says how."""


@dataclass(frozen=True, eq=False)
class ConceptTable:
    """Binary concepts `y(x) in {0, 1}^M` of N images, stored as the positions of the ones (CSR).

    Row r holds concepts `columns[offsets[r]:offsets[r + 1]]`, ascending, of the image whose number in the data set is
    `samples[r]`.

    Attributes:
        offsets: int64 `[N + 1]`.
        columns: int32 `[bits]`.
        names: M column names, unique within their group.
        groups: the group of each column, as long as `names`.
        samples: int64 `[N]`, unique; what a feature store calls `indices`.
        about: where the table comes from, plain data (data set, settings of the experts, images left out).

    Raises:
        ConceptError: the parts contradict each other.

    >>> table = ConceptTable.from_rows([[0], [1, 2], []], ["red", "blue", "round"], ["colour", "colour", "shape"])
    >>> table
    ConceptTable(3 samples x 3 concepts, 1.0 ones a row; colour 2, shape 1)
    >>> table.select(["shape"]).dense().tolist(), table.select(["shape"]).names
    ([[False], [True], [False]], ['round'])
    """

    offsets: Tensor
    columns: Tensor
    names: list[str]
    groups: list[str]
    samples: Tensor
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, m = len(self.samples), len(self.names)
        if len(self.groups) != m:
            raise ConceptError(f"groups must name the group of each of the {m} columns, got {len(self.groups)}.")
        if len(set(zip(self.groups, self.names, strict=True))) < m:
            seen: set[tuple[str, str]] = set()
            twice = next(p for p in zip(self.groups, self.names, strict=True) if p in seen or seen.add(p))  # type: ignore[func-returns-value]
            raise ConceptError(f"names must be unique within their group, but {twice[0]} has {twice[1]!r} twice.")
        if self.offsets.shape != (n + 1,) or int(self.offsets[0]) != 0 or int(self.offsets[-1]) != len(self.columns):
            raise ConceptError(f"offsets must be [N + 1] = [{n + 1}] from 0 to {len(self.columns)} ones.")
        if bool((self.offsets.diff() < 0).any()):
            raise ConceptError("offsets must not fall from row to row.")
        if len(self.columns) and not 0 <= int(self.columns.min()) <= int(self.columns.max()) < m:
            raise ConceptError(f"columns must lie in [0, {m}), got up to {int(self.columns.max())}.")
        if len(self.samples.unique()) < n:
            raise ConceptError("samples must be unique: a data set's image has one row.")

    @classmethod
    def from_rows(
        cls,
        rows: Iterable[Iterable[int]],
        names: Sequence[str],
        groups: Sequence[str] | str,
        samples: Tensor | None = None,
        about: dict[str, Any] | None = None,
    ) -> ConceptTable:
        """A table from the concept numbers of each image; repeated numbers count once.

        Args:
            rows: per image, the columns that are 1.
            names: of the columns.
            groups: of the columns, or one for all.
            samples: number of each image in its data set; 0, 1, ... by default.
            about: where this comes from.
        """
        sets = [sorted(set(map(int, row))) for row in rows]
        counts = torch.tensor([0, *map(len, sets)], dtype=torch.int64)
        columns = torch.tensor([column for row in sets for column in row], dtype=torch.int32)
        groups = [groups] * len(names) if isinstance(groups, str) else list(groups)
        numbers = torch.arange(len(sets)) if samples is None else samples.to(torch.int64)
        return cls(counts.cumsum(0), columns, list(names), groups, numbers, about or {})

    @classmethod
    def from_dense(
        cls, bits: Tensor, names: Sequence[str], groups: Sequence[str] | str, samples: Tensor | None = None
    ) -> ConceptTable:
        """A table from a matrix `[N, M]`: whatever is not zero is a concept."""
        if bits.ndim != 2 or bits.shape[1] != len(names):
            raise ConceptError(f"bits must be [N, {len(names)}], a column per name, got {list(bits.shape)}.")
        rows, columns = (bits != 0).nonzero(as_tuple=True)
        offsets = _offsets(torch.bincount(rows, minlength=len(bits)))
        groups = [groups] * len(names) if isinstance(groups, str) else list(groups)
        numbers = torch.arange(len(bits)) if samples is None else samples.to(torch.int64)
        return cls(offsets, columns.int(), list(names), groups, numbers)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def num_concepts(self) -> int:
        """M."""
        return len(self.names)

    @property
    def group_sizes(self) -> dict[str, int]:
        """Number of columns of every group, in the order of the columns."""
        return {group: self.groups.count(group) for group in dict.fromkeys(self.groups)}

    @property
    def counts(self) -> Tensor:
        """How many images show each concept, int64 `[M]`."""
        return torch.bincount(self.columns.long(), minlength=self.num_concepts)

    def described(self) -> dict[str, Any]:
        """Groups, density, the commonest concepts, columns that say nothing, images left out."""
        counts = self.counts
        commonest = counts.argsort(descending=True)[:5].tolist()
        return {
            "samples": len(self),
            "concepts": self.num_concepts,
            "groups": self.group_sizes,
            "ones_per_row": len(self.columns) / max(len(self), 1),
            "rows_without_any": int((self.offsets.diff() == 0).sum()),
            "commonest": ", ".join(f"{self.groups[c]}/{self.names[c]} {int(counts[c])}" for c in commonest),
            "constant_columns": len(self.constant()),
            "left_out": len(self.about.get("left_out", [])),
        }

    def dense(self) -> Tensor:
        """The matrix, bool `[N, M]`."""
        bits = torch.zeros(len(self), self.num_concepts, dtype=torch.bool)
        rows = torch.repeat_interleave(torch.arange(len(self)), self.offsets.diff())
        bits[rows, self.columns.long()] = True
        return bits

    def constant(self) -> list[str]:
        """Names of the columns that say nothing: shown by no image or by all. They do no harm."""
        counts = self.counts
        chosen = ((counts == 0) | (counts == len(self))).nonzero().flatten().tolist()
        return [f"{self.groups[column]}/{self.names[column]}" for column in chosen]

    def select(self, groups: Sequence[str]) -> ConceptTable:
        """The columns of the given groups, in the table's order.

        Raises:
            ConceptError: an unknown group; the known ones are listed.
        """
        unknown = [group for group in groups if group not in self.groups]
        if unknown or not groups:
            raise ConceptError(f"groups must be some of {', '.join(self.group_sizes)}, got {', '.join(unknown) or 'none'}.")
        return self.take_columns(torch.tensor([group in groups for group in self.groups]))

    def take_columns(self, keep: Tensor) -> ConceptTable:
        """The columns where `keep`, bool `[M]`, is true."""
        number = torch.where(keep, keep.cumsum(0) - 1, -1).int()
        new = number[self.columns.long()]
        kept = torch.cat([torch.zeros(1, dtype=torch.int64), (new >= 0).cumsum(0)])
        chosen = keep.tolist()
        names = [name for name, take in zip(self.names, chosen, strict=True) if take]
        groups = [group for group, take in zip(self.groups, chosen, strict=True) if take]
        return ConceptTable(kept[self.offsets], new[new >= 0], names, groups, self.samples, self.about)

    def take(self, rows: Tensor) -> ConceptTable:
        """The given rows, int64 `[n]`, in that order."""
        lengths = self.offsets.diff()[rows]
        offsets = _offsets(lengths)
        shift = torch.repeat_interleave(self.offsets[rows] - offsets[:-1], lengths)
        columns = self.columns[torch.arange(int(offsets[-1])) + shift]
        return ConceptTable(offsets, columns, self.names, self.groups, self.samples[rows], self.about)

    def join(self, samples: Tensor) -> ConceptTable:
        """The rows of the given images, in their order: how a table meets the rows of a feature store.

        Args:
            samples: numbers in the data set, int64 `[n]`, `FeatureStore.load().indices`.

        Raises:
            ConceptError: an image has no row here; counted and the first one named.
        """
        order = torch.argsort(self.samples)
        place = torch.searchsorted(self.samples[order], samples.contiguous()).clamp(max=max(len(self) - 1, 0))
        if not len(self) or bool((self.samples[order][place] != samples).any()):
            missing = samples if not len(self) else samples[self.samples[order][place] != samples]
            raise ConceptError(
                f"{len(missing)} of {len(samples)} samples have no concepts, the first is {int(missing[0])}: "
                f"the table covers {len(self)} samples; build it from the same data set."
            )
        return self.take(order[place])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the table as one safetensors file, names and groups as JSON in its header; whole or not at all."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        header = {"format": _FORMAT, "names": self.names, "groups": self.groups, "about": self.about}
        tensors = {"offsets": self.offsets, "columns": self.columns, "samples": self.samples}
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        write_atomically(target, save(contiguous, {"concepts": json.dumps(header)}))
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ConceptTable:
        """Read what `save` wrote.

        Raises:
            ConceptError: no concept table, or a damaged one.
            FileNotFoundError: no file.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no concept table {path}")
        tensors, metadata = read_tensors(path, "the concept table", ConceptError)
        where = f"the header of {path}"
        header = parse_json(metadata.get("concepts", "{}"), where, ConceptError)
        if not isinstance(header, dict) or header.pop("format", None) != _FORMAT:
            raise ConceptError(f"{path} is no concept table of the format {_FORMAT}.")
        told = from_fields(_Header, header, where, ConceptError)
        wanted = {"offsets": "int64 1", "columns": "int32 1", "samples": "int64 1"}
        require_tensors(tensors, wanted, str(path), ConceptError)
        try:
            return cls(names=told.names, groups=told.groups, about=told.about, **tensors)
        except ConceptError as error:
            raise ConceptError(f"{path} is damaged: {error}") from None

    def __repr__(self) -> str:
        groups = ", ".join(f"{group} {size}" for group, size in self.group_sizes.items())
        mean = len(self.columns) / max(len(self), 1)
        return f"ConceptTable({len(self)} samples x {self.num_concepts} concepts, {mean:.1f} ones a row; {groups})"


@dataclass(frozen=True)
class _Header:
    """What the file of a table holds beside its tensors; see `ConceptTable`."""

    names: list[str]
    groups: list[str]
    about: dict[str, Any]


def merge(tables: Sequence[ConceptTable]) -> ConceptTable:
    """The columns of several tables of the same images side by side; rows are matched by sample number.

    Args:
        tables: at least one; the order of the rows is the first one's.

    Raises:
        ConceptError: the tables are of different images, or share a column.

    >>> shape = ConceptTable.from_rows([[0], []], ["round"], "shape", samples=torch.tensor([7, 9]))
    >>> colour = ConceptTable.from_rows([[], [0]], ["red"], "colour", samples=torch.tensor([9, 7]))
    >>> merge([shape, colour]).dense().tolist()
    [[True, True], [False, False]]
    """
    if not tables:
        raise ConceptError("tables must hold at least one table.")
    first = tables[0]
    joined = []
    for table in tables:
        if len(table) != len(first):
            raise ConceptError(f"tables must be of the same images, got {len(first)} and {len(table)} samples.")
        joined.append(table.join(first.samples))
    lengths = torch.stack([table.offsets.diff() for table in joined])  # [tables, N]
    offsets = _offsets(lengths.sum(0))
    columns = torch.empty(int(offsets[-1]), dtype=torch.int32)
    start, shift = offsets[:-1].clone(), 0
    for table, length in zip(joined, lengths, strict=True):
        # Later tables have higher column numbers, so every row stays ascending.
        target = torch.arange(len(table.columns)) + torch.repeat_interleave(start - table.offsets[:-1], length)
        columns[target] = table.columns + shift
        start, shift = start + length, shift + table.num_concepts
    about = {"merged": [table.about for table in joined]} if len(joined) > 1 else first.about
    names = [name for table in joined for name in table.names]
    groups = [group for table in joined for group in table.groups]
    return ConceptTable(offsets, columns, names, groups, first.samples, about)


def _offsets(lengths: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
