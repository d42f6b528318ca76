"""Numbers of several runs: one line of JSON each, and models in order where they have the same number."""

import json
import math

import pytest

from sslk.cli import main
from sslk.report import find_runs, leaderboards, render_page, write_measures
from sslk.report.collect import load_runs
from sslk.results import Measure, Run, RunError
from tests.report.runs import make_run

FIRST = [
    Measure("cifar10:test", "simclr", "linear probe", "top-1 [%]", 71.5, 70.6, 72.4, 10_000),
    Measure("cifar10:test", "simclr", "label-free panel", "RankMe", 101.0),
    Measure("other", "simclr", "linear probe", "top-1 [%]", 99.0),
]
SECOND = [
    Measure("cifar10:test", "byol", "linear probe", "top-1 [%]", 75.0, 74.1, 75.8, 10_000),
    Measure("cifar10:test", "byol", "label-free panel", "RankMe", math.nan),
]


@pytest.fixture
def runs(tmp_path):
    make_run(tmp_path / "a", measures=FIRST)
    make_run(tmp_path / "b", measures=SECOND)
    return tmp_path


def test_models_stand_in_order_where_the_data_the_task_and_the_metric_are_one(runs):
    loaded, _ = load_runs(find_runs([runs]))
    (board,) = leaderboards(loaded)  # RankMe of one is not a number, the other data set has one model
    assert (board.data, board.task, board.metric) == ("cifar10:test", "linear probe", "top-1 [%]")
    assert [(name, measure.value) for name, measure in board.entries] == [("byol", 75.0), ("simclr", 71.5)]
    span = 75.8 - 70.6
    expected = [[100 * (x - 70.6) / span for x in ends] for ends in ((74.1, 75.0, 75.8), (70.6, 71.5, 72.4))]
    assert [pytest.approx(each) for each in expected] == [list(each) for each in board.spans()]


def test_a_model_that_two_runs_measured_is_named_with_the_run(tmp_path):
    for name, value in (("a", 1.0), ("b", 2.0)):
        make_run(tmp_path / name, measures=[Measure("d", "m", "t", "x", value), Measure("d", f"other {name}", "t", "x", 0.0)])
    (board,) = leaderboards(load_runs(find_runs([tmp_path]))[0])
    assert [name for name, _ in board.entries] == ["m (b)", "m (a)", "other a", "other b"]
    assert leaderboards(load_runs(find_runs([tmp_path / "a"]))[0])[0].spans() == [(100.0, 100.0, 100.0), (0.0, 0.0, 0.0)]


def test_every_number_is_one_line_of_json(runs):
    assert write_measures(runs / "all.jsonl", find_runs([runs])) == 5
    lines = [json.loads(line) for line in (runs / "all.jsonl").read_text().splitlines()]
    assert lines[0] == {**vars(FIRST[0]), "run": "a"}
    assert lines[4]["value"] is None and lines[4]["run"] == "b"
    keys = [(line["data"], line["model"], line["task"], line["metric"]) for line in lines]
    assert len(set(keys)) == 5


def test_the_page_draws_the_leaderboard_and_holds_every_number(runs):
    page = render_page(find_runs([runs]))
    assert 'id="leaderboard"' in page and "byol 75 [74.1, 75.8], simclr 71.5 [70.6, 72.4]" in page
    assert "Every number, with its 95 % interval" in page and page.count("<circle") == 2
    make_run(runs / "c")
    assert 'id="leaderboard"' not in render_page([runs / "c"])


def test_the_command_leaves_the_numbers_beside_the_page(runs, capsys):
    assert main(["report", "page", str(runs / "a"), str(runs / "b"), "--out", str(runs / "page.html")]) == 0
    assert "page.jsonl: 5 numbers" in capsys.readouterr().out
    assert len((runs / "page.jsonl").read_text().splitlines()) == 5
    assert main(["report", "page", str(runs), "--out", str(runs / "page.jsonl")]) == 1
    assert "out must be the name of the page" in capsys.readouterr().err


def test_measures_come_back_and_damaged_ones_are_refused(tmp_path):
    make_run(tmp_path, measures=FIRST)
    assert Run.load(tmp_path).measures == FIRST
    path = tmp_path / "results.json"
    whole = path.read_text()
    for damaged in ('"value": "high"', '"value": [1]'):
        path.write_text(whole.replace('"value": 71.5', damaged))
        with pytest.raises(RunError, match="measures"):
            Run.load(tmp_path)
    content = json.loads(whole)
    del content["measures"]  # of a version before them
    path.write_text(json.dumps(content))
    assert Run.load(tmp_path).measures == []
