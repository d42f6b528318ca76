"""CSV files: cells of text that a spreadsheet would take for a formula are written with an apostrophe, read without.

A cell whose text begins with `=`, `+`, `-` or `@` (or with a tab or a carriage return) is run as a formula by Excel,
LibreOffice and Google Sheets; OWASP, "CSV Injection", recommends the apostrophe. Numbers stay as they are. The name of a
file that is no UTF-8 keeps its bytes: open such a table with `errors="surrogateescape"`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from sslk.files.regular import require_regular_file

MOST_TABLE = 1 << 30  # bytes of a CSV that is read
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def plain_cell(value: Any) -> Any:
    """A cell as it is written.

    Examples:
        >>> plain_cell("=1+2"), plain_cell("-0.5"), plain_cell(-0.5), plain_cell("a=b"), plain_cell("'-x")
        ("'=1+2", '-0.5', -0.5, 'a=b', "''-x")
    """
    if not isinstance(value, str):
        return value
    return f"'{value}" if _FORMULA.match(value) and not _is_number(value) else value


def read_cell(text: str) -> str:
    """The text of a cell that `plain_cell` wrote.

    Examples:
        >>> read_cell("'=1+2"), read_cell("''-x"), read_cell("'tis")
        ('=1+2', "'-x", "'tis")
    """
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def write_rows(stream: IO[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write rows as CSV; the stream was opened with `newline=""`. A name that is no UTF-8 keeps its bytes in a file."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="surrogateescape")
    csv.writer(stream).writerows([plain_cell(value) for value in row] for row in rows)


def read_rows(path: str | Path, what: str, error: type[ValueError] = ValueError) -> list[list[str]]:
    """The rows of a CSV file in UTF-8, empty lines left out; names of other bytes come back as Python holds them.

    Raises:
        error: no regular file, too large, no UTF-8, or no CSV.
        OSError: it cannot be opened.
    """
    try:
        require_regular_file(path, what, MOST_TABLE)
        with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
            rows = parse_rows(stream, f"{what} {path}", error)
    except MemoryError:
        raise error(f"{what} {path} does not fit into memory.") from None
    except ValueError as problem:
        raise error(str(problem)) from None
    if any("\0" in cell for row in rows for cell in row):  # UTF-16, say; a name that is no UTF-8 keeps its bytes
        raise error(f"{what} {path} is no text in UTF-8.")
    return rows


def parse_rows(lines: Iterable[str], where: str, error: type[ValueError] = ValueError) -> list[list[str]]:
    """The rows of the lines of a CSV file, empty ones left out.

    Raises:
        error: a cell does not end, or is longer than 131,072 characters.
    """
    try:
        return [[read_cell(cell) for cell in row] for row in csv.reader(lines) if row]
    except csv.Error as problem:
        raise error(f"{where} is no CSV ({problem}).") from None


def read_records(
    path: str | Path, what: str, columns: Sequence[str], error: type[ValueError] = ValueError
) -> list[dict[str, str]]:
    """The rows of a CSV file by the names in its header; every row has a cell for each.

    Raises:
        error: see `read_rows`, or one of `columns` is missing, or a row has another number of cells.
        OSError: it cannot be opened.
    """
    return records(read_rows(path, what, error), f"{what} {path}", columns, error)


def records(
    rows: list[list[str]], where: str, columns: Sequence[str], error: type[ValueError] = ValueError
) -> list[dict[str, str]]:
    """Rows by the names in the first; see `read_records`."""
    header = rows[0] if rows else []
    if absent := [name for name in columns if name not in header]:
        raise error(f"{where} needs the columns {', '.join(columns)}, it lacks {', '.join(absent)}.")
    for number, row in enumerate(rows[1:], 1):
        if len(row) != len(header):
            raise error(f"{where} has {len(row)} cells in row {number}, its header {len(header)}.")
    return [dict(zip(header, row, strict=True)) for row in rows[1:]]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
