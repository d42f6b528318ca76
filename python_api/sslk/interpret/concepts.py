"""Concepts near a feature: point-biserial correlation and AUROC of its values with concepts that images have or lack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from sslk.files.arrays import read_arrays
from sslk.files.tables import read_rows


@dataclass(frozen=True, eq=False)
class ConceptTable:
    """Which images have which concepts.

    Attributes:
        matrix: bool `[N, M]`, rows in the order of the data set.
        names: M names.

    Raises:
        ValueError: the matrix is not bool `[N, M]` with one name per column.
    """

    matrix: np.ndarray
    names: Sequence[str]

    def __post_init__(self) -> None:
        matrix = np.asarray(self.matrix)
        if matrix.ndim != 2 or matrix.dtype != bool or matrix.shape[1] != len(self.names):
            raise ValueError(
                f"a concept table needs bool [N, M] with {len(self.names)} names, got {matrix.dtype} "
                f"{list(matrix.shape)}."
            )

    @classmethod
    def load(cls, path: str | Path) -> ConceptTable:
        """Read an .npz with `matrix` and `names`, or a .csv with one row per image and one column of 0 and 1 per concept.

        A column `index` gives the image's number in the data set; without it rows are in the data set's order.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds something else.
        """
        path = Path(path)
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
            raise ValueError(
                f"{path} must hold 0 and 1 below its concept names, it holds {values.flat[0]!r} and others"
            )
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
        return ConceptTable(matrix, names)
    except ValueError as error:
        raise ValueError(f"{path} is no concept table: {error}") from None


def concept_scores(features: np.ndarray, concepts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Point-biserial correlation and AUROC of every feature with every concept.

    The point-biserial correlation is Pearson's of the values with 0 and 1. AUROC is the probability that an image with
    the concept has the larger value, ties counting half (Mann-Whitney).

    Args:
        features: `[N, F]`.
        concepts: bool `[N, M]`.

    Returns:
        Two float64 arrays `[F, M]`, NaN where a concept is on all images or none, or a feature is constant.

    >>> correlation, auroc = concept_scores(np.array([[0.1], [0.2], [0.9]]), np.array([[False], [False], [True]]))
    >>> round(float(correlation[0, 0]), 3), float(auroc[0, 0])
    (0.993, 1.0)
    """
    x, y = np.asarray(features, np.float64), np.asarray(concepts, np.float64)
    n, have = len(y), y.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        dx, dy = x - x.mean(0), y - y.mean(0)
        scale = np.sqrt(np.outer((dx**2).sum(0), (dy**2).sum(0)))
        correlation = np.where(scale > 0, dx.T @ dy / scale, np.nan)
        ranks = rankdata(x, axis=0)
        auroc = (ranks.T @ y - have * (have + 1) / 2) / (have * (n - have))
    constant = (x == x[:1]).all(0)[:, None] | (have == 0) | (have == n)
    return np.where(constant, np.nan, correlation), np.where(constant, np.nan, auroc)
