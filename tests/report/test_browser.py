"""The report in headless Chromium: no complaint, sorting by mouse and keyboard, links, downloads, phone width, dark."""

from pathlib import Path

import pytest

from sslk.report.page import render_page, write_page
from tests.report.chromium import CHROMIUM, Chromium
from tests.report.runs import make_run

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    runs = [make_run(folder / name, top1=value) for name, value in (("simclr", 70.0), ("swav", 64.5), ("byol", 72.25))]
    write_page(folder / "report.html", render_page([*runs, make_run(folder / "other", data="stl10")]))
    return (folder / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory, page):
    with Chromium(tmp_path_factory.mktemp("profile")) as opened:
        opened.open(page)
        yield opened


COLUMN = "[...document.querySelectorAll('#run-1 tbody tr')].map(r => r.cells[{}].textContent)"
BUTTON = "document.querySelectorAll('#run-1 thead button')[{}]"


def test_sorting(browser):
    browser.run(BUTTON.format(1) + ".click()")
    assert browser.run(COLUMN.format(1)) == ["7.0", "9.5", "70.0", "–"]  # by number, not by text; what is missing is last
    browser.run(BUTTON.format(1) + ".click()")
    assert browser.run(COLUMN.format(1)) == ["70.0", "9.5", "7.0", "–"]
    assert browser.run(BUTTON.format(1) + ".closest('th').ariaSort") == "descending"
    browser.run(BUTTON.format(0) + ".focus()")
    browser.press("Enter", 13, "\r")
    assert browser.run(COLUMN.format(0)) == ["cat", "dog", "frog", "ship"]
    assert browser.run(BUTTON.format(1) + ".closest('th').ariaSort") is None


def test_links_and_downloads(browser):
    targets = browser.run("[...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.getAttribute('href').slice(1))")
    assert len(targets) > 5 and all(browser.run(f"!!document.getElementById({target!r})") for target in targets)
    assert browser.run("document.querySelector('a.picture').href.startsWith('data:image/svg+xml')")
    assert browser.run("[...document.images].every(i => i.complete && i.naturalWidth > 100)")
    saved = browser.run(
        "new Promise(done => { const old = HTMLAnchorElement.prototype.click; HTMLAnchorElement.prototype.click = "
        "function () { HTMLAnchorElement.prototype.click = old; done([this.download, decodeURIComponent(this.href)]); };"
        "document.querySelector('#run-1 button.csv').click(); })"
    )
    assert saved[0] == "top-1-per-class.csv" and "cat,70" in saved[1]


def test_theme_and_contrast(browser, tmp_path_factory, page):
    ratio = (Path(__file__).parent / "contrast.js").read_text()
    assert browser.run(ratio) >= 4.5
    was = browser.run("getComputedStyle(document.body).backgroundColor")
    browser.run("document.getElementById('theme').click()")
    assert browser.run("getComputedStyle(document.body).backgroundColor") != was and browser.run(ratio) >= 4.5
    with Chromium(tmp_path_factory.mktemp("dark"), width=390, height=800, dark=True) as phone:
        phone.open(page)
        assert phone.run(ratio) >= 4.5
        assert phone.run("document.documentElement.scrollWidth <= innerWidth")  # tables scroll inside, the page does not
        assert not phone.complaints


def test_names_for_screen_readers(browser):
    assert browser.run("document.documentElement.lang") == "en" and browser.run("document.querySelectorAll('h1').length") == 1
    assert browser.run("[...document.images].every(i => i.alt.length > 5)")
    assert browser.run("[...document.querySelectorAll('svg')].every(s => s.getAttribute('aria-label').length > 5)")
    assert browser.run("[...document.querySelectorAll('table')].every(t => t.caption || t.parentNode.ariaLabel)")


def test_no_complaints(browser):
    assert browser.complaints == []
