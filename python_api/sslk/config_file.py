"""Where in a YAML file of options a mistake is: file, line and key."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path

import yaml


class ConfigFileError(ValueError):
    """A file of options cannot be used; the message names file, line and key."""


def option_lines(file: str, known: Collection[str]) -> dict[str, int]:
    """The line of every option in a YAML file, nested ones as `training.learning_rate`.

    Args:
        file: the YAML file.
        known: names of the command's options.

    Raises:
        ConfigFileError: the file cannot be read, is no YAML, holds something else than options, an unknown option, or
            one twice.
    """
    try:
        root = yaml.compose(Path(file).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise ConfigFileError(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigFileError(f"{file} is no text in UTF-8.") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigFileError(f"{file}, line {line}: {error.problem}.") from None
    except yaml.YAMLError as error:
        raise ConfigFileError(f"{file} is no YAML: {error}.") from None
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise ConfigFileError(f"{file}, line {root.start_mark.line + 1}: needs options as `name: value` lines.")
    lines: dict[str, int] = {}
    _walk(file, root, "", lines)
    for name, line in lines.items():
        if name.partition(".")[0] not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f", did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(known))}."
            raise ConfigFileError(f"{file}, line {line}: unknown option {name!r}{hint}")
    return lines


def _walk(file: str, node: yaml.MappingNode, prefix: str, lines: dict[str, int]) -> None:
    for key, value in node.value:
        name, line = f"{prefix}{key.value}", key.start_mark.line + 1
        if name in lines:
            raise ConfigFileError(f"{file}, line {line}: option {name!r} stands on line {lines[name]} already.")
        lines[name] = line
        if isinstance(value, yaml.MappingNode):
            _walk(file, value, f"{name}.", lines)
