"""What is bound to fail is told at planning, in one sentence and with a status other than 0, by dry run and run alike."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from sslk.cli import main
from sslk.evaluation import EvaluationSettings, make_plan
from sslk.evaluation.plan import labelled_models
from sslk.evaluation.run import Evaluation, Outcome, recorded
from tests.evaluation.damaged import write_photos


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Photographs with splits and classes, others without labels, and concept tables that fit and do not fit."""
    folder = tmp_path_factory.mktemp("plans")
    write_photos(folder / "photos", damaged=False)
    for split in ("train", "test"):
        (folder / "flat" / split).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (40, 40), (80 * number, 0, 0)).save(folder / "flat" / split / f"{number}.png")
    build = ["concepts", "build", "--data", f"folder:{folder}/photos", "--experts", "labels", "colour", "--quiet"]
    for split in ("train", "test"):
        assert main([*build, "--split", split, "--out", str(folder / f"{split}.concepts")]) == 0
    np.savez(folder / "short.npz", matrix=np.eye(3), names=["a", "b", "c"])
    (folder / "file").touch()
    return folder


MISTAKES = {
    "an unknown segmenter": (["--segmenter", "grabkut"], "did you mean 'grabcut'"),
    "a segmenter that the data cannot serve": (["--segmenter", "boxes"], "has no masks or boxes"),
    "mask files that are not there": (["--segmenter", "files:{0}/none"], "folder must be a folder of masks"),
    "no concept table": (["--concepts", "{0}/none"], "there is no concept table"),
    "concepts of other images": (["--concepts", "{0}/test.concepts"], "concepts must be of the images of folder:"),
    "concepts of fewer images": (["--concepts", "{0}/short.npz"], "a row for each of the 10 images"),
    "no clusters": (["--clusters", "0"], "clusters must be at least 1, got 0"),
    "more clusters than images": (["--concepts", "{0}/train.concepts", "--clusters", "11"], "must not exceed the 10 images"),
    "an unknown system": (["--systems", "qscor"], "qscor"),
    "a folder below a file": (["--out", "{0}/file/out"], "{0}/file is a file"),
    "an unknown data set": (["--data", "fodler:{0}/photos"], "unknown data set"),
    "an unknown split": (["--test-split", "val"], "has the splits test, train, got split='val'"),
    "no labels": (["--data", "folder:{0}/flat"], "no labels in train, which the probes of qscore need"),
    "no model": (["--image-size", "0"], "1 of 1 models cannot be evaluated: embedded"),
    "no such device": (["--device", "cuda:7"], "device='cuda:7' is not here"),
}


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.parametrize("dry", [["--dry-run"], ["--quiet"]])
def test_a_plan_that_cannot_be_carried_out_is_refused(place, tmp_path, capsys, name, dry):
    words, sentence = MISTAKES[name]
    given = {"--data": f"folder:{place}/photos", "--out": str(tmp_path / "out"), "--device": "cpu", "--workers": "0"}
    chosen = {**given, **dict(zip(words[::2], (word.format(place) for word in words[1::2]), strict=True))}
    assert main(["evaluate", "embedded", *(word for pair in chosen.items() for word in pair), *dry]) in (1, 2)
    *loaded, said = capsys.readouterr().err.strip().splitlines()
    assert sentence.format(place) in said and not loaded
    assert not (tmp_path / "out").exists()


def test_what_fits_is_planned_and_what_a_plan_lacks_is_noted(place, tmp_path, capsys):
    words = ["--out", str(tmp_path / "out"), "--device", "cpu", "--workers", "0", "--dry-run", "--json"]
    fitting = ["--data", f"folder:{place}/photos", "--concepts", f"{place}/train.concepts", "--clusters", "3"]
    assert main(["evaluate", "embedded", *fitting, *words]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [step["name"] for step in plan["steps"]][-2:] == ["reverse", "masked"] and plan["notes"] == []
    assert main(["evaluate", "embedded", "--data", f"folder:{place}/flat", "--no-probes", *words]) == 0
    names = [step["call"] for step in json.loads(capsys.readouterr().out)["steps"]]
    assert names == ["extract", "extract", "discover", "score", "masked"]
    assert main(["evaluate", "embedded", "--data", f"folder:{place}/photos/test", *words]) == 0
    assert "the same 10 images" in json.loads(capsys.readouterr().out)["notes"][0]


def test_a_class_with_one_image_leaves_out_the_masked_evaluation_alone(place, tmp_path, capsys):
    write_photos(tmp_path / "p", damaged=False)
    for file in sorted((tmp_path / "p" / "test" / "cat").iterdir())[1:]:
        file.unlink()
    words = ["--data", f"folder:{tmp_path}/p", "--systems", "masked", "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["evaluate", "embedded", *words, "--workers", "0", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["steps"][-1]["arguments"]["folds"] == 0 and "the class cat has one image in test" in plan["notes"][0]


def test_a_setting_that_came_later_leaves_a_done_step_done(tmp_path):
    """`recorded` of an older version lacks the settings that this one added."""
    plan = make_plan(labelled_models(["embedded"]), EvaluationSettings("sample"), tmp_path)
    step = next(step for step in plan if step.name == "embedded/extract train")
    step.output.mkdir(parents=True)
    arguments = recorded(step)
    del arguments["settings"]["on_corrupt"], arguments["settings"]["amp"]
    evaluation = Evaluation(tmp_path, plan, {})
    evaluation.outcomes[step.name] = Outcome("done", arguments)
    assert evaluation.is_done(step)
    evaluation.outcomes[step.name] = Outcome("done", {**arguments, "settings": {"amp": "bfloat16"}})
    assert not evaluation.is_done(step)


@pytest.mark.parametrize(
    "command",
    [
        "masked build --out {0}/m",
        "masked study embedded --out {0}/s",
        "concepts build --experts colour --out {0}/c",
        "interpret heatmaps --model embedded --discriminative {0}/none --out {0}/h",
        "interpret miou --model embedded --discriminative {0}/none --out {0}/h",
        "interpret atlas {0}/none --model embedded --discriminative {0}/none --out {0}/h",
        "interpret gallery --kind samples --model embedded --discriminative {0}/none --out {0}/h",
        "evaluate embedded --out {0}/e",
    ],
)
def test_a_device_that_is_not_here_is_told_first(tmp_path, capsys, command):
    words = [word.format(tmp_path) for word in command.split()]
    assert main([*words, "--data", "sample", "--device", "cuda:7"]) == 1
    said = capsys.readouterr().err.strip()
    assert "device='cuda:7' is not here" in said and "\n" not in said and not [*tmp_path.iterdir()]
