"""A study's results without its features and without its machine's paths: all that the page is made of, for the repository."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from examples.reproduce.results import STUDY
from sslk.evaluation.run import STATE
from sslk.results.run import RESULTS

CURVES = "curves"  # in a study's folder, where `curves.py --out` may put its run
CURVES_FILES = (f"{CURVES}.svg", f"{CURVES}.csv")
_THEN = (1980, 1, 1, 0, 0, 0)  # the same results give the same bytes
_FOLDERS = re.compile(r"(?<![\w.])/(?:[\w.+-]+/)+")  # of an absolute path


def pack_results(folder: Path, file: Path) -> None:
    """Write the results of all runs below a study's folder, its state and the curves of pre-training into one zip.

    Args:
        folder: of the study.
        file: the zip; it is replaced.
    """
    drawn = [path for name in CURVES_FILES if (path := folder / CURVES / name).is_file()]
    found = sorted([*drawn, *(path for name in (STUDY, STATE, RESULTS) for path in folder.rglob(name))])
    temporary = file.with_suffix(".tmp")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in found:
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _THEN)
            archive.writestr(entry, path.read_bytes() if path.name in CURVES_FILES else _told(path), zipfile.ZIP_DEFLATED)
    temporary.replace(file)


def _told(path: Path) -> str:
    """A file's text with files by their names alone; of a study's state, how every step ended and how long it took."""
    text = path.read_text(encoding="utf-8")
    if path.name == STATE:
        state = json.loads(text)
        kept = {name: {key: step[key] for key in ("state", "seconds")} for name, step in state["steps"].items()}
        text = json.dumps({**state, "steps": kept}, indent=1)
    return _FOLDERS.sub("", text)


@contextmanager
def study_folder(source: Path) -> Iterator[Path]:
    """A study's folder, or for the time of the context that of a zip which `pack_results` wrote.

    Raises:
        ValueError: the file is no such zip.
    """
    if not source.is_file():
        yield source
        return
    with TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(source) as archive:
                archive.extractall(folder)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{source} is no zip of results ({error}).") from None
        yield Path(folder)
