"""Names that are no UTF-8, cells that a spreadsheet would run, masks that one command writes and another reads."""

import base64
import csv
import json
import os
from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import Image

from sslk.cli import main
from sslk.cli.config_file import ConfigFileError, option_lines
from sslk.data import load_dataset
from sslk.data.source import DataSource
from sslk.features import FeatureStore, StoreError
from sslk.files.tables import read_records, read_rows, write_rows
from sslk.interpret.by_name import data_and_masks
from sslk.interpret.settings import MaskSettings
from sslk.masked import build_masks, segmenter
from sslk.quality.score import QScores
from sslk.quality.scores_file import write_scores
from sslk.report.page import _csv, render_page
from sslk.results.run import Run, RunTable
from sslk.reverse.study import read_accuracies
from tests.fuzz.mutate import YAMLS
from tests.probes.stores import write_store

NAMES = ["=HYPERLINK(1)", "+x", "-x", "@x", "\tx", "'=x", "''-x", "'tis", "plain", "a=b", "é", ""]


def test_text_that_a_spreadsheet_would_run_comes_back_as_it_was(tmp_path):
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as stream:
        write_rows(stream, [["=name", "n"], *([name, -0.5] for name in NAMES)])
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as stream:
        raw = list(csv.reader(stream))
    assert not [row for row in raw if row[0][:1] in tuple("=+-@\t")]
    assert {row[1] for row in raw[1:]} == {"-0.5"}  # numbers stay numbers
    assert read_rows(tmp_path / "t.csv", "it") == [["=name", "n"], *([name, "-0.5"] for name in NAMES)]


def test_image_names_in_scores_are_no_formulas(tmp_path):
    store = write_store(tmp_path / "s", torch.ones(2, 4), torch.tensor([0, 1]))
    scores = QScores(*[torch.tensor([-0.5, 0.25])] * len(QScores.__dataclass_fields__))
    write_scores(store, scores, tmp_path / "scores.csv", lambda index: f"=cmd|{index}")
    assert "\n0,'=cmd|0,0,-0.5" in (tmp_path / "scores.csv").read_text().replace("\r", "")
    records = read_records(tmp_path / "scores.csv", "it", ("image", "qscore"))
    assert records[0]["image"] == "=cmd|0" and records[0]["qscore"] == "-0.5"


def test_tables_on_a_page_download_without_formulas():
    data = _csv(RunTable("T", ["class", "n"], [["=1+1", -2.5]]))
    assert base64.b64decode(data.partition(",")[2]).decode().splitlines() == ["class,n", "'=1+1,-2.5"]


def test_model_names_in_a_table_of_accuracies_come_back(tmp_path):
    (tmp_path / "a.csv").write_text("model,top1\n'-best,70.5\n")
    assert read_accuracies(str(tmp_path / "a.csv")) == {"-best": 70.5}


ODD = os.fsdecode(b"odd-\xff")


@pytest.fixture
def odd(tmp_path):
    """A folder whose name is no UTF-8, where the file system takes such names."""
    try:
        (tmp_path / ODD).mkdir()
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system takes UTF-8 only")
    return tmp_path / ODD


def test_images_whose_names_are_no_utf8_are_read(tmp_path, odd):
    Image.new("RGB", (4, 4)).save(odd / "a.png")
    with pytest.warns(UserWarning, match="1 of 1 classes holds a single image: odd-"):
        dataset = load_dataset(f"folder:{tmp_path}")
    assert dataset.classes == [ODD] and os.fsencode(dataset.image_name(0)).endswith(b"/odd-\xff/a.png")


def test_stores_and_runs_in_a_folder_whose_name_is_no_utf8(odd, capsys):
    with pytest.raises(StoreError, match="must have a name in UTF-8"):  # before any work
        write_store(odd / "s", torch.ones(3, 4), torch.tensor([0, 1, 2]))
    assert not (odd / "s").exists()
    write_store(odd.parent / "s", torch.ones(3, 4), torch.tensor([0, 1, 2]), names=("a", ODD))
    assert FeatureStore(odd.parent / "s").spec.classes == ("a", ODD)
    (odd.parent / "s").rename(odd / "s")
    with pytest.raises(StoreError, match="names in UTF-8 only"):
        FeatureStore(odd / "s").load()
    Run("probe", "P", [f"In {odd}."], {"out": str(odd)}).save(odd)
    assert Run.load(odd).provenance["out"].endswith("odd-\\udcff")
    assert "odd-" in render_page([odd])
    assert main(["store", "info", str(odd / "s")]) == 0
    assert main(["store", "info", str(odd / "none")]) == 1
    said = capsys.readouterr()
    assert "codec" not in said.out + said.err and "odd-" in said.err


@pytest.mark.parametrize("text", YAMLS, ids=range(len(YAMLS)))
def test_every_strange_file_of_options_ends_in_a_sentence(tmp_path, capsys, text):
    (tmp_path / "options.yaml").write_text(text)
    status = main(["store", "info", "--config", str(tmp_path / "options.yaml")])
    assert status in (1, 2) and "Traceback" not in capsys.readouterr().err
    with suppress(ConfigFileError):  # whose words the fuzzer looks at
        option_lines(str(tmp_path / "options.yaml"), {"store", "json"})


def test_masks_that_were_built_are_read_by_miou(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(4))
    (tmp_path / "files").mkdir()
    for number in range(4):
        Image.fromarray(np.eye(8, k=number, dtype=np.uint8) * 255).save(tmp_path / f"files/{number}.png")
    dataset = load_dataset(f"npz:{tmp_path / 'a.npz'}")
    build_masks(dataset, segmenter(f"files:{tmp_path / 'files'}"), tmp_path / "m", indices=[1, 3])
    _, source = data_and_masks(DataSource(dataset.name), MaskSettings(f"folder:{tmp_path / 'm'}"))
    assert source.kinds == ("core", "spurious") and source(0, 8, 8) == {}
    np.testing.assert_array_equal(source(3, 8, 8)["core"], np.eye(8, k=3, dtype=bool))
    np.testing.assert_array_equal(source(3, 8, 8)["spurious"], ~np.eye(8, k=3, dtype=bool))
    np.savez(tmp_path / "b.npz", images=images, labels=np.arange(4))
    with pytest.raises(ValueError, match=r"/m holds masks of npz:.*a\.npz, not of npz:.*b\.npz"):
        data_and_masks(DataSource(f"npz:{tmp_path / 'b.npz'}"), MaskSettings(f"folder:{tmp_path / 'm'}"))
    manifest = json.loads((tmp_path / "m/masks.json").read_text())
    (tmp_path / "m/masks.json").write_text(json.dumps({**manifest, "indices": [1, 2**62]}))
    with pytest.raises(ValueError, match="of other images"):
        data_and_masks(DataSource(dataset.name), MaskSettings(f"folder:{tmp_path / 'm'}"))


@pytest.mark.parametrize(
    "command",
    [
        ["qscore", "discover", "s"],
        ["qscore", "score", "s", "--discriminative", "d"],
        ["concepts", "classify", "s"],
        ["concepts", "build", "--data", "sample", "--experts", "labels"],
        ["concepts", "merge", "t"],
        ["masked", "preview", "m", "--data", "sample"],
        ["report", "page", "r"],
    ],
)
def test_a_folder_as_the_file_to_write_is_refused_before_any_work(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--out", "."]) == 1
    assert "out must be the name of a file, got the folder '.'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_folders_to_write_may_be_the_one_at_hand(tmp_path, monkeypatch):
    write_store(tmp_path / "s", torch.ones(3, 4), torch.tensor([0, 1, 2]))
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    assert main(["store", "export", str(tmp_path / "s"), "--out", "."]) == 0
    assert sorted(os.listdir()) == ["features.npy", "indices.npy", "labels.npy", "manifest.csv"]
