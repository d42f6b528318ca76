"""How long work says how far it is: one callback, the same everywhere."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""Called with what is done, what there is to do, and the name of the stage, such as `"scoring"`."""


def renamed(progress: Progress | None, stage: str) -> Progress | None:
    """The same callback with another name for the stage, where one function runs for several models or data sets."""
    return None if progress is None else lambda done, total, _: progress(done, total, stage)
