"""Which rows can be used: a label below 0 means unlabelled, and a row with NaN or infinity says nothing."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from sslk.probes.outputs import ProbeOutputs

UNLABELLED = -1


@dataclass(frozen=True)
class RowCounts:
    """How many rows a set has, and how many of them could not be used.

    Attributes:
        given: rows of the set.
        unlabelled: rows without a label (below 0), left out.
        nonfinite: labelled rows that hold NaN or infinity, left out.

    >>> RowCounts(300, unlabelled=20, nonfinite=1).used
    279
    """

    given: int
    unlabelled: int = 0
    nonfinite: int = 0

    @property
    def used(self) -> int:
        """Rows that are left."""
        return self.given - self.unlabelled - self.nonfinite

    def said(self, name: str = "") -> list[str]:
        """One sentence for each reason for which rows of a set, such as `test`, are left out.

        >>> RowCounts(300, unlabelled=20).said("test")
        ['20 of 300 test rows are unlabelled (label below 0) and left out.']
        """
        rows = f"{self.given} {name} rows" if name else f"{self.given} rows"
        reasons = ((self.unlabelled, "unlabelled (label below 0)"), (self.nonfinite, "not finite (NaN or infinity)"))
        return [f"{count} of {rows} {'is' if count == 1 else 'are'} {why} and left out." for count, why in reasons if count]

    def summary(self, name: str = "") -> dict[str, int]:
        """The counts that are not 0, by name, for the headline numbers of a run."""
        counts = {"unlabelled": self.unlabelled, "nonfinite": self.nonfinite}
        return {f"{reason}_{name}" if name else reason: count for reason, count in counts.items() if count}


def finite_rows(x: Tensor) -> Tensor:
    """Which rows of `[N, D]` hold neither NaN nor infinity, bool `[N]`.

    >>> finite_rows(torch.tensor([[1.0, 2.0], [torch.nan, 0.0], [torch.inf, -torch.inf]])).tolist()
    [True, False, False]
    """
    finite = x.sum(1, dtype=torch.float64).isfinite()  # reads once and keeps no [N, D] of its own
    if not bool(finite.all()):  # two large numbers may have overflowed
        finite[~finite] = x[~finite].isfinite().all(1)
    return finite


def warn_nonfinite(count: int, rows: int, name: str = "") -> None:
    """Say once that rows are left out because they are not finite."""
    for sentence in RowCounts(rows, nonfinite=count).said(name):
        warnings.warn(sentence, stacklevel=3)


class TwoSets:
    """What the result of any probe on a training and a test set says: its answers, and the rows that were left out."""

    outputs: ProbeOutputs
    train_rows: RowCounts
    test_rows: RowCounts

    @property
    def top1(self) -> float:
        """Accuracy on the test set, in [0, 1]."""
        return self.outputs.accuracy

    @property
    def predictions(self) -> Tensor:
        """int64 `[N]`, predicted labels (values of the given labels, not positions)."""
        return self.outputs.predictions

    @property
    def logits(self) -> Tensor:
        """`[N, C]`, columns in the order of `classes`."""
        return self.outputs.logits

    @property
    def correct(self) -> Tensor:
        """bool `[N]`."""
        return self.outputs.correct

    @property
    def classes(self) -> Tensor:
        """int64 `[C]`, sorted labels of the training set."""
        return self.outputs.classes

    @property
    def unlabelled(self) -> int:
        """Rows of both sets that were left out because they have no label."""
        return self.train_rows.unlabelled + self.test_rows.unlabelled

    @property
    def nonfinite(self) -> int:
        """Labelled rows of both sets that were left out because they hold NaN or infinity."""
        return self.train_rows.nonfinite + self.test_rows.nonfinite


def whole_labels(labels: Any, name: str = "labels") -> Tensor:
    """Labels as int64 `[N]` in memory, -1 where there is none.

    Args:
        labels: `[N]`: integers, bool, floating-point numbers that are whole, or objects of these kinds. A number below 0, NaN,
            None and pandas' NA mean unlabelled.
        name: of the argument, for the errors.

    Raises:
        TypeError: text, or something else that is no number.
        ValueError: another shape, or a number that is not whole.

    >>> whole_labels([2.0, float("nan"), None, True, -7]).tolist()
    [2, -1, -1, 1, -1]
    """
    if isinstance(labels, Tensor):
        values = labels.detach().cpu()
    else:
        array = np.asarray(labels)
        if array.dtype.kind in "OUS":
            array = _of_objects(array, name)
        elif array.dtype.kind == "u" and array.size and int(array.max()) > np.iinfo(np.int64).max:
            raise ValueError(f"{name} must be below 2^63, got {int(array.max())}.")
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name} must be integers, got {array.dtype}.")
        values = torch.from_numpy(array.astype(np.float64 if array.dtype.kind == "f" else np.int64))
    if values.ndim != 1:
        raise ValueError(f"{name} must be one number for each row, [N], got {list(values.shape)}.")
    if values.is_complex():
        raise TypeError(f"{name} must be integers, got {values.dtype}.")
    if values.is_floating_point():
        values = values.double()
        missing = values.isnan()
        # Past 2^53 float64 does not tell integers apart.
        odd = ~missing & ((values != values.floor()) | (values.abs() > 2**53))
        if bool(odd.any()):
            row = int(odd.nonzero()[0])
            raise ValueError(f"{name} must be whole numbers, got {float(values[row]):g} in row {row}.")
        values = torch.where(missing, UNLABELLED, values)
    values = values.long()
    return torch.where(values < 0, UNLABELLED, values)


def matrix(features: Any, name: str) -> Tensor:
    """Features `[N, D]` as a tensor, not copied where that can be.

    Raises:
        TypeError: they are no numbers.
        ValueError: another shape.
    """
    if not isinstance(features, Tensor):
        array = np.asarray(features)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name} must be numbers [N, D], got {type(features).__name__} of {array.dtype}.")
        # torch takes neither another byte order nor negative strides.
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nor is it written to
            features = torch.from_numpy(array)
    if features.is_complex():
        raise TypeError(f"{name} must be real numbers [N, D], got {features.dtype}.")
    if features.ndim != 2 or not features.shape[1]:
        raise ValueError(f"{name} must be a matrix [N, D], got {list(features.shape)}.")
    return features


def _of_objects(values: np.ndarray, name: str) -> np.ndarray:
    """Numbers of an array of objects, -1 for None, NaN and pandas' NA."""
    found = np.empty(values.shape, dtype=np.float64)
    for place, value in np.ndenumerate(values):
        if value is None or (str(value) in ("nan", "NaN", "<NA>", "NaT") and not isinstance(value, str | bytes)):
            found[place] = UNLABELLED
        elif isinstance(value, bool | int | float | np.bool_ | np.integer | np.floating):
            found[place] = value
        else:
            what = f"the text {str(value)!r}" if isinstance(value, str | bytes) else f"{type(value).__name__}"
            raise TypeError(f"{name} must be integers, got {what[:60]}: number the classes, those of training and test together.")
    return found
