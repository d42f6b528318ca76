"""Concept tables from files: what `ConceptTable.save` wrote, and tables made by hand as .npz or .csv."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sslk.concepts.table import ConceptError, ConceptTable
from sslk.files.arrays import read_arrays
from sslk.files.tables import read_rows

GROUP = "concepts"  # of the columns of a table made by hand


def read_concepts(path: str | Path) -> ConceptTable:
    """Read a concept table of any kind.

    Args:
        path: what `sslk concepts build` wrote; an .npz with `matrix` (0 and 1, a row per image) and `names`; or a .csv with
            one row per image and one column of 0 and 1 per concept, in which a column `index` gives the image's number in
            the data set; without it rows are in the data set's order.

    Raises:
        FileNotFoundError: there is no such file.
        ConceptError, ValueError: it holds something else.
    """
    path = Path(path)
    if path.suffix not in (".npz", ".csv"):
        return ConceptTable.load(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no concept table {path}")
    if path.suffix == ".npz":
        arrays, keys = read_arrays(path, "the concept table", ("matrix", "names"))
        if len(arrays) < 2:
            raise ValueError(f"{path} needs the arrays matrix and names, it holds {', '.join(keys) or 'nothing'}")
        matrix, names = arrays["matrix"], arrays["names"]
        if matrix.dtype.kind not in "biuf" or not np.isin(matrix, (0, 1)).all() or names.ndim != 1:
            raise ValueError(f"{path} needs a matrix of 0 and 1 and a list of names")
        return _named(path, matrix.astype(bool), [str(name) for name in names])
    rows = read_rows(path, "the concept table")
    if len(rows) < 2 or any(len(row) != len(rows[0]) for row in rows):
        raise ValueError(f"{path} needs a header and rows of equal length")
    header, body = rows[0], np.array(rows[1:])
    keep = [number for number, name in enumerate(header) if name != "index"]
    values = body[:, keep]
    if not np.isin(values, ("0", "1")).all():
        raise ValueError(f"{path} must hold 0 and 1 below its concept names, it holds {values.flat[0]!r} and others")
    if "index" in header:
        try:
            order = body[:, header.index("index")].astype(np.int64)
        except (ValueError, OverflowError):
            raise ValueError(f"the column index of {path} must hold whole numbers") from None
        if sorted(order.tolist()) != list(range(len(order))):
            raise ValueError(f"the column index of {path} must hold every number from 0 to {len(order) - 1} once")
        values = values[np.argsort(order)]
    return _named(path, values == "1", [header[number] for number in keep])


def _named(path: Path, matrix: np.ndarray, names: list[str]) -> ConceptTable:
    try:
        return ConceptTable.from_dense(torch.from_numpy(np.ascontiguousarray(matrix)), names, GROUP)
    except ConceptError as error:
        raise ConceptError(f"{path} is no concept table: {error}") from None
