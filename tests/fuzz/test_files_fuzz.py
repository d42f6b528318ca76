"""A bounded run of the file fuzzer, the same cases every time; `python -m tests.fuzz.files` runs others for as long as wanted."""

import json
import os
import time
from pathlib import Path
from zipfile import BadZipFile

import pytest

from tests.fuzz import files
from tests.fuzz.file_kinds import Kind
from tests.fuzz.mutate import mutations

BATCHES, BATCH = 4, 600
ALL_WAYS = max(len(mutations(Path(file))) for _, file in files.PAIRS) * len(files.PAIRS)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_damaged_files_are_read_right_or_named(batch):
    cases = range(batch * BATCH, (batch + 1) * BATCH)
    assert [said for _, said in files.failures(0, iter(cases)) if said] == []


def test_every_way_of_damage_is_tried_on_every_file():
    assert BATCHES * BATCH >= ALL_WAYS


NAMED = "a.txt is damaged."


@pytest.mark.parametrize(
    "error",
    [
        KeyError(NAMED),
        TypeError(NAMED),
        RecursionError(NAMED),
        MemoryError(NAMED),
        BadZipFile(NAMED),
        IndexError(NAMED),
        UnicodeDecodeError("utf-8", b"a.txt", 0, 1, NAMED),
        ValueError("it is damaged."),
        ValueError(f"{NAMED}\n{NAMED}"),
        ValueError(f"{NAMED}{'x' * 2000}"),
        ValueError(""),
        json.JSONDecodeError(NAMED, "", 0),
        SystemExit(NAMED),
    ],
    ids=repr,
)
def test_errors_that_are_not_the_packages_own_are_noticed(tmp_path, error):
    def read(folder):
        raise error

    assert files.failure_of(Kind("bad", print, ("a.txt",), read), tmp_path, "a.txt", None)


def test_sentences_that_name_the_file_and_right_values_pass(tmp_path):
    def refuse(folder):
        raise OSError(NAMED)

    assert files.failure_of(Kind("good", print, ("a.txt",), refuse), tmp_path, "a.txt", None) == ""
    exact = Kind("exact", print, ("a.txt",), lambda folder: 7, exact=True)
    assert files.failure_of(exact, tmp_path, "a.txt", 7) == ""
    assert files.failure_of(exact, tmp_path, "a.txt", 8) == "another value was read in silence"


def misbehave(connection):
    """A worker that hangs in case 0 and dies in case 1."""
    while (job := connection.recv()) is not None:
        if job[1] == 0:
            time.sleep(600)
        if job[1] == 1:
            os._exit(7)
        connection.send("")


def test_a_reader_that_hangs_or_crashes_is_noticed(monkeypatch):
    monkeypatch.setattr(files, "PATIENCE", 0.5)
    worker = files.Worker(misbehave)
    try:
        assert "still running" in worker.run(0, 0)
    finally:
        worker.close()
    monkeypatch.undo()
    try:
        assert worker.run(0, 1) == "died with status 7"
        assert worker.run(0, 2) == ""
    finally:
        worker.close()
