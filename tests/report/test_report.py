"""The page of runs: what it says, what it keeps apart, what it refuses to show, and how large it gets."""

import contextlib
import json
import re
import socket
import threading
import time
import urllib.request
from html.parser import HTMLParser

import pytest

from sslk.cli import main
from sslk.report.collect import find_runs, group_runs, load_runs, merged_tables
from sslk.report.page import render_page, write_page
from sslk.report.watch import serve, unfinished
from sslk.results.run import RunError, RunFigure, RunTable
from tests.report.runs import make_run

HOSTILE = '"><img src=x onerror=alert(1)></script><script>alert(2)</script>{{ 7 * 7 }}'


class Elements(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def test_findings_numbers_figures_and_provenance_are_on_the_page(tmp_path):
    page = render_page([make_run(tmp_path / "simclr", top1=71.26)])
    for text in ("Top-1 is 71.3 %", "71.26", "Learning curve", "curve.csv", "sslk probe", "&#34;epochs&#34;: 100"):
        assert text in page
    assert page.count("data:image/svg+xml;base64,") == 1 and page.count("data:text/csv;base64,") == 1


def test_names_from_data_are_escaped(tmp_path):
    table = RunTable(HOSTILE, [HOSTILE], [[HOSTILE]])
    make_run(
        tmp_path / "a",
        title=HOSTILE,
        findings=[HOSTILE],
        summary={HOSTILE: HOSTILE},
        tables=[table],
        provenance={HOSTILE: {HOSTILE: HOSTILE}},
    )
    figure = RunFigure(HOSTILE, "curve.svg", HOSTILE, "curve.csv")
    make_run(tmp_path / "b", figures=[figure])
    elements = Elements(render_page([tmp_path / "a", tmp_path / "b"], title=HOSTILE))
    assert [tag for tag, _ in elements.found].count("script") == 1
    assert not any(name.startswith("on") for _, attributes in elements.found for name in attributes)
    assert all(attributes["src"].startswith("data:") for tag, attributes in elements.found if tag == "img")
    assert any(attributes.get("alt") == HOSTILE for _, attributes in elements.found)


def test_a_figure_outside_its_run_is_not_read(tmp_path):
    (tmp_path / "secret.csv").write_text("secret")
    make_run(tmp_path / "a", figures=[RunFigure("f", "../secret.csv", "alt", "missing.csv")])
    page = render_page([tmp_path / "a"])
    assert "lies outside the run" in page and "missing.csv could not be read" in page and "c2VjcmV0" not in page


def test_runs_on_the_same_data_stand_side_by_side(tmp_path):
    folders = [make_run(tmp_path / name, top1=value) for name, value in (("simclr", 70.0), ("swav", 64.5))]
    (group,), notes = group_runs(load_runs(folders)[0])
    assert not notes and group.differing == []
    (table,) = merged_tables(group)
    assert table.columns[0] == "run" and [row[0] for row in table.rows] == ["simclr"] * 4 + ["swav"] * 4
    page = render_page(folders)
    assert 'aria-label="top1 percent: simclr 70, swav 64.5"' in page and "Side by side: probe" in page


def test_runs_on_other_data_are_said_and_not_mixed(tmp_path):
    folders = [make_run(tmp_path / name, data=data) for name, data in (("a", "cifar10"), ("b", "stl10"))]
    groups, (note,) = group_runs(load_runs(folders)[0])
    assert len(groups) == 2 and "cifar10" in note and "stl10" in note and "not put into one table" in note
    page = render_page(folders)
    assert "not put into one table" in page and "Side by side" not in page


def test_settings_that_differ_are_listed(tmp_path):
    folders = [make_run(tmp_path / "a"), make_run(tmp_path / "b", provenance={"data": "cifar10", "seed": 1})]
    (group,), _ = group_runs(load_runs(folders)[0])
    assert ("seed", ["0", "1"]) in group.differing and "Settings in which these runs differ" in render_page(folders)


def test_the_papers_numbers_stand_beside(tmp_path, monkeypatch):
    tables = tmp_path / "package" / "paper_tables"
    tables.mkdir(parents=True)
    (tables / "qscore_table1.csv").write_text("model,baseline,qscore\nSimCLR,78.64,80.79\n")
    monkeypatch.setattr("sslk.report.paper.files", lambda package: tmp_path / "package")
    for name in ("qscore_table1", "table1", "qscore_table1.csv"):
        make_run(tmp_path / "a", tables=[RunTable("Mine", ["model", "qscore"], [["x", 1.0]], paper=name)])
        page = render_page([tmp_path / "a"])
        assert "qscore_table1.csv" in page and "80.79" in page
    make_run(tmp_path / "a", tables=[RunTable("Mine", ["model"], [["x"]], paper="unknown")])
    assert "80.79" not in render_page([tmp_path / "a"])


def test_damaged_and_missing_runs_are_said(tmp_path):
    good = make_run(tmp_path / "all" / "good")
    for name, content in (("torn", '{"format": '), ("other", "{}"), ("half", '{"format": "sslk-run-1", "kind": "probe"}')):
        (tmp_path / "all" / name).mkdir()
        (tmp_path / "all" / name / "results.json").write_text(content)
    assert find_runs([tmp_path / "all"])[0] == good
    page = render_page(find_runs([tmp_path / "all"]))
    assert page.count("Left out: ") == 3 and "Probe of good" in page
    with pytest.raises(RunError, match="nowhere is no folder"):
        find_runs([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no finished run was found"):
        render_page(find_runs([tmp_path / "empty"]))


def test_long_tables_are_cut_and_downloadable(tmp_path):
    make_run(tmp_path / "a", tables=[RunTable("Long", ["i"], [[i] for i in range(1000)])])
    page = render_page([tmp_path / "a"])
    assert "700 more rows" in page and page.count("<tr>") < 320


def test_ragged_and_empty_tables_do_not_cost_the_page(tmp_path):
    tables = [RunTable("Ragged", ["a", "b"], [[1], [2, 3, 4]]), RunTable("Empty", ["a"], []), RunTable("Bare", [], [])]
    page = render_page([make_run(tmp_path / "a", tables=tables)])
    assert "Ragged" in page and "Empty" in page and "Bare" in page


def test_what_does_not_fit_stays_in_its_folder(tmp_path):
    make_run(tmp_path / "a")
    page = render_page([tmp_path / "a"], max_megabytes=0.001)
    assert "is too large for this page" in page and "Left out for the size of the page" in page
    assert "data:image/svg" not in page


def test_eight_models_take_under_eight_megabytes(tmp_path):
    folders = [make_run(tmp_path / f"model-{i}", top1=60.0 + i) for i in range(8)]
    assert len(render_page(folders).encode()) < 8e6


def test_a_failed_write_leaves_the_old_page(tmp_path, monkeypatch):
    target = tmp_path / "report.html"
    write_page(target, "old")

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_page(target, "new")
    assert target.read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_command(tmp_path, capsys):
    make_run(tmp_path / "a")
    assert main(["report", "page", str(tmp_path / "a"), "--out", str(tmp_path / "deep" / "page.html"), "--title", "Mine"]) == 0
    assert "<title>Mine</title>" in (tmp_path / "deep" / "page.html").read_text()
    assert main(["report", "page", str(tmp_path / "nowhere")]) == 1
    assert "nowhere is no folder" in capsys.readouterr().err


def get(address: str, host: str | None = None) -> tuple[int, str]:
    request = urllib.request.Request(address, headers={"Host": host} if host else {})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def test_watch_shows_a_run_when_it_finishes(tmp_path):
    started, stop, address = threading.Event(), threading.Event(), []

    def on_start(where: str) -> None:
        address.append(where)
        started.set()

    folder = tmp_path / "going"
    server = threading.Thread(target=serve, args=([folder], None, 0, on_start, stop), daemon=True)
    server.start()
    assert started.wait(10)
    before = get(address[0] + "version")
    assert "nothing written yet" in get(address[0])[1]
    folder.mkdir()
    (folder / "checkpoint.pt").write_text("x")
    assert "checkpoint.pt was written" in get(address[0])[1] and get(address[0] + "version") == before
    make_run(folder)
    page = get(address[0])[1]
    assert "Probe of going" in page and "data-watch" in page and get(address[0] + "version") != before
    assert get(address[0] + "results.json")[0] == 404  # nothing but the page is served
    assert get(address[0], host="evil.example:80")[0] == 403
    assert unfinished([folder]) == []
    stop.set()
    server.join(10)
    assert not server.is_alive()


def test_a_port_that_does_not_exist(tmp_path, capsys):
    assert main(["report", "watch", str(tmp_path), "--port", "99999"]) == 1
    assert capsys.readouterr().err == "sslk report watch: port must lie between 0 and 65535, got 99999.\n"


def test_slow_clients_do_not_take_a_thread_each(tmp_path, monkeypatch):
    monkeypatch.setattr("sslk.report.watch._MOST_CLIENTS", 4)
    started, stop, address = threading.Event(), threading.Event(), []
    server = threading.Thread(
        target=serve, args=([tmp_path], None, 0, lambda a: (address.append(a), started.set()), stop), daemon=True
    )
    server.start()
    assert started.wait(10)
    port = int(address[0].rstrip("/").rpartition(":")[2])
    before = threading.active_count()
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
    time.sleep(0.5)
    assert threading.active_count() <= before + 4
    for client in slow:
        client.close()
    end = time.monotonic() + 60
    while True:  # a place is free again once its thread has seen that the client is gone
        with contextlib.suppress(OSError):
            assert get(address[0] + "version")[0] == 200
            break
        assert time.monotonic() < end
    stop.set()
    server.join(10)


def test_the_only_script_is_the_one_the_policy_names(tmp_path):
    import base64
    import hashlib

    page = render_page([make_run(tmp_path / "a")])
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL).group(1)
    assert f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}" in page.replace("&#43;", "+")
    assert json.loads((tmp_path / "a" / "results.json").read_text())["format"] == "sslk-run-1"
