"""The study as a user runs it: steps, subset, controls, resumption, and a page whose numbers are those of the runs."""

import json
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from examples.reproduce import study as command
from examples.reproduce.archive import study_folder
from examples.reproduce.config import StudyConfig
from examples.reproduce.controls import supervised_control, untrained
from examples.reproduce.curves_run import Curve, curves_run
from examples.reproduce.elsewhere import present, write_splits
from examples.reproduce.encoders import METHODS, controls, find_encoders, missing_methods
from examples.reproduce.page import write_page
from examples.reproduce.reverse import ATTRIBUTES
from examples.reproduce.steps import make_steps
from examples.reproduce.subset import CIFAR10_CLASSES, write_subset
from sslk.concepts import ClassAttributes
from sslk.models import load_backbone
from sslk.results.run import Run
from tests.reproduce import synthetic as made

# The whole study in miniature: every step, on as little as each takes.
SMALL = {
    "--train-images": 200,
    "--test-images": 100,
    "--supervised-epochs": 1,
    "--masked-images": 60,
    "--clusters": (5, 7),
    "--clusterings": 2,
    "--kmeans-iterations": 3,
    "--concept-epochs": 2,
    "--no-imagenet-concepts": (),
    "--reductions": (0, 40),
    "--random-draws": 2,
    "--resamples": 20,
    **made.SMALL_PARTS,
}

ONLY = ["--only", "simclr-embedded", "untrained"]


def words(**places):
    """The command's arguments: places by name, and the small sizes."""
    options = {f"--{name.replace('_', '-')}": value for name, value in places.items()} | SMALL
    return [str(part) for name, value in options.items() for part in (name, *(value if isinstance(value, tuple) else (value,)))]


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 10
    # Brightness tells the classes apart, so that a few steps with labels can learn something.
    images = (labels[:, None, None, None] * 25 + rng.integers(0, 20, (400, 32, 32, 3))).astype(np.uint8)
    mixed = rng.permutation(400)[:120]  # so that a probe is wrong on some, and every class keeps its size
    labels[mixed] = labels[rng.permutation(mixed)]
    np.savez(tmp_path / "cifar10_train.npz", images=images, labels=labels)
    np.savez(tmp_path / "cifar10_test.npz", images=images, labels=labels)
    return tmp_path


def test_a_subset_is_balanced_and_belongs_to_its_seed(data):
    source = str(data / "cifar10_train.npz")
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_subset(source, str(data / f"{name}.npz"), 50, seed)
    a, b, c = (np.load(data / f"{name}.npz") for name in "abc")
    assert np.bincount(a["labels"]).tolist() == [5] * 10
    assert (a["source_index"] == b["source_index"]).all()
    assert not (a["source_index"] == c["source_index"]).all()
    assert (a["images"] == np.load(source)["images"][a["source_index"]]).all()
    assert tuple(a["classes"]) == CIFAR10_CLASSES
    write_subset(source, str(data / "e.npz"), 100, 0, skip=50)
    e = np.load(data / "e.npz")
    assert np.bincount(e["labels"]).tolist() == [10] * 10 and not set(e["source_index"]) & set(a["source_index"])
    with pytest.raises(ValueError, match="multiples of the 10 classes, got 55"):
        write_subset(source, str(data / "d.npz"), 55, 0)
    with pytest.raises(ValueError, match="has 40 images of class 0, 50 are needed"):
        write_subset(source, str(data / "d.npz"), 500, 0)


def test_controls_are_read_as_encoders_and_labels_teach(data):
    supervised_control(str(data / "cifar10_train.npz"), str(data / "s.safetensors"), epochs=3)
    untrained(str(data / "u.safetensors"), seed=3)
    untrained(str(data / "v.safetensors"), seed=3)
    found = [load_backbone("cifar:compact", data / f"{name}.safetensors") for name in "suv"]
    assert [backbone.checkpoint.share_matched for backbone in found] == [1.0, 1.0, 1.0]
    assert found[0].weights_hash != found[1].weights_hash == found[2].weights_hash
    assert found[0].net.stem[1].running_mean.abs().max() > 0  # it was trained
    assert torch.equal(found[1].net.stem[1].running_mean, torch.zeros(16))


def test_every_class_has_attributes():
    assert len(ClassAttributes(ATTRIBUTES, CIFAR10_CLASSES).names) == 12


def test_encoders_of_a_folder_join_the_embedded_one(tmp_path):
    untrained_file = tmp_path / "byol" / "model.safetensors"
    untrained(str(untrained_file))
    found = find_encoders(tmp_path)
    assert [encoder.name for encoder in found] == ["simclr-embedded", "byol"]
    assert missing_methods(found) == [method for method in METHODS if method not in ("simclr", "byol")]
    untrained_file.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is damaged"):
        find_encoders(tmp_path)
    with pytest.raises(ValueError, match="holds no METHOD"):
        find_encoders(tmp_path / "byol")


def test_steps_come_after_those_they_need(tmp_path):
    zips = dict.fromkeys(("tiny-imagenet", "camvid"), tmp_path)
    packaged = find_encoders(None)
    steps = make_steps(packaged + controls(tmp_path, packaged), [tmp_path, tmp_path], zips, tmp_path, StudyConfig())
    seen = set()
    for step in steps:
        assert set(step.needs) <= seen, step.name
        assert step.name not in seen
        seen.add(step.name)
    assert {"untrained/transfer", "untrained/agreement"} <= seen
    without = make_steps(find_encoders(None), [tmp_path, tmp_path], {}, tmp_path, StudyConfig())
    assert not {step.name for step in without} & {"data/camvid", "simclr-embedded/transfer", "simclr-embedded/agreement"}


def test_splits_of_other_data_sets_share_no_image(tmp_path):
    made.write_zips(tmp_path)
    for name, source in present(tmp_path).items():
        write_splits(name, str(source), str(tmp_path / name), seed=0)
    train, test = (np.load(tmp_path / f"tiny-imagenet-{role}.npz") for role in ("train", "test"))
    assert np.bincount(train["labels"]).tolist() == [8, 8] and np.bincount(test["labels"]).tolist() == [2, 2]
    assert not {image.tobytes() for image in train["images"]} & {image.tobytes() for image in test["images"]}
    train, test = (np.load(tmp_path / f"camvid-{role}.npz") for role in ("train", "test"))
    # Four scenes train and two are tested; the sky is the upper half of each, 24 of 48 crops, a road the lower.
    assert np.bincount(train["labels"]).tolist() == [96, 96] and np.bincount(test["labels"]).tolist() == [48, 48]
    assert list(train["classes"]) == ["sky", "road"]
    assert set(test["images"][:, 0, 0, 0].tolist()) == {4, 5} and set(train["images"][:, 0, 0, 0].tolist()) == {0, 1, 2, 3}


def test_the_command_lists_its_steps_and_refuses_what_does_not_fit(data, capsys):
    assert command.main([*words(data=data, out=data / "run"), "--steps"]) == 0
    steps = capsys.readouterr().out.splitlines()
    assert sum("simclr-embedded/linear" in line for line in steps) == 1 and all(line.startswith("open") for line in steps)
    for places, said in (
        ({"data": data / "none"}, "--data needs cifar10_train.npz"),
        ({"out": data / "run"}, "--data and --out are needed"),
        ({"data": data, "out": data / "run", "extra_data": data}, "--extra-data needs a zip"),
        ({"results": data}, "--page is needed"),
        ({"data": data, "only": "nobody"}, "only must name encoders of the study (simclr-embedded, "),
        ({"bad": 1}, "Unknown option"),
    ):
        assert command.main(words(**{"out": data / "run", **places})) == 2
        assert said in capsys.readouterr().err
    state = {"format": "sslk-evaluation-1", "about": {"seed": 7}, "steps": {}}
    (data / "other").mkdir()
    (data / "other" / "evaluation.json").write_text(json.dumps(state))
    assert command.main(words(data=data, out=data / "other")) == 2
    assert "seed 7, not 0" in capsys.readouterr().err


def test_the_whole_study_in_miniature(data, tmp_path, capsys):
    made.write_zips(data)
    given = words(data=data, extra_data=data, out=tmp_path / "run", page=tmp_path / "page", workers=1) + ONLY
    assert command.main(given) == 0, capsys.readouterr().err
    page = (tmp_path / "page/reproduction.md").read_text()
    for found in ONLY[1:]:
        top1 = Run.load(tmp_path / "run" / found / "linear").summary["top1"]
        assert f"| {found} |" in page and f"{100 * top1:.1f} [" in page
    told = Run.load(tmp_path / "run/untrained/compression")
    at_40 = dict(zip(told.tables[0].columns, told.tables[0].rows[1], strict=True))
    for _, other, value, low, high in told.tables[1].rows:
        if other != "all features":
            assert value == pytest.approx(at_40["discriminative top-1 [%]"] - at_40[f"{other} top-1 [%]"])
        assert low <= value <= high
    for title in ("Verdicts", "Feature subsets", "Transfer", "Heatmaps on objects", "Reverse probing", "Cost"):
        assert title in page
    assert not (tmp_path / "run/untrained/masked/features").exists()  # what no page reads goes
    capsys.readouterr()
    assert command.main(given) == 0
    assert "[" not in capsys.readouterr().out  # no step is announced: all are done
    # From the results alone, without images or features, the same page comes out.
    shutil.rmtree(tmp_path / "run")
    results = tmp_path / "page/reproduction/results.zip"
    before = results.read_bytes()
    with zipfile.ZipFile(results) as archive:
        told = "".join(archive.read(name).decode() for name in archive.namelist())
    assert "npz:tiny-imagenet-train.npz" in told and str(tmp_path) not in told + page and str(data) not in told + page
    assert command.main(["--results", str(results), "--page", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again/reproduction.md").read_text() == page
    assert (tmp_path / "again/reproduction/results.zip").read_bytes() == before


def test_the_page_shows_the_numbers_of_the_runs(tmp_path):
    runs = {
        "linear": replace(made.probe(0.7123), provenance={**made.PROVENANCE, "data": "npz:/home/me/data/a.npz"}),
        "failure": made.failure(0.6321),
        "masked": made.masked(),
        "compression": made.compression(70.0, discriminative=69.5),
        "reverse": made.reverse(all=[0.41, 0.43]),
        "transfer": made.transfer(31.4),
        "agreement": made.agreement(),
    }
    whole = made.study((made.encoder(name="simclr-embedded"), runs), (made.encoder("untrained"), runs))
    made.save(whole, tmp_path / "run")
    made.save(made.study((made.encoder(name="simclr-embedded"), {"linear": made.probe(0.9)}), seed=1), tmp_path / "second")
    hits = torch.arange(200) < 140
    curves_run([Curve("byol", 10, {9: hits & (torch.arange(200) > 40), 10: hits})], 90).save(tmp_path / "run/curves")
    page = write_page(tmp_path / "run", tmp_path / "docs", tmp_path / "second").read_text()
    assert "71.2 [69.2, 73.2]" in page and "0.632 [0.612, 0.652]" in page and "0.420" in page
    assert "31.4 [30.4, 32.4]" in page and "+1.50 [+1.00, +2.00]" not in page and "| 69.50 | -0.50 [-1.00, +0.00] |" in page
    assert page.index("## Verdicts") < page.index("## Encoders")
    assert "**Missing:** 7 of the eight methods (swav, moco" in page
    assert "0 of 1 numbers have overlapping" in page
    with study_folder(tmp_path / "docs/reproduction/results.zip") as folder:
        again = write_page(folder, tmp_path / "again", tmp_path / "second").read_text()
        assert again == page and "/home/me/" not in (folder / "untrained/linear/results.json").read_text()
    verdicts = {v["key"]: v["state"] for v in json.loads((tmp_path / "docs/reproduction/verdicts.json").read_text())}
    assert verdicts["q-auroc"] == "holds" and verdicts["q-supervised"] == "not tested"
    assert "* BYOL: 70.0 % [63.3, 75.9] after 10 of 10 epochs; still rising: +20.50 points [" in page
    assert page.index("## Encoders") < page.index("reproduction/curves.svg") < page.index("## The claims one by one")
    for name in ("curves.csv", "curves.svg"):
        drawn = [(tmp_path / place / name).read_bytes() for place in ("run/curves", "docs/reproduction", "again/reproduction")]
        assert drawn[0] == drawn[1] == drawn[2] and len(drawn[0]) > 20
    for name in ("compression", "cka", "failure", "curves"):
        assert (tmp_path / f"docs/reproduction/{name}.svg").stat().st_size > 1000
        assert f"reproduction/{name}.svg" in page
