"""Labels of a manifest: one name or whole number a cell, several of them, or a column of 0 and 1 for each class."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from sslk.data.manifest_columns import Cell

SEPARATORS = ("|", ";")  # of several labels in a cell; the first that any cell holds
UNLABELLED = frozenset({"", "-1", "-1.0", "nan", "NaN", "NAN", "None", "<NA>"})
UNKNOWN = -1
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,2})?")
_BITS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "False": 0, "True": 1, "false": 0, "true": 1}
_MOST_ENTRIES = 1 << 32  # of images times classes
T = TypeVar("T", bound=Hashable)


def one_label(cells: Sequence[Cell], where: str) -> tuple[np.ndarray, list[str]]:
    """Labels int64 `[N]` and the classes, from one label a cell.

    Args:
        cells: a name, or a whole number where all are numbers; an empty one, -1 (any number below 0), NaN and None mean
            unlabelled.
        where: they stand, for the message.

    Returns:
        Labels, -1 where there is none; and names by label: in the order of the alphabet, or of the numbers.

    Raises:
        ValueError: the labels are numbers, and not whole ones.

    >>> one_label(["10", "2", "", "2.0", "-1"], "a.csv")
    (array([ 1,  0, -1,  0, -1]), ['2', '10'])
    >>> one_label(["dog", "cat", "None", "7"], "a.csv")
    (array([ 2,  1, -1,  0]), ['7', 'cat', 'dog'])
    """
    texts, places = _distinct([str(cell) for cell in cells])
    names = {text: text.strip() for text in texts}
    number, classes = _numbered([name for name in names.values() if name not in UNLABELLED], where)
    of_text = np.array([number.get(names[text], UNKNOWN) for text in texts], dtype=np.int64)
    return of_text[places], classes


def separator_of(cells: Sequence[Cell]) -> str | None:
    """What stands between several labels in a cell; an empty text where cells are lists, None where each holds one label.

    >>> separator_of(["cat", "cat;dog|red"]), separator_of(["cat", "dog"]), separator_of([("cat", "dog")])
    ('|', None, '')
    """
    if any(isinstance(cell, tuple) for cell in cells):
        return ""
    return next((mark for mark in SEPARATORS if any(mark in cell for cell in cells)), None)


def several_labels(cells: Sequence[Cell], separator: str, where: str) -> tuple[np.ndarray, list[str]]:
    """Labels int8 `[N, C]` and the classes, from several labels a cell.

    A class is 1 where the cell names it, else 0; where the cell is unlabelled all are -1, unknown. A cell that holds
    only the separator, or an empty list, names none of them: all are 0.

    >>> several_labels(["cat|dog", "dog", "", "|"], "|", "a.csv")[0].tolist()
    [[1, 1], [0, 1], [-1, -1], [0, 0]]
    """
    distinct, places = _distinct(cells)
    known = [isinstance(cell, tuple) or cell.strip() not in UNLABELLED for cell in distinct]
    named = [[name for part in _parts(cell, separator) if (name := part.strip()) not in UNLABELLED] for cell in distinct]
    number, classes = _numbered([name for names in named for name in names], where)
    _require_possible(len(cells), len(classes), where)
    found = np.zeros((len(distinct), len(classes)), dtype=np.int8)
    for row, names in enumerate(named):
        found[row, [number[name] for name in names if number[name] >= 0]] = 1
    found[~np.array(known, dtype=bool)] = UNKNOWN
    return found[places], classes


def bit_columns(columns: Mapping[str, Sequence[Cell]], where: str) -> np.ndarray:
    """Labels int8 `[N, C]` from a column of 0 and 1 for each class; -1, unknown, where a cell is unlabelled.

    Raises:
        ValueError: a cell is neither; its class and row are named.

    >>> bit_columns({"cat": ["1", "0"], "dog": ["", "True"]}, "a.csv").tolist()
    [[1, -1], [0, 1]]
    """
    _require_possible(len(next(iter(columns.values()))), len(columns), where)
    found = []
    for name, cells in columns.items():
        texts, places = _distinct([str(cell) for cell in cells])
        bits = [UNKNOWN if text.strip() in UNLABELLED else _BITS.get(text.strip(), 2) for text in texts]
        column = np.array(bits, dtype=np.int8)[places]
        if (column == 2).any():
            row = int(np.argmax(column == 2))
            raise ValueError(
                f"the column label:{name} of {where} must hold 0, 1 or nothing, got {cells[row]!r:.60} in row {row + 1}."
            )
        found.append(column)
    return np.stack(found, axis=1)


def _numbered(names: list[str], where: str) -> tuple[dict[str, int], list[str]]:
    """The number of every name, -1 for a number below 0, and the classes in their order."""
    distinct = sorted(set(names))
    if not all(_NUMBER.fullmatch(name) and len(name) < 100 for name in distinct):
        return {name: place for place, name in enumerate(distinct)}, distinct
    values = {name: int(name) if name.lstrip("+-").isdigit() else float(name) for name in distinct}
    odd = next((name for name, value in values.items() if value != int(value)), None)
    if odd is not None:
        raise ValueError(f"the labels of {where} must be names or whole numbers, got {odd}.")
    ordered = sorted({int(value) for value in values.values() if value >= 0})
    place = {value: number for number, value in enumerate(ordered)}
    return {name: place.get(int(value), UNKNOWN) for name, value in values.items()}, [str(value) for value in ordered]


def _parts(cell: Cell, separator: str) -> Sequence[str]:
    return cell if isinstance(cell, tuple) else cell.split(separator) if separator else [cell]


def _distinct(cells: Sequence[T]) -> tuple[list[T], np.ndarray]:
    """The cells that differ, and of every cell its place among them: a million cells have few."""
    place: dict[T, int] = {}
    places = np.fromiter((place.setdefault(cell, len(place)) for cell in cells), dtype=np.int64, count=len(cells))
    return list(place), places


def _require_possible(images: int, classes: int, where: str) -> None:
    if images * classes > _MOST_ENTRIES:
        raise ValueError(f"{where} has {images} images with {classes} labels each, more than {_MOST_ENTRIES} entries.")
