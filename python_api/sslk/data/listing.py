"""The files of a folder or zip that belong to a user: hidden ones and those of systems and programs are left out, and counted."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini"))
_FOLDERS = frozenset(("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "__pycache__"))
_KINDS = 5  # named in a sentence


@dataclass(frozen=True)
class Listing:
    """What lies below a folder or in a zip.

    Attributes:
        files: paths with forward slashes, sorted.
        folders: names at the top, sorted.
        left_out: kind -> names of what was left out.
    """

    files: list[str]
    folders: list[str]
    left_out: dict[str, list[str]] = field(default_factory=dict)


def list_folder(root: Path, only: Sequence[str] | None = None) -> Listing:
    """Everything below a folder, through links too.

    Args:
        root: the folder.
        only: its folders to look into; all, and its files, by default.

    Raises:
        ValueError: a folder cannot be read.
    """
    files: list[str] = []
    folders: list[str] = []
    left_out: dict[str, list[str]] = {}

    def look(path: str, inside: str, above: tuple[tuple[int, int], ...]) -> None:
        try:
            with os.scandir(path) as found:
                entries = list(found)
        except OSError as error:
            raise ValueError(f"the folder {path} cannot be read: {error.strerror or error}") from None
        for entry in entries:
            name = f"{inside}{entry.name}"
            kind, link = _kind_on_disk(entry), False
            if not kind and entry.is_dir():
                link = entry.is_symlink()
                found_at = _place(entry.path)
                kind = "circular links" if link and found_at in above else ""
                if not kind:
                    if not inside:
                        folders.append(entry.name)
                    look(entry.path, f"{name}/", (*above, found_at))
            elif not kind:
                files.append(name)
            if kind:
                left_out.setdefault(kind, []).append(name)

    if only is None:
        look(str(root), "", (_place(str(root)),))
    else:
        for folder in only:
            look(str(root / folder), f"{folder}/", (_place(str(root)), _place(str(root / folder))))
        folders.extend(only)
    return Listing(sorted(files), sorted(folders), {kind: sorted(names) for kind, names in left_out.items()})


def list_members(names: Iterable[str]) -> Listing:
    """The files among the names in a zip.

    >>> list_members(["a/b.png", "__MACOSX/a/._b.png", "a/.DS_Store", "a/"])
    Listing(files=['a/b.png'], folders=['a'], left_out={'files of folders of a system': ['__MACOSX/a/._b.png'], \
'hidden files': ['a/.DS_Store']})
    """
    files: list[str] = []
    left_out: dict[str, list[str]] = {}
    for name in names:
        if name.endswith("/"):
            continue
        *folders, file = name.split("/")
        around = next((kind for folder in folders if (kind := _kind_of(folder, folder=True))), "")
        if kind := f"files of {around}" if around else _kind_of(file, folder=False):
            left_out.setdefault(kind, []).append(name)
        else:
            files.append(name)
    top = {name.partition("/")[0] for name in files if "/" in name}
    return Listing(sorted(files), sorted(top), {kind: sorted(found) for kind, found in left_out.items()})


def left_out_text(left_out: dict[str, list[str]]) -> str:
    """How many of each kind, and one of them by name; empty where nothing was left out.

    >>> left_out_text({"hidden files": ["x/._a.jpg", "x/.b"], ".txt files": ["notes.txt"]})
    '2 hidden files (x/._a.jpg, ...), 1 .txt file (notes.txt)'
    """
    kinds = sorted(left_out.items(), key=lambda item: (-len(item[1]), item[0]))
    parts = []
    for kind, names in kinds[:_KINDS]:
        singular = re.sub(r"(file|folder|link)s\b", r"\1", kind, count=1) if len(names) == 1 else kind
        parts.append(f"{len(names)} {singular} ({names[0]}{', ...' if len(names) > 1 else ''})")
    more = sum(len(names) for _, names in kinds[_KINDS:])
    return ", ".join([*parts, *([f"{more} others"] if more else [])])


def say_left_out(path: Path, left_out: dict[str, list[str]]) -> None:
    """A warning that counts what was left out of a data set; called by what `load_dataset` calls."""
    if left_out:
        warnings.warn(f"{path}: left out {left_out_text(left_out)}.", stacklevel=5)


def _kind_on_disk(entry: os.DirEntry[str]) -> str:
    """What an entry is that is left out; empty for a file or folder of the user."""
    try:
        folder = entry.is_dir()
        if kind := _kind_of(entry.name, folder=folder):
            return kind
        if folder or entry.is_file():
            return ""
    except OSError:  # a link that leads to itself
        pass
    return "broken links" if entry.is_symlink() else "special files"


def _kind_of(name: str, *, folder: bool) -> str:
    if name.startswith("."):
        return "hidden folders" if folder else "hidden files"
    if name.lower() in (_FOLDERS if folder else _FILES):
        return "folders of a system" if folder else "files of a system"
    return ""


def _place(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino
