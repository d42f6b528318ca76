"""The commit in a run's provenance is that of this package's own sources, or none."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sslk.results.provenance

SOURCE = Path(sslk.results.provenance.__file__)


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", *identity, "-C", folder, *words], capture_output=True, text=True, check=True).stdout


def repository(folder):
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "notes.txt").write_text("mine")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "mine")
    return folder


def commit_seen_from(packages):
    """What a copy of the module below `packages`/sslk says."""
    (packages / "sslk" / "results").mkdir(parents=True)
    shutil.copy(SOURCE, packages / "sslk" / "results" / "provenance.py")
    code = "import sys, runpy; print(runpy.run_path(sys.argv[1])['_commit']())"
    run = [sys.executable, "-c", code, packages / "sslk" / "results" / "provenance.py"]
    return subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("place", [".venv/lib/python3.11/site-packages", "python_api", "vendored/python_api"])
def test_no_commit_of_another_repository(tmp_path, place):
    assert commit_seen_from(repository(tmp_path / "project") / place) == "None"


def test_the_commit_of_its_own_tree(tmp_path):
    tree = repository(tmp_path / "ssl-kernels")
    (tree / "csrc").mkdir()
    (tree / "csrc" / "schemas.cpp").write_text("")
    sha = git(tree, "rev-parse", "--short=12", "HEAD").strip()
    assert commit_seen_from(tree / "python_api") == sha
    (tree / "notes.txt").write_text("changed")
    shutil.rmtree(tree / "python_api")
    assert commit_seen_from(tree / "python_api") == f"{sha} with uncommitted changes"


def test_it_takes_no_lock(tmp_path):
    tree = repository(tmp_path / "ssl-kernels")
    (tree / "csrc").mkdir()
    (tree / "csrc" / "schemas.cpp").write_text("")
    (tree / "notes.txt").touch()  # git would like to write down that the file is as it was
    index = (tree / ".git" / "index").stat().st_mtime_ns
    commit_seen_from(tree / "python_api")
    assert (tree / ".git" / "index").stat().st_mtime_ns == index
