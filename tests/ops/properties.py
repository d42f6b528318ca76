"""hypothesis, or where it is not installed what skips its tests: on a GPU the other tests of a file are to run all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

try:
    from hypothesis import given, settings
    from hypothesis import strategies as st
except ImportError:

    class _Anything:
        """A strategy, a decorator of strategies, and settings."""

        def __getattr__(self, name: str) -> _Anything:
            return self

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return args[0] if len(args) == 1 and callable(args[0]) else self

    st = settings = _Anything()  # type: ignore[assignment, misc]

    def given(*_: Any, **__: Any) -> Callable[[Callable[..., Any]], Callable[[], None]]:  # type: ignore[no-redef]
        def skipped(test: Callable[..., Any]) -> Callable[[], None]:
            def stand_in() -> None:
                pytest.skip("hypothesis is not installed")

            stand_in.__name__, stand_in.__doc__ = test.__name__, test.__doc__
            return stand_in

        return skipped


__all__ = ["given", "settings", "st"]
