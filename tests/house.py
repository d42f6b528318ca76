"""Numbers of the house: `python -m tests.house [TREE]` prints them for a source tree, this one by default."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_PARAMETERS = 8
# Commands on a finished store, up to where they look for it: what is not there ends them when all they need to begin is imported.
START_UPS = [
    words.split()
    for words in (
        "store info none",
        "qscore discover none --out x",
        "qscore score none --discriminative none",
        "qscore failure none --train none --outputs none --out x",
        "qscore sides none --train none --outputs none --out x",
        "qscore thresholds --train none --test none --outputs none --out x",
        "qscore compression --train none --test none --out x",
        "probe linear --train none --test none --out x",
        "probe knn --train none --test none --out x",
        "probe kfold none --out x",
        "concepts info none",
        "reverse study a=none --concepts none --out x",
        "report page none",
        "report compare none --paper table1",
    )
]


def sources(tree: Path) -> list[Path]:
    """The modules of `sslk`."""
    return sorted((tree / "python_api" / "sslk").rglob("*.py"))


def imports(tree: Path) -> dict[str, set[str]]:
    """Module -> modules of `sslk` it imports when it is loaded."""
    names = {
        ".".join(file.relative_to(tree / "python_api").with_suffix("").parts).removesuffix(".__init__"): file
        for file in sources(tree)
    }
    graph: dict[str, set[str]] = {}
    for name, file in names.items():
        found = set()
        for node in _at_load(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sslk"):
                found |= {
                    f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in names else node.module
                    for alias in node.names
                }
        graph[name] = {module for module in found if module in names and module != name}
    return graph


def _at_load(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when the module is loaded: no bodies of functions, nothing for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _at_load(child)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Sets of modules that import each other (Tarjan's strongly connected components of two or more)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            part = []
            while not part or part[-1] != name:
                part.append(stack.pop())
            if len(part) > 1:
                found.append(sorted(part))

    for name in graph:
        if name not in index:
            visit(name)
    return found


def command_bodies(tree: Path) -> int:
    """Lines of the commands' functions beyond signature and docstring."""
    folders = [tree / "python_api" / "sslk" / name for name in ("cli", "commands")]
    lines = 0
    for file in [file for folder in folders for file in folder.glob("*.py")]:
        if file.stem in ("app", "config_file", "console", "plan_view", "__init__", "__main__"):
            continue
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines += sum((part.end_lineno or 0) - part.lineno + 1 for part in body)
    return lines


def long_signatures(tree: Path) -> list[str]:
    """Functions with more than eight parameters, `self` aside, outside the command line."""
    found = []
    for file in sources(tree):
        if {"cli", "commands"} & set(file.parts):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                count = len([a for a in arguments if a.arg not in ("self", "cls")])
                if count > MOST_PARAMETERS:
                    found.append(f"{file.relative_to(tree / 'python_api')}:{node.lineno} {node.name} ({count})")
    return found


def seconds(*words: str) -> float:
    """Median of five runs, after one that warms the caches."""
    times = []
    for _ in range(6):
        started = time.perf_counter()
        subprocess.run([sys.executable, *words], check=False, capture_output=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main(tree: Path) -> None:
    """Print every number."""
    graph = imports(tree)
    floors = tomllib.loads((tree / "pyproject.toml").read_text()).get("tool", {}).get("importlinter", {}).get("contracts", [{}])
    signatures = long_signatures(tree)
    text = {file: file.read_text() for file in [*sources(tree), *(tree / "tests").rglob("*.py")]}
    print(f"circles of imports          {len(circles(graph))}")
    print(f"floors                      {len(floors[0].get('layers', []))}")
    print(f"lines of command bodies     {command_bodies(tree)}")
    print(f"`fmt: skip` of the formatter {sum(part.count('# fmt: ' + 'skip') for part in text.values())}")
    print(f"signatures above {MOST_PARAMETERS}          {len(signatures)}")
    for line in signatures:
        print(f"    {line}")
    print(f"lines of python_api         {sum(len(text[file].splitlines()) for file in sources(tree))}")
    if tree == ROOT:
        torch = seconds("-c", "import torch")
        print(f"import torch                {torch:.2f} s")
        for words in (["--help"], ["store", "extract", "--help"], *START_UPS):
            took = seconds("-m", "sslk.cli", *words)
            print(f"sslk {' '.join(words[:2]):<35} {took:.2f} s, {took / torch:.2f} x")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT)
