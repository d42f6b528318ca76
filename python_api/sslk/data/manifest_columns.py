"""The columns of a manifest that are used, as text: from CSV, TSV or Parquet."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from sslk.files.regular import require_regular_file
from sslk.files.tables import read_cell

MOST_BYTES = 4 << 30  # of a manifest that is read
MOST_ROWS = 50_000_000
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")

Cell = str | tuple[str, ...]
Choose = Callable[[list[str]], list[str]]


def read_columns(path: Path, choose: Choose) -> dict[str, list[Cell]]:
    """Columns of a table by the names in its header; one that is a list in Parquet has a tuple in every cell.

    Args:
        path: `.parquet`, `.tsv` or `.tab` (cells end at tabs), else CSV. Text is UTF-8, with or without a byte order mark;
            other bytes are kept as the names of files keep them in Python.
        choose: of the names in the header the ones to read; raises where they do not do.

    Raises:
        ValueError: no regular file, too large, damaged, or a row with another number of cells than the header.
        FileNotFoundError: there is no such file.
        ImportError: Parquet without pyarrow.
    """
    require_regular_file(path, "the manifest", MOST_BYTES)
    if path.suffix.lower() == ".parquet":
        return _from_parquet(path, choose)
    with open(path, "rb") as stream:
        if stream.read(2) in _UTF_16:
            raise ValueError(f"the manifest {path} is UTF-16: save it as UTF-8.")
    with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as lines:
        reader = csv.reader(lines, delimiter="\t" if path.suffix.lower() in (".tsv", ".tab") else ",", strict=True)
        try:
            return _from_rows(reader, path, choose)
        except csv.Error as problem:
            raise ValueError(f"the manifest {path} is no CSV ({problem}, line {reader.line_num}).") from None


def header_of(path: Path) -> list[str]:
    """The names of a manifest's columns; the rows are not read.

    Raises:
        see `read_columns`.
    """
    found: list[str] = []

    def keep(header: list[str]) -> list[str]:
        found.extend(header)
        return []

    read_columns(path, keep)
    return found


def _from_rows(rows: Iterator[list[str]], path: Path, choose: Choose) -> dict[str, list[Cell]]:
    header = [read_cell(cell).strip() for cell in next(rows, [])]
    chosen = choose(header)
    if not chosen:
        return {}
    columns: list[list[Cell]] = [[] for _ in chosen]
    places = [(_place(header, name, path), column.append) for name, column in zip(chosen, columns, strict=True)]
    width = len(header)
    for number, row in enumerate(rows, 1):
        if len(row) != width:
            if not row:  # an empty line
                continue
            raise ValueError(f"the manifest {path} has {len(row)} cells in row {number}, its header {width}.")
        for place, append in places:
            cell = row[place]
            append(read_cell(cell) if cell[:1] == "'" else cell)
    return dict(zip(chosen, columns, strict=True))


def _place(header: list[str], name: str, path: Path) -> int:
    if header.count(name) > 1:
        raise ValueError(f"the manifest {path} has the column {name!r} twice.")
    return header.index(name)


def _from_parquet(path: Path, choose: Choose) -> dict[str, list[Cell]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(f"the manifest {path} needs the package pyarrow: pip install pyarrow ({error})") from error
    try:
        # Opened here, so that a name which is no UTF-8 never reaches the library.
        with open(path, "rb") as stream, parquet.ParquetFile(stream) as file:
            names = [str(name) for name in file.schema_arrow.names]
            rows = file.metadata.num_rows
            chosen = choose([name.strip() for name in names])
            if rows > MOST_ROWS:
                raise ValueError(f"the manifest {path} has {rows} rows; at most {MOST_ROWS} are read.")
            if not chosen:
                return {}
            wanted = [names[_place([name.strip() for name in names], name, path)] for name in chosen]
            table = file.read(columns=wanted)
        for given in wanted:
            kind = table.schema.field(given).type
            if pyarrow.types.is_struct(kind) or pyarrow.types.is_map(kind):
                raise ValueError(f"the column {given!r} of the manifest {path} must hold text or numbers, got {kind}"[:300])
        return {name: _texts(table.column(given).to_pylist()) for name, given in zip(chosen, wanted, strict=True)}
    except (pyarrow.ArrowException, OSError) as problem:  # ArrowInvalid is a ValueError too
        reason = (str(problem) or type(problem).__name__).splitlines()[0][:200].rstrip(".")
        raise ValueError(f"the manifest {path} is no readable Parquet file: {reason}.") from None


def _texts(values: Iterable[Any]) -> list[Cell]:
    return [tuple(_text(part) for part in value) if isinstance(value, list) else _text(value) for value in values]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return os.fsdecode(value)
    return "" if value is None else str(value)
