"""Numbers as a reader wants them: four significant digits, and the same decimals down a column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def text_of(value: Any) -> str:
    """A value for reading; a dash for what is missing.

    >>> [text_of(value) for value in (0.123456, 12, None, float("nan"), True, "cat")]
    ['0.1235', '12', '–', '–', 'yes', 'cat']
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def column_texts(values: Sequence[Any]) -> list[str]:
    """The cells of a column; floats that fit one scale get the same number of decimals.

    >>> column_texts([0.88, 0.8404, 1])
    ['0.8800', '0.8404', '1']
    >>> column_texts([1e-7, 250.0])
    ['1e-07', '250']
    """
    floats = [abs(value) for value in values if isinstance(value, float) and math.isfinite(value) and value]
    if not floats or min(floats) < 1e-3 * max(floats) or not 1e-3 <= max(floats) < 1e6:
        return [text_of(value) for value in values]
    decimals = max(0, 3 - math.floor(math.log10(max(floats))))
    while decimals and all(math.isclose(value, round(value, decimals - 1), rel_tol=1e-9) for value in floats):
        decimals -= 1
    return [f"{value:.{decimals}f}" if isinstance(value, float) and math.isfinite(value) else text_of(value) for value in values]
