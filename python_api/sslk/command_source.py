"""A command's options, help and examples, read from its source: help, completion and docs never import torch."""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).parent


@dataclass(frozen=True)
class Option:
    """An option: `name` as in Python (`study.seed` for a field of a dataclass), default None where it is required."""

    name: str
    type: str
    default: str | None
    help: str

    @property
    def flag(self) -> str:
        """As it is typed."""
        return f"--{self.name.replace('_', '-')}"


@dataclass(frozen=True)
class CommandSource:
    """What a command's signature and docstring say."""

    description: str
    examples: list[str]
    options: list[Option]


def read_command(target: str) -> CommandSource:
    """The source of `module:function` below `sslk`.

    >>> [option.flag for option in read_command("sslk.commands.store:merge").options]
    ['--stores', '--out']
    """
    module, _, name = target.partition(":")
    function = next(n for n in _tree(module).body if isinstance(n, ast.FunctionDef) and n.name == name)
    text = ast.get_docstring(function) or ""
    explained = _explained(text, "Args")
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    missing: list[ast.expr | None] = [None] * (
        len(arguments) - len(function.args.defaults) - len(function.args.kwonlyargs)
    )
    defaults = [*missing, *function.args.defaults, *function.args.kw_defaults]
    options: list[Option] = []
    for argument, default in zip(arguments, defaults, strict=True):
        options += _options(
            module, argument.arg, argument.annotation, default, explained.get(argument.arg, ""), function.name
        )
    examples = [line.strip().removeprefix("$ ") for line in _joined(text) if line.strip().startswith("$ ")]
    return CommandSource(" ".join(text.partition("\n\n")[0].split()), examples, options)


def help_text(name: str, source: CommandSource, positional: tuple[str, ...] = ()) -> str:
    """What `sslk NAME --help` prints."""
    shown = [option for option in source.options if option.name in positional]
    required = [option for option in source.options if option.default is None and option not in shown]
    words = [option.name.upper() for option in shown] + [f"{o.flag} {o.name.upper()}" for o in required]
    lines = [
        f"usage: sslk {name} {' '.join(words)} [options]",
        "",
        *textwrap.wrap(source.description, 100),
        "",
        "options:",
    ]
    extra = [
        Option("config", "file", "", "read options from a YAML file"),
        Option("print_config", "", "", "print such a file with every option and its value"),
        Option("verbose", "", "", "log messages, and the whole traceback of a failure"),
        Option("help", "", "", "this text"),
    ]
    for option in [*source.options, *extra]:
        flag = option.name.upper() if option in shown else option.flag
        default = "required" if option.default is None else f"default: {option.default}" if option.default else ""
        about = f"  ({', '.join(filter(None, (option.type, default)))})" if option.type or default else ""
        lines.append(f"  {flag}{about}")
        lines += textwrap.wrap(option.help, 96, initial_indent="      ", subsequent_indent="      ")
    if source.examples:
        lines += ["", "examples:", *(f"  $ {example}" for example in source.examples)]
    return "\n".join(lines)


def _options(
    module: str, name: str, annotation: ast.expr | None, default: ast.expr | None, explained: str, owner: str
) -> list[Option]:
    """One option, or one per field where the type is a dataclass of this package."""
    if isinstance(annotation, ast.Name) and (found := _class(module, annotation.id)):
        where, node = found
        about = _explained(ast.get_docstring(node) or "", "Attributes") | _explained(
            ast.get_docstring(node) or "", "Args"
        )
        fields = [item for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)]
        return [
            option
            for item in fields
            for option in _options(
                where, f"{name}.{item.target.id}", item.annotation, item.value, about.get(item.target.id, ""), owner  # type: ignore[union-attr]
            )
        ]  # fmt: skip
    text = None if default is None else _default(module, default)
    return [Option(name, _type(annotation), text, explained)]


def _type(annotation: ast.expr | None) -> str:
    text = "" if annotation is None else ast.unparse(annotation)
    text = re.sub(r"Literal\[(.*?)\]", lambda m: "|".join(part.strip(" '\"") for part in m[1].split(",")), text)
    return text.replace(" | None", "").replace(" | ", "|")


def _default(module: str, node: ast.expr) -> str:
    """The default as text, constants of this package written out."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "list" and len(node.args) == 1:
        return re.sub(r"^\((.*?),?\)$", r"[\1]", _default(module, node.args[0]))
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "field" and node.keywords:
        value = node.keywords[0].value
        return _default(module, value.body if isinstance(value, ast.Lambda) else value)
    if isinstance(node, ast.Name) and (found := _constant(module, node.id)):
        return found
    return ast.unparse(node)


def _constant(module: str, name: str) -> str | None:
    tree = _tree(module)
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                return None if node.value is None else ast.unparse(node.value)
    source = _imported_from(tree, name)
    return _constant(source, name) if source else None


def _class(module: str, name: str) -> tuple[str, ast.ClassDef] | None:
    """A dataclass by its name in a module of this package, and the module that defines it."""
    tree = _tree(module)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
    source = _imported_from(tree, name)
    return _class(source, name) if source else None


def _imported_from(tree: ast.Module, name: str) -> str | None:
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sslk") and node.level == 0:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return node.module
    return None


@cache
def _tree(module: str) -> ast.Module:
    path = _ROOT.joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def _explained(docstring: str, section: str) -> dict[str, str]:
    """`name: text` entries of a section; `a, b: text` explains both."""
    body = re.split(r"\n\n(?=\S)", f"\n{docstring}\n".partition(f"\n{section}:\n")[2])[0]
    entries = re.findall(r"^    ([\w, ]+?): (.+?)(?=^    [\w, ]+?: |\Z)", body + "\n", re.DOTALL | re.MULTILINE)
    return {name.strip(): " ".join(text.split()) for names, text in entries for name in names.split(",")}


def _joined(text: str) -> list[str]:
    """Lines, those that end in a backslash joined with the next."""
    return re.sub(r"\\\n\s*", "", text).splitlines()
