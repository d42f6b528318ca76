"""One damaged `results.json` is left out and named; the report of the good run beside it comes out."""

import copy
import json
import os

import pytest

from sslk.cli import main
from sslk.report.collect import load_runs
from sslk.report.page import render_page
from sslk.results.run import RESULTS
from tests.report.runs import make_run

WRONG = [None, [], {}, 7, -1e308, 10**400, True, "text", ["text"], [None], [[1]], [{"a": 1}], {"a": {"b": [1]}}, "\0", ["\0"]]
WHERE = """kind title findings provenance summary tables figures format summary.auroc findings.0 tables.0 tables.0.title
    tables.0.columns tables.0.rows tables.0.rows.0 tables.0.rows.0.0 tables.0.paper figures.0 figures.0.title figures.0.file
    figures.0.alt figures.0.data""".split()  # noqa: SIM905


@pytest.fixture
def pair(tmp_path):
    """A good run, and one to damage with its content."""
    good, bad = make_run(tmp_path / "good"), make_run(tmp_path / "bad")
    return good, bad, json.loads((bad / RESULTS).read_text())


def report(good, bad):
    """Both on one page: the good run is there; the bad one too, or why it is left out, which comes back."""
    page = render_page([good, bad])
    assert "Probe of good" in page
    _, problems = load_runs([good, bad])
    assert ("Left out: " in page) == bool(problems)
    assert all("\n" not in problem and RESULTS in problem for problem in problems)
    return "".join(problems)


def write_damaged(bad, content, where, change):
    """`change` the place `where` in the content, given its container and key."""
    damaged = copy.deepcopy(content)
    *path, last = [int(key) if key.isdigit() else key for key in where.split(".")]
    inner = damaged
    for key in path:
        inner = inner[key]
    change(inner, last)
    (bad / RESULTS).write_text(json.dumps(damaged))


@pytest.mark.parametrize("where", WHERE)
def test_values_of_the_wrong_type(pair, where):
    good, bad, content = pair
    refused = 0
    for wrong in WRONG:
        write_damaged(bad, content, where, lambda inner, key, wrong=wrong: inner.__setitem__(key, wrong))
        refused += bool(report(good, bad))
    write_damaged(bad, content, where, lambda inner, key: inner.__delitem__(key))
    report(good, bad)
    assert refused >= 3


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"\xff\xfe{}",
        b"\0",
        b"null",
        b'{"format": "sslk-run-1", "title": "\\ud800"}',
        b'{"format": "sslk-run-1", "provenance": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}",
    ],
    ids=["empty", "cut", "deep list", "utf-16", "nul", "null", "surrogate", "deep"],
)
def test_files_that_are_no_results(pair, text):
    good, bad, _ = pair
    (bad / RESULTS).write_bytes(text)
    assert report(good, bad)


def test_results_that_are_no_file(pair):
    good, bad, _ = pair
    (bad / RESULTS).unlink()
    os.mkfifo(bad / RESULTS)
    assert "must be a regular file" in report(good, bad)


@pytest.mark.parametrize("file", ["../good/results.json", "/etc/passwd", "curve.svg/../../good/results.json"])
def test_figures_outside_the_run_are_not_read(pair, file):
    good, bad, content = pair
    content["figures"][0]["file"] = file
    (bad / RESULTS).write_text(json.dumps(content))
    assert "and was not read" in render_page([good, bad]) or "could not be read" in render_page([good, bad])


def test_a_row_without_every_column_is_not_compared(pair, capsys):
    _, bad, content = pair
    content["tables"] = [{"title": "T", "columns": ["method", "imagenet1k_top1"], "rows": [["simclr"]], "paper": "qscore_table1"}]
    (bad / RESULTS).write_text(json.dumps(content))
    assert main(["report", "compare", str(bad), "--paper", "qscore_table1"]) == 1
    assert "does not have its 2 columns" in capsys.readouterr().err


def test_a_huge_or_endless_figure_is_not_read(pair):
    good, bad, content = pair
    figure = bad / content["figures"][0]["file"]
    figure.unlink()
    with figure.open("wb") as stream:
        stream.truncate(3 << 30)  # sparse
    assert f"{figure.name} (3221.2 MB) is too large for this page" in render_page([good, bad])
    figure.unlink()
    os.mkfifo(figure)
    assert f"{figure.name} is no regular file and was not read" in render_page([good, bad])
