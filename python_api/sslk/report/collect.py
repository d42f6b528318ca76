"""Finished runs read from their folders, and put side by side where their numbers may be compared."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sslk.results.run import RESULTS, Run, RunError, RunTable

# Settings that decide what a number is about: runs that differ here are never put into one table.
_DATA = {"data", "dataset", "datasets", "data_sets", "split", "train", "test", "samples", "concepts", "masks"}
# Settings that name the thing compared, or say nothing about the numbers.
_IDENTITY = {
    "model",
    "models",
    "weights",
    "weights_hash",
    "checkpoint",
    "encoder",
    "store",
    "stores",
    "out",
    "output",
    "command",
    "date",
    "machine",
    "seconds",
    "gpu",
    "device",
    "workers",
    "quiet",
    "json",
}
_DEEPEST = 4  # how far below a given folder runs are looked for


@dataclass(frozen=True)
class LoadedRun:
    """A run with the folder it was read from and a short name that is unique in the report."""

    name: str
    folder: Path
    run: Run


@dataclass(frozen=True)
class Group:
    """Runs of one protocol on the same data, which may stand in one table.

    Attributes:
        kind: the protocol.
        runs: in the order given.
        differing: settings (other than the model's) in which the runs differ: name and one value per run.
    """

    kind: str
    runs: list[LoadedRun]
    differing: list[tuple[str, list[str]]] = field(default_factory=list)


def find_runs(folders: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Run folders among `folders`, and below those that are no run themselves, each once, in the order given."""
    found: dict[Path, None] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise RunError(f"{folder} is no folder: give the folder that a command wrote with --out.")
        if (folder / RESULTS).exists():
            found[folder] = None
            continue
        below = [path for depth in range(1, _DEEPEST + 1) for path in folder.glob("*/" * depth + RESULTS)]
        for path in sorted(below):
            found[path.parent] = None
    return list(found)


def load_runs(folders: Sequence[Path]) -> tuple[list[LoadedRun], list[str]]:
    """Read the runs; those that cannot be read are left out and come back as sentences."""
    runs, problems = [], []
    for folder, name in zip(folders, _short_names(folders), strict=True):
        try:
            runs.append(LoadedRun(name, folder, Run.load(folder)))
        except RunError as error:
            problems.append(f"Left out: {error}")
    return runs, problems


def group_runs(runs: Sequence[LoadedRun]) -> tuple[list[Group], list[str]]:
    """Runs by protocol and data, and a sentence for every protocol whose runs are on different data."""
    groups: dict[str, dict[str, list[LoadedRun]]] = {}
    for loaded in runs:
        settings = _settings(loaded.run)
        data = {key: value for key, value in settings.items() if key.rpartition(".")[2] in _DATA}
        groups.setdefault(_protocol(loaded.run), {}).setdefault(json.dumps(data, sort_keys=True), []).append(loaded)
    made, notes = [], []
    for kind, by_data in groups.items():
        made += [Group(kind, members, _differing(members)) for members in by_data.values()]
        if len(by_data) > 1:
            parts = "; ".join(f"{', '.join(r.name for r in members)}: {data}" for data, members in by_data.items())
            notes.append(f"The {kind} runs are on different data and are not put into one table ({parts.replace(chr(34), '')}).")
    return made, notes


def _protocol(run: Run) -> str:
    """What a run is a run of: its kind, and where it stands in an evaluation which study of that kind."""
    study = run.title.partition(": ")[2] if run.kind in ("qscore", "probe") else ""
    return f"{run.kind}, {study[0].lower()}{study[1:]}" if study else run.kind


def summaries(group: Group) -> RunTable:
    """The headline numbers of every run of a group, one row a run."""
    names = list(dict.fromkeys(key for loaded in group.runs for key in loaded.run.summary))
    rows = [[loaded.name, *(loaded.run.summary.get(name) for name in names)] for loaded in group.runs]
    return RunTable(f"Headline numbers: {group.kind}", ["run", *(name.replace("_", " ") for name in names)], rows)


def merged_tables(group: Group, most_rows: int = 400) -> list[RunTable]:
    """Tables that every run of a group has under one title and with the same columns, with the run as first column."""
    if len(group.runs) < 2:
        return []
    merged = []
    for table in group.runs[0].run.tables:
        same = [
            (loaded.name, other)
            for loaded in group.runs
            for other in loaded.run.tables
            if (other.title, other.columns) == (table.title, table.columns)
        ]
        rows = [[name, *row] for name, other in same for row in other.rows]
        if len(same) == len(group.runs) and len(rows) <= most_rows and not table.fold:
            merged.append(RunTable(table.title, ["run", *table.columns], rows, table.paper))
    return merged


def _short_names(folders: Sequence[Path]) -> list[str]:
    """The fewest last parts of each path that make the names unique."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return names if folders else []


def _settings(run: Run) -> dict[str, str]:
    """Provenance with nested settings as dotted names, values as text."""
    flat: dict[str, str] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), item)
        else:
            flat[prefix] = value if isinstance(value, str) else json.dumps(value)

    walk("", run.provenance)
    return flat


def _differing(runs: Sequence[LoadedRun]) -> list[tuple[str, list[str]]]:
    settings = [_settings(loaded.run) for loaded in runs]
    names = dict.fromkeys(name for values in settings for name in values)
    return [
        (name, [values.get(name, "not said") for values in settings])
        for name in names
        if name.rpartition(".")[2] not in _IDENTITY and len({values.get(name) for values in settings}) > 1
    ]
