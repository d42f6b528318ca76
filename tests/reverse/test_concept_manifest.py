"""Concept tables from manifests: rows meet images by file, and reverse probing takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslk.cli import main
from sslk.concepts import ConceptError, ConceptTable, concepts_of_manifest
from sslk.data import load_dataset
from sslk.results.run import Run

pytestmark = pytest.mark.filterwarnings("ignore:the manifest")
COLORS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 photos in two class folders and a manifest of their colours, in another order."""
    folder = tmp_path_factory.mktemp("place")
    rows = []
    for k in range(40):
        bits = [k >> c & 1 for c in range(3)]
        name = f"photos/{'cat' if k % 3 else 'dog'}/{k:02d}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(k).integers(0, 120, (32, 32, 3)).astype(np.uint8)
        Image.fromarray(noise + 130 * np.array(bits, np.uint8)).save(folder / name)
        names = "|".join(color for color, bit in zip(COLORS, bits, strict=True) if bit) or "|"
        rows.append(f"{name},{names},{'train' if k < 30 else 'test'}\n")
    order = np.random.default_rng(0).permutation(40)
    (folder / "m.csv").write_text("file,label,split\n" + "".join(rows[k] for k in order))
    return folder


def expected(data) -> list[list[bool]]:
    """From the numbers in the files' names; columns in the order of the alphabet."""
    numbers = [int(Path(data.image_name(i)).stem) for i in range(len(data))]
    return [[bool(k >> COLORS.index(color) & 1) for color in sorted(COLORS)] for k in numbers]


@pytest.mark.parametrize("name", ["manifest", "folder"])
def test_rows_are_those_of_the_data_set(photos: Path, name: str) -> None:
    data = load_dataset(f"manifest:{photos}/m.csv", "train") if name == "manifest" else load_dataset(f"folder:{photos}/photos")
    table = concepts_of_manifest(photos / "m.csv", data)
    assert (len(table), table.names, table.group_sizes) == ({"manifest": 30, "folder": 40}[name], sorted(COLORS), {"concepts": 3})
    assert table.dense().tolist() == expected(data) and table.samples.tolist() == list(range(len(data)))
    assert table.about["fingerprint"] == data.fingerprint


def test_one_label_a_row(photos: Path, tmp_path: Path) -> None:
    data = load_dataset(f"folder:{photos}/photos").subset([3, 0, 39])
    files = [data.image_name(i) for i in range(3)]
    (tmp_path / "m.csv").write_text(f"file,label\n{files[2]},b\n{files[0]},a\n{files[1]},a\n")
    table = concepts_of_manifest(tmp_path / "m.csv", data)
    assert (table.names, table.group_sizes, table.dense().tolist()) == (["a", "b"], {"labels": 2}, [[1, 0], [1, 0], [0, 1]])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("file\n{0}\n{1}\n", "needs a column label"),
        ("file,label\n{0},a|b\n", "1 of 2 images of .* have no row in the manifest .*, the first is {1}"),
        ("file,label:a\n{0},1\n{1},\n", "1 of 2 images have an unknown label .*, the first is {1}; unknown='absent'"),
        ("file,label\n{0},a\n{1},\n", "1 of 2 images have an unknown label"),
        ("file,label\n{0},a\n{1},b\n{0},b\n", "labels {0} in two ways, in rows 1 and 3"),
    ],
)
def test_what_is_refused(photos: Path, tmp_path: Path, rows: str, message: str) -> None:
    data = load_dataset(f"folder:{photos}/photos").subset([0, 1])
    files = [data.image_name(i) for i in range(2)]
    (tmp_path / "m.csv").write_text(rows.format(*files))
    with pytest.raises(ConceptError, match=message.format(*files)):
        concepts_of_manifest(tmp_path / "m.csv", data)
    if "unknown" in message:
        table = concepts_of_manifest(tmp_path / "m.csv", data, unknown="absent")
        assert table.dense().tolist() == [[True], [False]] and table.about["unknown_taken_for_absent"] == 1


def test_import_and_reverse_probing(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, table, run = photos / "store", photos / "c.safetensors", photos / "run"
    data = f"--data manifest:{photos}/m.csv --split train"
    assert main(f"store extract --model embedded {data} --out {store} --workers 0 --quiet".split()) == 0
    assert main(f"concepts import {photos}/m.csv --split train --out {table}".split()) == 0
    assert "30 samples x 3 concepts" in capsys.readouterr().out
    assert ConceptTable.load(table).dense().tolist() == expected(load_dataset(f"manifest:{photos}/m.csv", "train"))
    few = "--kmeans.clusters 4 --kmeans.clusterings 1 --probe.epochs 5 --quiet"
    status = main(f"reverse study e={store} --concepts {table} {few} --out {run}".split())
    assert status == 0, capsys.readouterr().err
    assert Run.load(run).kind == "reverse"


PAGES = {
    "data.md": "## A manifest",
    "probes.md": "## Several labels an image",
    "howto/concepts.md": "## Concepts from a manifest",
}


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_commands_run(page: str, tmp_path: Path, monkeypatch, capsys) -> None:
    lines = ["file,label,split"]
    for split, count in (("train", 16), ("test", 8)):
        for k in range(count):
            name = f"photos/{split}/{'cat' if k % 2 else 'dog'}/{k}.png"
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.random.default_rng(k).integers(0, 256, (32, 32, 3)).astype(np.uint8)).save(tmp_path / name)
            label = ("cat" if k % 2 else "dog") if page == "data.md" else ("cat|a" if k % 2 else "dog|a" if k % 3 else "dog")
            lines.append(f"{name},{label},{split}")
    (tmp_path / "photos.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8").partition(PAGES[page])[2].partition("\n## ")[0]
    commands = [line.split()[1:] for line in text.splitlines() if line.startswith("sslk ")]
    assert commands
    for words in commands:
        assert main(words) == 0, capsys.readouterr().err
