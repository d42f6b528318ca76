"""Which array of a file is the features, which the labels, which the names: by what it is called, or as the caller says."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

from sslk.features.importing.opening import open_any
from sslk.features.importing.sources import Source, joined

FEATURES = {"features", "feature", "embeddings", "embedding", "embeds", "feats", "feat", "x", "representations"}
LABELS = {"labels", "label", "targets", "target", "y", "class"}
NAMES = {"names", "name", "files", "file", "filenames", "filename", "paths", "path", "image_path", "image_paths"}
CLASSES = {"classes", "class_names"}
_COUNTS = {"", "index", "indices", "id", "unnamed: 0", "__index_level_0__"}  # of the rows: as features they would tell the order

Opened = list[dict[str, Source]]


def features_in(parts: Opened, asked: str | None, taken: Collection[str] = ()) -> Source:
    """The features of all parts, one after another.

    Args:
        parts: what was opened.
        asked: the caller's key.
        taken: keys that are labels or names.

    Raises:
        ValueError: no or several arrays could be meant, or parts do not fit.
    """
    found = [_features(part, asked, taken) for part in parts]
    return joined(found, "features")


def _features(part: dict[str, Source], asked: str | None, taken: Collection[str]) -> Source:
    if asked is None and not any(len(source.shape) > 1 for source in part.values()):
        columns = [
            name
            for name, source in part.items()
            if source.beside and source.is_number and name not in taken and name.lower() not in LABELS | NAMES | _COUNTS
        ]
        if columns and (beside := part[columns[0]].beside):
            left = [name for name in part if name not in columns and name not in taken and name.lower() not in LABELS | NAMES]
            _say(f"{beside(columns).where}: {len(columns)} columns of numbers are the features" + _left_out(left))
            return beside(columns)
    key = _key(part, FEATURES, "features", asked)
    if key is None:
        wide = [name for name, source in part.items() if source.is_number and len(source.shape) > 1 and name not in taken]
        if len(wide) != 1:
            raise ValueError(f"features could be none or several of {_listed(part)}: name one (features_key).")
        key = wide[0]
    if key and asked is None:
        _say(f"{part[key].where} is taken for the features")
    return part[key]


def vector_in(asked: Any, parts: Opened, known: set[str], what: str) -> tuple[list[Any] | None, str]:
    """Labels or names: what the caller named or gave, or what lies beside the features under a known name.

    Args:
        asked: None; a key of the features' file; a file, a pattern or FILE:KEY; a list of `Path`; or the values themselves.
        parts: what was opened for the features.
        known: names by which it is recognised.
        what: it is, for messages.

    Returns:
        The values, None where there are none, and the key that they have beside the features, empty otherwise.

    Raises:
        ValueError: several could be meant, or what was named is not there.
    """
    if asked is None:
        key = _key(parts[0], known, what, None) if "" not in parts[0] else None
        if key is None:
            return None, ""
        _say(f"{parts[0][key].where} is taken for the {what}")
        return joined([part[key] for part in parts], what).values(), key
    if isinstance(asked, str) and asked in parts[0]:
        return joined([_at(part, asked, what) for part in parts], what).values(), asked
    key = None
    if isinstance(asked, str) and not Path(asked).exists():
        file, colon, inner = asked.rpartition(":")
        if colon and Path(file).exists():
            asked, key = file, inner
        elif not Path(asked).suffix and "" not in parts[0]:
            raise ValueError(f"{what} must be a file or one of the keys {_listed(parts[0])}, got {asked!r}.")
    found = []
    for part in open_any(asked, what):
        name = _key(part, known, what, key)
        if name is None and len(part) > 1:
            raise ValueError(f"{what} could be any of {_listed(part)}: name one, FILE:KEY.")
        found.append(part[next(iter(part)) if name is None else name])
    return joined(found, what).values(), ""


def _key(part: dict[str, Source], known: set[str], what: str, asked: str | None) -> str | None:
    if asked is not None:
        _at(part, asked, what)
        return asked
    if "" in part:
        return ""
    found = [name for name in part if name.rpartition(".")[2].strip().lower() in known]
    if len(found) > 1:
        raise ValueError(f"{what} could be {' or '.join(found)} of {_listed(part)}: name one.")
    return found[0] if found else None


def _at(part: dict[str, Source], key: str, what: str) -> Source:
    if key not in part:
        raise ValueError(f"{what}: there is no {key!r} in {_listed(part)}.")
    return part[key]


def _listed(part: dict[str, Source]) -> str:
    """The keys with their shapes."""
    text = ", ".join(f"{name or '(one array)'} {list(source.shape)}" for name, source in part.items())
    return text if len(text) < 400 else f"{text[:400]}..."


def _left_out(names: list[str]) -> str:
    return f"; left out: {', '.join(name or '(no name)' for name in names[:10])}" if names else ""


def _say(sentence: str) -> None:
    warnings.warn(f"{sentence}.", stacklevel=6)
