"""Reads a study's folder: which encoders, at what cost, and the run of every protocol."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from examples.reproduce.config import StudyConfig
from examples.reproduce.encoders import StudyEncoder
from sslk.results.run import RESULTS, Run, RunTable

STUDY = "study.json"
PROTOCOLS = ("linear", "knn", "failure", "compression", "reverse", "masked", "transfer", "agreement", "arms", "gradients")


@dataclass(frozen=True)
class EncoderResults:
    """An encoder and the runs of its finished protocols, by name."""

    encoder: StudyEncoder
    runs: dict[str, Run]

    def number(self, protocol: str, name: str) -> float | None:
        """A number of a run's summary; None where the run or the number is missing."""
        run = self.runs.get(protocol)
        value = None if run is None else run.summary.get(name)
        return float(value) if isinstance(value, int | float) else None


@dataclass(frozen=True)
class Study:
    """Everything a claim is judged on.

    Attributes:
        encoders: with their runs.
        config: sizes and seeds.
        folder: where it lies; None where it was made up.
    """

    encoders: list[EncoderResults]
    config: StudyConfig
    folder: Path | None = None

    def of_kind(self, kind: str) -> list[EncoderResults]:
        """The encoders of a kind, in order."""
        return [found for found in self.encoders if found.encoder.kind == kind]


def describe(encoders: Sequence[StudyEncoder], config: StudyConfig) -> dict[str, Any]:
    """What `read_study` needs to know of a study besides its runs, as plain data."""
    return {"encoders": [asdict(encoder) for encoder in encoders], "config": config.as_dict()}


def read_study(folder: Path) -> Study:
    """The study in a folder, whatever of it is finished.

    Raises:
        ValueError: the folder holds no study.
    """
    path = folder / STUDY
    if not path.is_file():
        raise ValueError(f"{folder} holds no {STUDY}: it is no study of examples/reproduce/study.py.")
    content = json.loads(path.read_text())
    config = StudyConfig.from_dict(content["config"])
    results = []
    for fields in content["encoders"]:
        encoder = StudyEncoder(**fields)
        runs = {
            name: Run.load(folder / encoder.name / name)
            for name in PROTOCOLS
            if (folder / encoder.name / name / RESULTS).is_file()
        }
        results.append(EncoderResults(encoder, runs))
    return Study(results, config, folder)


def table(run: Run, title: str) -> RunTable:
    """The table whose title starts so.

    Raises:
        KeyError: there is none.
    """
    for found in run.tables:
        if found.title.startswith(title):
            return found
    raise KeyError(f"{run.title!r} has no table {title!r}, only {[found.title for found in run.tables]}.")


def records(found: RunTable) -> list[dict[str, Any]]:
    """The rows of a table by column."""
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]
