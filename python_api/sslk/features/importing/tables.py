"""Tables that are imported: Parquet, CSV and lists of lines, column by column and batch by batch."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sslk.features.importing.sources import Source
from sslk.files.arrays import reason_of
from sslk.files.regular import require_regular_file
from sslk.files.tables import read_cell
from sslk.files.text import read_text

HEADINGS = {"label", "labels", "target", "targets", "y", "class", "name", "names", "file", "files", "filename", "path", "image"}


def open_parquet(path: Path, what: str) -> dict[str, Source]:
    """The columns of a Parquet file; one of lists is an array `[N, D]`.

    Raises:
        ImportError: pyarrow is not installed.
        ValueError: no Parquet.
        OSError: it cannot be opened.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise ImportError(f"{what} {path} is Parquet, which needs pyarrow: pip install pyarrow.") from None
    require_regular_file(path, what)
    try:
        with parquet.ParquetFile(path) as file:
            count, schema = file.metadata.num_rows, file.schema_arrow
    except (pa.ArrowException, OSError) as problem:
        raise ValueError(f"{what} {path} cannot be read as Parquet: {reason_of(problem)}.") from None

    def beside(names: Sequence[str]) -> Source:
        def pieces(rows: int) -> Iterator[Any]:
            for batch in _batches(path, rows, list(names)):
                columns = [
                    np.asarray(_values(column, f"{path}[{name}]"), np.float64) for name, column in zip(names, batch, strict=True)
                ]
                yield np.stack(columns, axis=1)

        together = np.result_type(*(found[name].dtype for name in names))
        return Source(str(path), (count, len(names)), str(together), pieces)

    def source(name: str, kind: Any) -> Source:
        def pieces(rows: int) -> Iterator[Any]:
            for batch in _batches(path, rows, [name]):
                yield _values(batch[0], f"{path}[{name}]")

        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        shape: tuple[int, ...] = (count,)
        if _is_list(kind):
            kind, first = kind.value_type, next(pieces(1), np.zeros((0, 0)))
            shape = (count, first.shape[1])
        number = pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
        return Source(f"{path}[{name}]", shape, str(np.dtype(kind.to_pandas_dtype())) if number else "str", pieces, beside)

    found = {field.name: source(field.name, field.type) for field in schema}
    return found


def _batches(path: Path, rows: int, names: list[str]) -> Iterator[Any]:
    """The columns of these names, batch by batch."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(rows, columns=names):
                yield [batch.column(name) for name in names]
    except pa.ArrowException as problem:
        raise ValueError(f"{path} is damaged: {reason_of(problem)}.") from None


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _values(column: Any, where: str) -> Any:
    """A column as a NumPy array, missing numbers as NaN; texts as a list, missing ones as None."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if _is_list(column.type):
        if column.null_count:
            raise ValueError(f"{where} has {column.null_count} rows without features: leave them out, in the labels too.")
        flat = column.flatten()
        widths = np.unique(column.value_lengths().to_numpy(zero_copy_only=False)) if len(column) else np.zeros(1)
        if len(widths) > 1:
            raise ValueError(f"{where} must have lists of one length, got {int(widths.min())} to {int(widths.max())}.")
        return flat.to_numpy(zero_copy_only=False).reshape(len(column), int(widths[0]))
    if pa.types.is_floating(column.type) or (pa.types.is_integer(column.type) and not column.null_count):
        return column.to_numpy(zero_copy_only=False)
    return column.to_pylist()


def open_csv(path: Path, what: str) -> dict[str, Source]:
    """The columns of a CSV by the names in its header, `0`, `1`, ... without one; read line by line.

    The first line is a header where it holds no number and either another line does or a name that tells what it is.

    Raises:
        ValueError: no CSV, no text in UTF-8, or rows of several lengths.
        OSError: it cannot be opened.
    """
    require_regular_file(path, what)
    between = "\t" if path.suffix.lower() == ".tsv" else ","

    def lines() -> Iterator[list[str]]:
        try:
            with open(path, newline="", encoding="utf-8-sig") as stream:
                yield from (row for row in csv.reader(stream, delimiter=between) if row)
        except (UnicodeDecodeError, csv.Error) as problem:
            raise ValueError(f"{what} {path} cannot be read as CSV: {reason_of(problem)}.") from None

    rows, first, second = 0, [""], [""]
    for row in lines():
        first, second = (row, second) if rows == 0 else (first, row) if rows == 1 else (first, second)
        if len(row) != len(first):
            raise ValueError(f"{what} {path} has {len(row)} cells in row {rows + 1}, {len(first)} in the first.")
        rows += 1
    numbers = [_is_number(cell) for cell in second]
    known = {cell.strip().lower() for cell in first} & HEADINGS
    headed = rows > 0 and not any(map(_is_number, first)) and (bool(known) or (rows > 1 and any(numbers)))
    names = [read_cell(cell) for cell in first] if headed else [str(number) for number in range(len(first))]
    if len(set(names)) < len(names):
        raise ValueError(f"{what} {path} has two columns of one name.")

    def blocks(count: int) -> Iterator[list[list[str]]]:
        rest = lines()
        if headed:
            next(rest)
        while block := list(islice(rest, count)):
            yield block

    def beside(chosen: Sequence[str]) -> Source:
        places = [names.index(name) for name in chosen]

        def pieces(count: int) -> Iterator[Any]:
            for block in blocks(count):
                yield _parsed([[row[place] for place in places] for row in block], f"{what} {path}")

        return Source(str(path), (rows - headed, len(places)), "float64", pieces)

    def source(place: int) -> Source:
        def pieces(count: int) -> Iterator[Any]:
            for block in blocks(count):
                yield [read_cell(row[place]) for row in block]

        dtype = "float64" if numbers[place] else "str"
        return Source(f"{path}[{names[place]}]", (rows - headed,), dtype, pieces, beside)

    return {name: source(place) for place, name in enumerate(names)}


def open_lines(path: Path, what: str) -> dict[str, Source]:
    """One value a line."""
    lines = read_text(path, what).splitlines()
    return {"": Source(str(path), (len(lines),), "str", lambda rows: iter([lines]))}


def _parsed(rows: list[list[str]], where: str) -> np.ndarray:
    try:
        return np.array([[float(cell) if cell.strip() else np.nan for cell in row] for row in rows])
    except ValueError as problem:
        raise ValueError(f"{where} holds something else than numbers: {reason_of(problem)}.") from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return not text.strip()
    return True
