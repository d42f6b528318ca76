"""Options from a YAML file; a mistake is told with file, line and key."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any

import yaml
from cyclopts import ArgumentCollection
from cyclopts.config import Dict

from sslk.files.text import read_text

_MOST_BYTES = 1 << 20
_MOST_DEPTH = 20
_MOST_OPTIONS = 10_000  # aliases that name each other multiply


class ConfigFileError(ValueError):
    """A file of options cannot be used; the message names file, line and key."""


class ConfigFile:
    """What `--config FILE` names, as cyclopts reads it.

    Args:
        file: the YAML file.
    """

    def __init__(self, file: str) -> None:
        self.file = file

    def __call__(self, app: Any, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        known = {
            name.removeprefix("--").partition(".")[0].replace("-", "_")
            for a in arguments
            for name in a.names
            if name.startswith("--")
        }
        option_lines(self.file, {name for name in known if not name.startswith("no_")})
        with open(self.file, encoding="utf-8") as stream:
            settings = yaml.safe_load(stream) or {}
        for word in reversed(commands):  # an option may have the name of a command
            settings = {word: settings}
        Dict(settings, source=self.file)(app, commands, arguments)


def split_config(words: list[str]) -> tuple[list[str], ConfigFile | None]:
    """The words of a command line without `--config FILE`, and that file.

    Raises:
        ConfigFileError: the file is not named.

    >>> split_config(["demo", "--config", "a.yaml", "--epochs", "1"])[0]
    ['demo', '--epochs', '1']
    """
    for place, word in enumerate(words):
        if word == "--config" and place + 1 == len(words):
            raise ConfigFileError("--config needs the name of a file.")
        if word == "--config":
            return words[:place] + words[place + 2 :], ConfigFile(words[place + 1])
        if word.startswith("--config="):
            return words[:place] + words[place + 1 :], ConfigFile(word.partition("=")[2])
    return words, None


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
        text = read_text(file, "the file of options", ConfigFileError, _MOST_BYTES)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        raise ConfigFileError(f"{file} cannot be read: {error.strerror}.") from None
    except RecursionError:
        raise ConfigFileError(f"{file} is nested too deeply.") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigFileError(f"{file}, line {line}: {error.problem}.") from None
    except yaml.YAMLError as error:
        raise ConfigFileError(f"{file} is no YAML: {str(error).splitlines()[0]}.") from None
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise ConfigFileError(f"{file}, line {root.start_mark.line + 1}: needs options as `name: value` lines.")
    lines: dict[str, int] = {}
    _walk(file, root, "", lines)
    try:
        yaml.safe_load(text)
    except Exception as error:  # values of a tag fail in any way: `!!timestamp x` in an AttributeError
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigFileError(f"{file} holds a value that is no YAML: {reason}.") from None
    for name, line in lines.items():
        if name.partition(".")[0] not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f", did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(known))}."
            raise ConfigFileError(f"{file}, line {line}: unknown option {name!r}{hint}")
    return lines


def _walk(file: str, node: yaml.MappingNode, prefix: str, lines: dict[str, int]) -> None:
    if prefix.count(".") > _MOST_DEPTH or len(lines) > _MOST_OPTIONS:
        raise ConfigFileError(f"{file}, line {node.start_mark.line + 1}: options are nested too deeply, or too many.")
    for key, value in node.value:
        name, line = f"{prefix}{key.value if isinstance(key.value, str) else '?'}", key.start_mark.line + 1
        if name in lines:
            raise ConfigFileError(f"{file}, line {line}: option {name!r} stands on line {lines[name]} already.")
        lines[name] = line
        if isinstance(value, yaml.MappingNode):
            _walk(file, value, f"{name}.", lines)
