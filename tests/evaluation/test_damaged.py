"""Every command that decodes images leaves the unreadable ones out alike: what it finds is what it finds without them."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import sslk
from sslk.cli import main
from sslk.concepts import ConceptTable
from sslk.features import FeatureStore
from sslk.masked import Masks
from sslk.models.embedded import load_embedded, normalize_images
from sslk.results.run import Run, RunTable
from tests.evaluation.damaged import numbers, write_photos

SKIP = ["--on-corrupt", "skip"]
NAMES = ("a-text.png", "photo2a.jpg")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """`bad` and `good` photographs, a set S, and for both kinds the store of the test split, masks and concepts."""
    folder = tmp_path_factory.mktemp("damaged")
    encoder, _ = load_embedded()
    images, _ = sslk.data.sample.load_sample("test")
    with torch.inference_mode():
        sslk.discover(encoder(normalize_images(images[::4])), eps=2.5).save(folder / "set.safetensors")
    for kind in ("bad", "good"):
        data = ["--data", f"folder:{write_photos(folder / kind, damaged=kind == 'bad')}"]
        skip = SKIP if kind == "bad" else []
        store = ["--model", "embedded", "--device", "cpu", "--workers", "0", "--out", str(folder / f"{kind}-store")]
        assert main(["store", "extract", *data, *store, "--quiet", *skip]) == 0
        assert main(["masked", "build", *data, "--out", str(folder / f"{kind}-masks"), "--quiet", *skip]) == 0
        concepts = ["--experts", "labels", "colour", "--out", str(folder / f"{kind}-concepts"), "--quiet"]
        assert main(["concepts", "build", *data, *concepts, *skip]) == 0
    return folder


def commands(place, kind, out):
    """Every command on the photographs of a kind, by name, without --on-corrupt."""
    data = ["--data", f"folder:{place / kind}"]
    found = [*data, "--model", "embedded", "--discriminative", str(place / "set.safetensors")]
    shown = {"bad": ["0", "1", "9", "11"], "good": ["0", "9"]}[kind]
    probe = ["--extraction.model", "embedded", "--extraction.data", data[1], "--extraction.workers", "0"]
    small = ["--umap-share", "0", "--resamples", "9", "--folds", "2", "--k", "3", "--device", "cpu"]
    models = ["evaluate", "embedded", *data, "--device", "cpu", "--workers", "0", "--batch-size", "4"]
    return {
        "store extract": ["store", "extract", *data, "--model", "embedded", "--workers", "0", "--out", out, "--quiet"],
        "masked build": ["masked", "build", *data, "--out", out, "--quiet"],
        "masked study": ["masked", "study", "embedded", *data, "--out", out, *small, "--quiet"],
        "masked study without masks": [
            *["masked", "study", "embedded", *data, "--out", out, *small, "--quiet", "--variants", "original", "center", "border"]
        ],
        "concepts build": ["concepts", "build", *data, "--experts", "colour", "--out", out, "--quiet"],
        "probe linear": ["probe", "linear", *probe, "--epochs", "5", "--out", out, "--quiet"],
        "probe knn": ["probe", "knn", *probe, "--neighbors", "1", "3", "--out", out, "--quiet"],
        "interpret heatmaps": ["interpret", "heatmaps", *found, "--images", *shown, "--out", out],
        "interpret miou": [*["interpret", "miou", *found, "--masks", f"folder:{place / kind}-masks", "--out", out, "--quiet"]],
        "interpret atlas": [
            *["interpret", "atlas", f"{place / kind}-store", *found, "--concepts", f"{place / kind}-concepts"],
            *["--top", "3", "--tail-features", "1", "--out", out, "--quiet"],
        ],
        "interpret gallery classes": [
            *["interpret", "gallery", "--kind", "classes", *found, "--store", f"{place / kind}-store"],
            *["--labels", "0", "1", "--columns", "3", "--out", out],
        ],
        "interpret gallery samples": ["interpret", "gallery", "--kind", "samples", *found, "--columns", "12", "--out", out],
        "evaluate": [*models, "--systems", "qscore", *["masked"] * (kind == "bad"), "--out", out, "--quiet"],
    }


def option(name: str) -> list[str]:
    return ["--extraction.on-corrupt", "skip"] if name.startswith("probe") else SKIP


ON_STORES = ("interpret atlas", "interpret gallery classes")  # whose images were read once already


@pytest.mark.parametrize("name", [name for name in commands(Path(), "bad", "") if name not in ON_STORES])
def test_by_default_the_first_damaged_file_is_named_and_the_way_on(place, tmp_path, capsys, name):
    assert main(commands(place, "bad", str(tmp_path / "out"))[name]) == 1
    said = capsys.readouterr().err
    assert any(file in said for file in NAMES) and "`--on-corrupt skip` leaves such images out" in said
    assert not [*tmp_path.rglob("*.safetensors")], "nothing was computed before"


@pytest.mark.parametrize("name", [*commands(Path(), "bad", "")])
def test_skipping_finds_what_is_found_without_the_damaged_files(place, tmp_path, capsys, name):
    with_them, without = (commands(place, kind, str(tmp_path / kind))[name] for kind in ("bad", "good"))
    assert main(without) == 0
    capsys.readouterr()
    assert main([*with_them, *option(name)]) == 0
    said = capsys.readouterr()
    if name != "store extract":  # says nothing of the kind yet
        assert all(file in said.out + said.err for file in NAMES), said
    SAME[name.partition(" ")[0]](tmp_path / "bad", tmp_path / "good")


def same_store(bad, good):
    stores = [FeatureStore(path) for path in (bad, good)]
    rows = [store.load() for store in stores]
    assert rows[0].indices.tolist() == numbers() and rows[1].indices.tolist() == list(range(10))
    torch.testing.assert_close(rows[0].features, rows[1].features, rtol=1e-5, atol=1e-6)
    assert torch.equal(stores[0].labels(), stores[1].labels())


def same_run(bad, good):
    """Numbers, tables and findings, but for what is said about the files left out."""
    mine, other = (Run.load(path) for path in (bad, good))
    summary = dict(mine.summary)
    assert summary.pop("left_out", 2) in (2, 4)
    tables = [table for table in mine.tables if not table.title.startswith("Images left out")]
    findings = [text for text in mine.findings if not re.match(r"\d+ of \d+ images? cannot be read", text)]
    found, wanted = (summary, tables, findings), (dict(other.summary), other.tables, other.findings)
    for one, two in zip(*(list(_cells(value)) for value in (found, wanted)), strict=True):
        assert one == (pytest.approx(two, rel=1e-4, abs=1e-5, nan_ok=True) if isinstance(two, float) else two)


def _cells(value):
    """All numbers and texts of a run, in order; the two folders by one name."""
    if isinstance(value, RunTable):
        value = [value.title, value.columns, value.rows]
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _cells(part)
    else:
        yield value.replace("/bad", "/good") if isinstance(value, str) else value


def same_masks(bad, good):
    if not (bad / "masks.json").exists():
        same_run(bad, good)
        a, b = (FeatureStore(path / "features" / "embedded").load() for path in (bad, good))
        torch.testing.assert_close(a.features, b.features, rtol=1e-5, atol=1e-6)
        return
    mine, other = Masks(bad), Masks(good)
    assert mine.indices.tolist() == numbers() and mine.unreadable.tolist() == [0, 9]
    for k in range(10):
        np.testing.assert_array_equal(mine[k], other[k])


def same_concepts(bad, good):
    mine, other = ConceptTable.load(bad), ConceptTable.load(good)
    assert mine.samples.tolist() == numbers() and torch.equal(mine.dense(), other.dense())
    assert [number for number, _ in mine.about["left_out"]] == [0, 9]


def same_interpretation(bad, good):
    same_run(bad, good)
    if (bad / "heatmaps.safetensors").exists():
        mine, other = load_file(bad / "heatmaps.safetensors"), load_file(good / "heatmaps.safetensors")
        assert mine["images"].tolist() == [1, 11]
        torch.testing.assert_close(mine["combined"], other["combined"], rtol=1e-4, atol=1e-4)
    if (bad / "samples.csv").exists():
        rows = [list(csv.DictReader((path / "samples.csv").open())) for path in (bad, good)]
        assert [int(row["index"]) for row in rows[0]] == numbers()
        for mine, other in zip(*rows, strict=True):
            del mine["index"], other["index"]
            assert {key: float(value or "nan") for key, value in mine.items()} == pytest.approx(
                {key: float(value or "nan") for key, value in other.items()}, abs=1e-4, nan_ok=True
            )
    for picture in (good / "pictures").glob("*.jpg"):
        assert picture.read_bytes() == (bad / "pictures" / picture.name).read_bytes()


def same_evaluation(bad, good):
    run = Run.load(bad / "summary")
    assert run.summary["left_out"] == 4 and "4 of 24 images cannot be read and are left out" in run.findings[-1]
    table, other = run.tables[0], Run.load(good / "summary").tables[0]
    assert table.columns == [*other.columns, "CKA to the original"]  # the masked study is compared above
    assert [row[:-1] for row in table.rows] == other.rows and table.rows[0][-1]
    same_store(bad / "embedded" / "test", good / "embedded" / "test")
    assert (bad / "report.html").stat().st_size > 10_000


SAME = {
    "store": same_store,
    "masked": same_masks,
    "concepts": same_concepts,
    "probe": same_run,
    "interpret": same_interpretation,
    "evaluate": same_evaluation,
}


def test_further_training_leaves_them_out(place, tmp_path):
    """The arm that trains without them, in the same order, ends with the same weights."""
    weights = []
    for kind in ("bad", "good"):
        data = f"--data folder:{place / kind} --test-split none --out {tmp_path / kind}"  # of different sizes, too
        words = f"train finetune --method simclr --arms baseline {data}"
        few = "--training.epochs 1 --training.batch-size 4 --training.view-size 32 --quiet"
        assert main([*words.split(), *few.split(), *(SKIP if kind == "bad" else [])]) == 0
        weights.append(load_file(tmp_path / kind / "baseline" / "model.safetensors"))
    run = Run.load(tmp_path / "bad")
    assert run.summary["left_out"] == 2 and all(name in run.findings[-1] for name in NAMES)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


def test_layers_fail_early_and_leave_them_out(place, tmp_path, capsys):
    """What is true of one representation is true of several."""
    words = (
        f"store extract --model embedded --layer 2 3 --data folder:{place / 'bad'} --workers 0 --quiet --out {tmp_path}".split()
    )
    assert main(words) == 1
    assert "a-text.png cannot be read" in capsys.readouterr().err and not list(tmp_path.iterdir())
    assert main([*words, *SKIP]) == 0
    assert "2 of 12 images cannot be read and are left out" in capsys.readouterr().out
    for name in ("mean-of-stages.2", "mean-of-stages.3"):
        assert FeatureStore(tmp_path / name).load().indices.tolist() == numbers()
