"""Opening what is imported: files by their ending, patterns, several in a row; nothing that a file names is executed."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

from sslk.features.importing.objects import read_pickled
from sslk.features.importing.sources import Source, dtype_name, list_source, sources_in
from sslk.features.importing.tables import open_csv, open_lines, open_parquet
from sslk.files.array_rows import ArrayRows, open_npy, open_npz, open_raw
from sslk.files.arrays import reason_of
from sslk.files.regular import is_utf8, require_regular_file
from sslk.files.text import read_json

ENDINGS = ".npy, .npz, .pt, .pth, .safetensors, .parquet, .csv, .tsv, .txt or .json"


def open_any(given: Any, what: str, raw: str | None = None) -> list[dict[str, Source]]:
    """What was given, part by part: the arrays of each file, or of the object.

    Args:
        given: name of a file or a pattern; a list of `Path`; or arrays, tensors, dictionaries, lists of values.
        what: it is, for messages.
        raw: layout of a file without a header.

    Raises:
        ValueError: no file matches, or one cannot be read as what its ending says.
        TypeError: an object that holds no arrays.
        OSError: a file cannot be opened.
    """
    if isinstance(given, str | PathLike):
        return [open_file(path, what, raw) for path in matching(str(given), what)]
    if isinstance(given, list | tuple) and given and all(isinstance(part, PathLike) for part in given):
        return [open_file(path, what, raw) for part in given for path in matching(str(part), what)]
    if hasattr(given, "__array__") and type(given).__module__.partition(".")[0] in ("pandas", "polars", "jax", "jaxlib"):
        given = given.__array__()
    return [sources_in(given, what)]


def in_folder(folder: Path, labels: Any, names: Any, classes: Any) -> tuple[Path, Any, Any, Any]:
    """The files of an export: its features, and what lies beside them unless the caller named something else.

    Raises:
        ValueError: there is no file `features.*`, or several.
    """
    if (folder / "manifest.json").exists():
        raise ValueError(f"features must not be a feature store, got {folder}: `sslk store merge` copies one.")
    found = [path for path in sorted(folder.glob("features.*")) if path.suffix in _READERS]
    if len(found) != 1:
        raise ValueError(
            f"features must be a file, or a folder with one file features.* as `sslk store export` writes it; {folder} has "
            f"{len(found)}: name the file, or a pattern in quotes."
        )
    listed, beside, named = folder / "manifest.csv", folder / "labels.npy", folder / "classes.json"
    if labels is None and found[0].suffix == ".npy" and beside.exists():
        labels = str(beside)
    if names is None and listed.exists() and not _only_counts(listed):
        names = f"{listed}:file"
    return found[0], labels, names, str(named) if classes is None and named.exists() else classes


def _only_counts(listed: Path) -> bool:
    """Whether a manifest names samples by their numbers only, as that of a store without names."""
    files = open_csv(listed, "names").get("file")
    return files is None or all(name == str(row) for row, name in enumerate(files.values()))


def matching(name: str, what: str) -> list[Path]:
    """The file of that name, or those that match a pattern, in the order of the numbers in their names.

    Raises:
        ValueError: none does.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for number in (10, 9):
    ...     (folder / f"x-{number}.npy").touch()
    >>> [path.name for path in matching(f"{folder}/x-*.npy", "features")]
    ['x-9.npy', 'x-10.npy']
    """
    if Path(name).exists() or not glob.has_magic(name):
        return [Path(name)]
    found = sorted(glob.glob(name), key=in_numeric_order)
    if not found:
        raise ValueError(f"{what}: no file matches {name}.")
    return [Path(path) for path in found]


def in_numeric_order(text: str) -> list[tuple[int, str]]:
    """A key that sorts `x-9` before `x-10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]


def open_file(path: Path, what: str, raw: str | None = None) -> dict[str, Source]:
    """The arrays or columns of a file by name; one that stands alone under the empty name.

    Raises:
        ValueError: it cannot be read as what its ending says, or has another ending.
        OSError: it cannot be opened.
    """
    ending = path.suffix.lower()
    if raw is not None and ending not in _READERS:
        return {"": _of_rows(open_raw(path, what, raw), str(path))}
    if ending not in _READERS:
        raise ValueError(f"{what} must be a file that ends in {ENDINGS}, or numbers without a header (raw), got {path}.")
    return _READERS[ending](path, what)


def _npy(path: Path, what: str) -> dict[str, Source]:
    return {"": _of_rows(open_npy(path, what), str(path))}


def _npz(path: Path, what: str) -> dict[str, Source]:
    return {name: _of_rows(rows, f"{path}[{name}]") for name, rows in open_npz(path, what).items()}


def _of_rows(rows: ArrayRows, where: str) -> Source:
    return Source(where, rows.shape, dtype_name(rows.dtype), rows.pieces)


def _pt(path: Path, what: str) -> dict[str, Source]:
    content = read_pickled(path, what)
    try:
        return sources_in(content, str(path))
    except TypeError as problem:
        raise ValueError(str(problem)) from None


def _safetensors(path: Path, what: str) -> dict[str, Source]:
    from safetensors import safe_open

    require_regular_file(path, what)
    if not is_utf8(path):
        raise ValueError(f"{what} {path} cannot be read: safetensors takes names in UTF-8 only, rename the file.")

    def source(name: str, shape: tuple[int, ...], dtype: str) -> Source:
        def pieces(rows: int) -> Iterator[Any]:
            for start in range(0, shape[0], rows):
                with safe_open(path, "pt") as file:  # opened anew, so that what was read does not stay mapped
                    piece = file.get_slice(name)[start : start + rows]
                yield piece

        return Source(f"{path}[{name}]", shape, dtype, pieces)

    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {
                name: source(name, tuple(part.get_shape()), _SAFETENSORS.get(part.get_dtype(), part.get_dtype()))
                for name, part in slices.items()
            }
    except Exception as problem:  # it fails in ways that are not documented
        raise ValueError(f"{what} {path} cannot be read as safetensors: {reason_of(problem)}.") from None


_SAFETENSORS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool"} | {
    f"{sign}{bits}": f"{'u' if sign == 'U' else ''}int{bits}" for sign in "IU" for bits in (8, 16, 32, 64)
}


def _json(path: Path, what: str) -> dict[str, Source]:
    content = read_json(path, what)
    if isinstance(content, dict):
        return {str(key): list_source(part, f"{path}[{key}]") for key, part in content.items() if isinstance(part, list)}
    if not isinstance(content, list):
        raise ValueError(f"{what} {path} must hold a list, got {type(content).__name__}.")
    return {"": list_source(content, str(path))}


_READERS = {
    ".npy": _npy,
    ".npz": _npz,
    ".pt": _pt,
    ".pth": _pt,
    ".safetensors": _safetensors,
    ".parquet": open_parquet,
    ".pq": open_parquet,
    ".csv": open_csv,
    ".tsv": open_csv,
    ".txt": open_lines,
    ".json": _json,
}
