"""Text and JSON by a name that a user or another file gave: whatever is wrong with them is said in one sentence."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from sslk.files.regular import require_regular_file

MOST_TEXT = 256 << 20  # bytes of a JSON, YAML or list that is read whole
T = TypeVar("T")


def read_text(path: str | Path, what: str, error: type[ValueError] = ValueError, limit: int = MOST_TEXT) -> str:
    """The content of a text file in UTF-8, with or without a byte order mark; ends of lines are kept.

    Args:
        path: the file.
        what: it is, for the message.
        error: raised where it is no such file.
        limit: the most bytes it may have.

    Raises:
        error: no regular file, too large, or no UTF-8.
        OSError: it cannot be opened.

    Examples:
        >>> read_text("/dev/null", "the list")
        Traceback (most recent call last):
        ValueError: the list /dev/null must be a regular file.
    """
    try:
        require_regular_file(path, what, limit)
        return Path(path).read_bytes().decode().removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise error(f"{what} {path} is no text in UTF-8.") from None
    except MemoryError:
        raise error(f"{what} {path} does not fit into memory.") from None
    except ValueError as problem:
        raise error(str(problem)) from None


def read_json(path: str | Path, what: str, error: type[ValueError] = ValueError, limit: int = MOST_TEXT) -> Any:
    """The value of a JSON file.

    Raises:
        error: see `read_text`, or no JSON.
        OSError: it cannot be opened.
    """
    return parse_json(read_text(path, what, error, limit), f"{what} {path}", error)


def parse_json(text: str, where: str, error: type[ValueError] = ValueError) -> Any:
    """The value of a JSON text; `where` it stands is for the message.

    Raises:
        error: it is no JSON, or too deep.

    Examples:
        >>> parse_json("[" * 100_000, "state.json")
        Traceback (most recent call last):
        ValueError: state.json is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise error(f"{where} is nested too deeply.") from None
    except MemoryError:
        raise error(f"{where} does not fit into memory.") from None
    except ValueError as problem:
        raise error(f"{where} is not valid JSON ({problem}).") from None


def from_fields(kind: type[T], content: Any, where: str, error: type[ValueError] = ValueError) -> T:
    """A dataclass from what a JSON file holds: every field is there and of its type, and no other is.

    Args:
        kind: the dataclass; what its `__post_init__` refuses with a ValueError is refused here.
        content: the file's value.
        where: it stands, for the message.
        error: raised where it does not fit.

    Examples:
        >>> @dataclasses.dataclass
        ... class Point:
        ...     x: int
        >>> from_fields(Point, {"x": None}, "point.json")
        Traceback (most recent call last):
        ValueError: point.json is damaged: x: input should be a valid integer.
    """
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if isinstance(content, dict) and (unknown := sorted(str(name) for name in content if name not in known)):
        raise error(f"{where} is damaged: it has the unknown field {unknown[0][:80]!r}.")
    schema: Any = _schema(kind)  # type: ignore[arg-type]
    try:
        return schema.validate_python(content)
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_input=False)[0]
        message = first["msg"].removeprefix("Value error, ").rstrip(".")
        place = ".".join(map(str, first["loc"]))
        raise error(f"{where} is damaged: {place}{': ' if place else ''}{message[:1].lower()}{message[1:]}.") from None


@functools.cache
def _schema(kind: type) -> Any:
    return TypeAdapter(kind)
