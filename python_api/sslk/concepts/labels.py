"""Concepts that are known rather than seen: class labels, attributes of classes, and label maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sslk.concepts.expert import ConceptSample
from sslk.concepts.table import ConceptError
from sslk.files.tables import read_rows


class ClassLabels:
    """The class label, one-hot.

    Args:
        classes: names by label.
        group: of the columns.

    >>> from PIL import Image
    >>> ClassLabels(["cat", "dog"])([ConceptSample(0, Image.new("RGB", (8, 8)), label=1)])
    [[1]]
    """

    def __init__(self, classes: Sequence[str], group: str = "labels") -> None:
        if not classes:
            raise ConceptError("classes must name the labels, got none: the data set has no class names.")
        # Data sets repeat class names (ImageNet has two "crane"s); a column's name must tell them apart.
        self.names = [f"{name} ({i})" if list(classes).count(name) > 1 else name for i, name in enumerate(classes)]
        self.group = group

    def __call__(self, samples: Sequence[ConceptSample]) -> list[list[int]]:
        return [_label(sample, len(self.names)) for sample in samples]

    def __repr__(self) -> str:
        return f"ClassLabels({len(self.names)} classes, group={self.group!r})"


class ClassAttributes:
    """Attributes that the class implies, from a CSV: `class,wings,wheels,...` with 0 or 1 in the cells.

    Args:
        path: the CSV; its first column names the classes, its header the attributes.
        classes: the data set's class names by label; each must have a row.
        group: of the columns.

    Raises:
        ConceptError: a class has no row, or a cell is not 0 or 1; named.
    """

    def __init__(self, path: str | Path, classes: Sequence[str], group: str = "attributes") -> None:
        header, *rows = read_rows(path, "the attributes", ConceptError) or [[]]
        table = {row[0].strip(): row[1:] for row in rows}
        if len(table) < len(rows):
            raise ConceptError(f"{path} has two rows for one class.")
        missing = [name for name in classes if name not in table]
        if missing or not classes:
            raise ConceptError(f"{path} needs a row for each class of the data set, missing: {missing or 'all'}.")
        self.names = [name.strip() for name in header[1:]]
        self.group = group
        self.path = str(path)
        self._rows: list[list[int]] = []
        for name in classes:
            cells = [cell.strip() for cell in table[name]]
            if len(cells) != len(self.names) or set(cells) - {"0", "1"}:
                raise ConceptError(f"the row of {name!r} in {path} must hold {len(self.names)} cells of 0 or 1.")
            self._rows.append([column for column, cell in enumerate(cells) if cell == "1"])

    def __call__(self, samples: Sequence[ConceptSample]) -> list[list[int]]:
        return [[bit for label in _label(sample, len(self._rows)) for bit in self._rows[label]] for sample in samples]

    def __repr__(self) -> str:
        return f"ClassAttributes({Path(self.path).name}, {len(self.names)} attributes, group={self.group!r})"


class LabelMaps:
    """Which classes of the data set's label maps are present: the segmentation rule, with exact masks.

    Args:
        classes: names by value in the mask.
        ignore: values that are no concept, such as "unlabelled".
        min_share: share of the pixels from which a class counts as present; 0 counts a single pixel, the paper's rule.
        group: of the columns.

    >>> from PIL import Image
    >>> street = ConceptSample(0, Image.new("RGB", (2, 1)), mask=np.array([[0, 2]], dtype=np.uint8))
    >>> LabelMaps(["sky", "road", "car"])([street])
    [[0, 2]]
    """

    def __init__(
        self, classes: Sequence[str], ignore: Sequence[int] = (), min_share: float = 0.0, group: str = "scene classes"
    ) -> None:
        self.names = [name for value, name in enumerate(classes) if value not in ignore]
        self.group = group
        self.min_share = min_share
        self._column = {value: self.names.index(name) for value, name in enumerate(classes) if value not in ignore}

    def __call__(self, samples: Sequence[ConceptSample]) -> list[list[int]]:
        found = []
        for sample in samples:
            if sample.mask is None:
                raise ConceptError(f"label maps need masks, sample {sample.number} has none.")
            counts = np.bincount(sample.mask.ravel(), minlength=1)
            present = np.flatnonzero((counts > 0) & (counts >= self.min_share * counts.sum())).tolist()
            found.append([self._column[value] for value in present if value in self._column])
        return found

    def __repr__(self) -> str:
        return f"LabelMaps({len(self.names)} classes, min_share={self.min_share}, group={self.group!r})"


def _label(sample: ConceptSample, classes: int) -> list[int]:
    """The label; none of an unlabelled image, which shows no class."""
    if sample.label is None or not sample.label < classes:
        raise ConceptError(f"sample {sample.number} needs a label in [0, {classes}), got {sample.label}.")
    return [sample.label] if sample.label >= 0 else []
