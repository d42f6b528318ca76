"""A griffe extension: an entry `alpha, beta: text` of a docstring documents each of its names."""

from __future__ import annotations

import re
from typing import Any

import griffe

_GROUP = re.compile(r"^( +)(\w+(?:, \w+)+): (.*(?:\n\1 +.*)*)", re.MULTILINE)


def _one_entry_each(group: re.Match[str]) -> str:
    indent, names, text = group.groups()
    return "\n".join(f"{indent}{name}: {text}" for name in names.split(", "))


class GroupedEntries(griffe.Extension):
    """Splits grouped entries before the docstring is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _GROUP.sub(_one_entry_each, obj.docstring.value)
