"""What every command does with an imported pair of stores: its work, or a refusal that says why; the documented lines run."""

import csv
import shlex

import numpy as np
import pytest

from sslk.cli import main
from tests.documented import documented_commands

RNG = np.random.default_rng(0)
CENTRES = 0.4 * RNG.standard_normal((5, 64))
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with features, labels and names as a user has them, for two networks, and a concept table."""
    folder = tmp_path_factory.mktemp("mine")
    for split, count in (("train", 400), ("test", 200)):
        labels = RNG.integers(0, 5, count)
        features = (CENTRES[labels] + RNG.standard_normal((count, 64))).astype(np.float32)
        names = [f"{split}/{row}.png" for row in range(count)]
        (folder / f"{split}-names.txt").write_text("\n".join(names))
        np.save(folder / f"{split}.npy", features)
        np.save(folder / f"{split}-labels.npy", labels)
        np.savez(folder / f"{split}.npz", features=features, labels=labels, names=np.array(names))
        np.save(folder / f"{split}-after.npy", features + 0.5 * CENTRES[labels].astype(np.float32))
    np.savez(folder / "concepts.npz", matrix=np.eye(5, dtype=np.uint8)[labels], names=np.array([f"c:{i}" for i in range(5)]))
    return folder


def run(line, capsys=None):
    """The status of a command, and what it said."""
    capsys and capsys.readouterr()
    status = main(shlex.split(line))
    return status, " ".join(capsys.readouterr().err.split()) if capsys else ""


def test_documented_lines_run(place, monkeypatch):
    monkeypatch.chdir(place)
    lines = [line for file, line in documented_commands() if file == "docs/features.md" and "mine" in line]
    assert len(lines) == 5
    for line in lines:
        assert run(line.removeprefix("sslk "))[0] == 0, line
    with open(place / "runs" / "mine-scores.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    labels = np.load(place / "test-labels.npy")
    assert [(row["image"], int(row["label"])) for row in rows] == [(f"test/{i}.png", label) for i, label in enumerate(labels)]


@pytest.fixture(scope="module")
def stores(place):
    """Both networks' stores, and the runs that others need."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for split in ("train", "test"):
            beside = f"--labels {split}-labels.npy --names {split}-names.txt --data toy/{split} --quiet"
            assert run(f"store import {split}.npy {beside} --model mine --shard-rows 90 --out {split}")[0] == 0
            assert run(f"store import {split}-after.npy {beside} --model later --out {split}-after")[0] == 0
        for after in ("", "-after"):
            line = f"probe linear --train train{after} --test test{after} --out linear{after} --epochs 3 --quiet"
            assert run(line)[0] == 0
        assert run("qscore discover train --out set.st --eps 2 --quiet")[0] == 0
    return place


WORKS = {
    "info": "store info test --json",
    "verify": "store verify test",
    "merge": "store merge train test --out merged",
    "export": "store export test --format npz --out exported",
    "knn": "probe knn --train train --test test --neighbors 5 --out knn --quiet",
    "kfold": "probe kfold test --folds 3 --l2 1e-2 --out kfold --quiet",
    "score": "qscore score test --discriminative set.st --quiet",
    "failure": "qscore failure test --train train --outputs linear --eps 2 --out failure --resamples 50 --quiet",
    "sides": "qscore sides test --train train --outputs linear --eps 2 --out sides --resamples 50 --quiet",
    "thresholds": "qscore thresholds --train train --test test --outputs linear --bands 50-95 --out thresholds --quiet",
    "compression": "qscore compression --train train --test test --eps 2 --seeds 2 --reductions 0 50 --l2 1e-2 "
    "--out compression --quiet",
    "before-after": "qscore before-after --before test --after test-after --before-outputs linear --after-outputs linear-after "
    "--discriminative set.st --out change --resamples 50",
    "reverse": "reverse study a=test b=test-after --concepts concepts.npz --ks 4 --kmeans.clusters 4 --probe.epochs 3 "
    "--out ranking --quiet",
    "reverse labels": "reverse study test --experiment labels --concepts concepts.npz --out labels --probe.epochs 3 --quiet",
}


@pytest.mark.parametrize("name", WORKS)
def test_works_without_images(stores, monkeypatch, capsys, name):
    monkeypatch.chdir(stores)
    status, said = run(WORKS[name], capsys)
    assert status == 0, said


NO_IMAGES = "test was imported and has no images, which are needed here"
REFUSED = {
    "qscore score test --discriminative set.st --data sample --quiet": NO_IMAGES,
    "interpret atlas test --model embedded --data sample --discriminative set.st --out a": NO_IMAGES,
    "interpret gallery --kind classes --store test --model embedded --data sample --discriminative set.st --out g": NO_IMAGES,
    "interpret gallery --kind pca --store test --model embedded --data sample --out g": NO_IMAGES,
    "reverse study test --out p --experiment pairs --group c --data sample --concepts concepts.npz": NO_IMAGES,
    "interpret heatmaps --model embedded --data sample --discriminative set.st --out h": "imported features of 'mine'",
    "probe head test --model embedded --out h": "",
    "concepts classify test --model embedded --out c.st": "",
    "probe linear --train train --test test-after --out bad": "of another model",
    "qscore score test-after --discriminative set.st": "belongs to another model",
    "qscore score missing --discriminative set.st": "not a feature store",
}


@pytest.mark.parametrize("line", REFUSED)
def test_refused_in_one_sentence(stores, monkeypatch, capsys, line):
    monkeypatch.chdir(stores)
    status, said = run(line, capsys)
    assert status == 1 and REFUSED[line] in said and "Traceback" not in said


def test_unlabelled_store_says_how_it_gets_labels(stores, monkeypatch, capsys):
    monkeypatch.chdir(stores)
    assert run("store import test.npy --out bare --quiet")[0] == 0
    status, said = run("probe kfold bare --out k", capsys)
    assert status == 1 and "bare has no labels, which are needed here: import it with labels" in said


def test_import_says_what_it_guessed(stores, monkeypatch):
    monkeypatch.chdir(stores)
    with pytest.warns(UserWarning, match="taken for") as said:
        assert run("store import test.npz --out guessed --quiet")[0] == 0
    assert {str(warning.message) for warning in said} == {
        f"test.npz[{key}] is taken for the {key}." for key in ("labels", "names", "features")
    }
