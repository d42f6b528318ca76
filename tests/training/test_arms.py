"""Arms chosen by as many trials each: what is trained on what, what is chosen, killed and resumed, and the numbers told."""

import json
import os
import signal
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from sslk.cli import main
from sslk.data import load_dataset
from sslk.models import as_backbone
from sslk.results.run import Run
from sslk.training import arms as pieces
from sslk.training.arms import Arms, ArmTrial, best, planned_trials
from sslk.training.arms_study import arms_study
from sslk.training.checkpoints import NonFiniteError
from sslk.training.samples import ArmSamples
from sslk.training.settings import ARM_VARIANTS, OPEN_VARIANTS, PAPER_VARIANTS, ArmSearch, Variant, variants_by_name
from sslk.training.start import TrainingStart
from tests.training.small import OPTIONS, small_config, small_encoder

SEARCH = ArmSearch(trials=2, epochs=1, seeds=(0, 1), resamples=100)
CONFIG = small_config(epochs=2, checkpoint_every=2, log_every=5)


def parts():
    images = load_dataset("sample", "train").subset(torch.arange(0, 2000, 25))
    test = load_dataset("sample", "test").subset(torch.arange(0, 1000, 10))
    return TrainingStart("simsiam", as_backbone(small_encoder()), {}, images, options=OPTIONS["simsiam"]), test


def study(out, **changes):
    start, test = parts()
    settings = {"search": SEARCH, "variants": ARM_VARIANTS, "config": CONFIG} | changes
    return arms_study(start, out, settings["config"], settings["search"], test=test, variants=settings["variants"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("arms") / "whole"
    return out, study(out)


def table(run, title):
    found = next(table for table in run.tables if table.title.startswith(title))
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def finals(out):
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("final/*/*.safetensors"))}


def test_every_arm_has_as_many_trials_and_the_best_is_trained(whole):
    out, run = whole
    trials = table(run, "All trials")
    assert [row["arm"] for row in trials] == ["baseline"] * 2 + ["lasso"] * 2 + ["qscore"] * 2
    assert {row["learning rate"] for row in trials} == {1e-5, 1.0}
    assert all(row["lambda1"] is row["lambda2"] is row["lasso"] is None for row in trials if row["arm"] == "baseline")
    chosen = {row["arm"]: row for row in table(run, "Chosen settings")}
    for arm in ("baseline", "lasso", "qscore"):
        mine = [row for row in trials if row["arm"] == arm]
        winner = max(mine, key=lambda row: (row["validation top-1 [%]"], -row["trial"]))
        assert all(chosen[arm][name] == winner[name] for name in ("learning rate", "lambda1", "lambda2", "lasso"))
    assert len(finals(out)) == 2 * 4 and {path.name for path in (out / "trained").iterdir()} == {
        "before",
        "discriminative.safetensors",
        "start.safetensors",
    }
    assert (out / "trials" / "lasso" / "1.json").exists() and (run.files.keys() == {"trials.csv", "runs.csv", "differences.csv"})


def test_numbers_are_those_of_the_samples(whole):
    out, run = whole
    rows = {(row["arm"], row["seed"]): row for row in table(run, "Every run")}
    found = {key: ArmSamples.load(out / "final" / key[0] / f"{key[1]}.safetensors") for key in rows}
    for key, row in rows.items():
        s = found[key]
        assert row["probe top-1 [%]"] == pytest.approx(100 * s.correct.float().mean().item())
        assert row["Q-Score AUROC"] == pytest.approx(roc_auc_score(s.correct, s.scores))
        assert row["mean Q"] == pytest.approx(s.scores.mean().item(), rel=1e-5)
    differences = {(row["arm"], row["reference"], row["quantity"]): row for row in table(run, "Differences")}
    assert {key[:2] for key in differences} == {
        ("lasso", "baseline"),
        ("qscore", "baseline"),
        ("qscore", "lasso"),
        ("baseline", "before"),
    }
    for (arm, reference, quantity), row in differences.items():
        if quantity == "probe top-1 [points]":
            changes = [
                100 * (found[arm, seed].correct.double() - found[reference, seed].correct.double()).mean() for seed in (0, 1)
            ]
            assert row["difference"] == pytest.approx(float(np.mean(changes)), abs=1e-9)
            assert row["low"] <= row["difference"] <= row["high"] and row["seeds"] == 2
    means = {row["arm"]: row for row in table(run, "Arms")}
    assert means["qscore"]["probe top-1 [%]"] == pytest.approx(
        np.mean([rows["qscore", seed]["probe top-1 [%]"] for seed in (0, 1)])
    )


def test_trials_see_no_test_image_and_train_on_none_that_judges(tmp_path, monkeypatch):
    """Every training and evaluation is recorded: which images train, which judge, by which probe."""
    seen, names = [], []
    original = pieces.evaluate_arm

    def recorded(backbone, data, test, out, found, log, **settings):
        names.append([{part.image_name(i) for i in range(len(part))} for part in (data, test)])
        seen.append((out.parent.name, data.fingerprint, test.fingerprint, settings.get("probe"), len(data), len(test)))
        return original(backbone, data, test, out, found, log, **settings)

    monkeypatch.setattr(pieces, "evaluate_arm", recorded)
    start, test = parts()
    arms_study(start, tmp_path, CONFIG, SEARCH, test=test, variants=ARM_VARIANTS[:1])
    searched = [entry for entry in seen if entry[0] == "search"]
    assert len(searched) == 2 and all(entry[2] != test.fingerprint and entry[3:] == ("logreg", 70, 10) for entry in searched)
    assert all(not train & judged for (train, judged), entry in zip(names, seen, strict=True) if entry[0] == "search")
    final = [entry for entry in seen if entry[0] == "trained"]
    assert {entry[1:3] for entry in final} == {(start.images.fingerprint, test.fingerprint)} and len(final) == 4


def test_validation_images_of_ones_own_judge_and_all_others_train(tmp_path, monkeypatch):
    seen = []
    prepared = []
    original, prepares = pieces.evaluate_arm, pieces.prepare

    def recorded(backbone, data, test, out, *others, **settings):
        seen.append((out.parent.name, data.fingerprint, test.fingerprint))
        return original(backbone, data, test, out, *others, **settings)

    def counted(start, *args):
        prepared.append(start.images.fingerprint)
        return prepares(start, *args)

    monkeypatch.setattr(pieces, "evaluate_arm", recorded)
    monkeypatch.setattr(pieces, "prepare", counted)
    start, test = parts()
    judges = load_dataset("sample", "train").subset(torch.arange(1, 2000, 40))
    call = partial(arms_study, start, tmp_path, CONFIG, SEARCH, test=test, variants=ARM_VARIANTS[:1])
    run = call(validation=judges)
    mine, judging, testing = start.images.fingerprint, judges.fingerprint, test.fingerprint
    assert set(seen) == {("search", mine, judging), ("trained", mine, testing)}
    assert prepared == [mine]  # all train on the same images, whose features and set are found once
    assert "2 trials of 1 epochs an arm on 50 validation images" in run.findings[0]
    with pytest.raises(ValueError, match="validation"):  # the pieces were chosen on other images
        call()
    for role, wrong in (("training", start.images), ("test", test)):
        with pytest.raises(ValueError, match=f"validation must be other images than the {role} images"):
            call(validation=wrong)


def run_study(out, log):
    torch.set_num_threads(1)
    start, test = parts()

    def told(done, total, stage):
        with open(log, "a") as file:
            file.write(f"{done}\n")

    arms_study(start, out, CONFIG, SEARCH, test=test, progress=told)


def test_killed_at_any_piece_it_goes_on_to_the_same_bytes(whole, tmp_path, spawn):
    """SIGKILL some moments after the first, fourth and ninth of fourteen pieces; the rest is done by the same call."""
    out, log = tmp_path / "killed", tmp_path / "log"
    for pause, after in ((0.1, 1), (0.3, 4), (0.2, 9)):
        log.unlink(missing_ok=True)
        child = spawn(target=run_study, args=(out, log))
        child.start()
        while (len(log.read_text().split()) if log.exists() else 0) < after and child.is_alive():
            time.sleep(0.005)
        time.sleep(pause)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
    run = study(out)
    assert finals(out) == finals(whole[0])
    assert [row for t in run.tables for row in t.rows] == [row for t in whole[1].tables for row in t.rows]


def test_finished_pieces_are_not_trained_again_and_variants_can_be_added(whole, monkeypatch):
    out, run = whole
    monkeypatch.setattr(Arms, "_train", lambda *unused: pytest.fail("a finished piece was trained again"))
    again = study(out)
    assert again.tables[1].rows == run.tables[1].rows
    monkeypatch.undo()
    more = study(out, variants=(*ARM_VARIANTS, PAPER_VARIANTS[0], replace(PAPER_VARIANTS[2], settings={"learning_rate": 0.1})))
    pairs = {(row["arm"], row["reference"]) for row in table(more, "Differences")}
    assert ("paper-qscore", "paper-baseline") in pairs and ("paper-qscore", "baseline") not in pairs
    with pytest.raises(ValueError, match=r"search\.trials = 2, this one has 3"):
        study(out, search=replace(SEARCH, trials=3))


def test_open_variants_run_with_their_own_sets(tmp_path):
    run = study(tmp_path, variants=(ARM_VARIANTS[0], *OPEN_VARIANTS[:3], replace(OPEN_VARIANTS[3], settings={"eps": 1.0})))
    chosen = {row["arm"] for row in table(run, "Chosen settings")}
    assert chosen == {"baseline", "qscore-quarter", "qscore-raw", "qscore-again", "qscore-eps4"}
    assert (tmp_path / "trained" / "discriminative-1.0.safetensors").exists()


def test_plan_is_a_latin_hypercube_with_the_papers_setting():
    search = ArmSearch(trials=7)
    plans = {variant.arm: planned_trials(variant, search) for variant in ARM_VARIANTS}
    assert plans["qscore"][0] == {"learning_rate": 1e-5, "lambda1": 1e-4, "lambda2": 1e-4}
    assert len({tuple(trial["learning_rate"] for trial in plan) for plan in plans.values()}) == 1  # the same for all arms
    for name in ("learning_rate", "lambda1", "lambda2"):
        values = sorted(trial[name] for trial in plans["qscore"][1:])
        steps = np.diff(np.log10(values))
        assert len(values) == 6 and np.allclose(steps, steps[0], atol=1e-3)
    assert planned_trials(ARM_VARIANTS[0], ArmSearch(trials=1)) == [{"learning_rate": 1e-5}]


def test_choice_takes_the_first_of_equals_and_no_diverged_one():
    made = [ArmTrial("a", n, {"learning_rate": 10.0**-n}, value) for n, value in enumerate([None, 0.5, 0.7, 0.7])]
    assert best(made, Variant("a", "baseline"))["learning_rate"] == 1e-2
    with pytest.raises(NonFiniteError, match="every trial of a diverged"):
        best(made[:1], Variant("a", "baseline"))


def test_a_trial_that_diverges_is_kept_as_such(tmp_path, monkeypatch):
    def diverges(self, *args):
        raise NonFiniteError("the loss is not finite")

    monkeypatch.setattr(Arms, "_train", diverges)
    start, test = parts()
    arms = Arms(start, tmp_path, CONFIG, SEARCH, test)
    assert arms.trial(ARM_VARIANTS[1], 1).accuracy is None
    assert json.loads((tmp_path / "trials" / "lasso" / "1.json").read_text())["accuracy"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": ARM_VARIANTS[1:]}, "variants must begin with the baseline arm"),
        ({"variants": (*ARM_VARIANTS, ARM_VARIANTS[1])}, "variants must have different names"),
        ({"search": replace(SEARCH, seeds=(3,))}, "seeds must be two at least"),
    ],
)
def test_comparisons_that_say_nothing_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        study(tmp_path, **changes)


def test_a_test_set_of_other_classes_is_refused(tmp_path):
    start, test = parts()
    test.classes = [f"other {name}" for name in test.classes]
    with pytest.raises(ValueError, match="test must share classes with the training images"):
        arms_study(start, tmp_path, CONFIG, SEARCH, test=test)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trials": 0}, "trials must be at least 1"),
        ({"lambda1": (0.0, 1.0)}, "lambda1 must be a lowest and a highest value above 0"),
        ({"seeds": (1, 1)}, "seeds must be different"),
        ({"validation_share": 1.0}, "validation_share must lie between 0 and 1"),
    ],
)
def test_settings_of_the_search_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        ArmSearch(**settings)
    with pytest.raises(ValueError, match="variants must be among paper and open, got 'none'"):
        variants_by_name(["none"])


def test_command_leaves_a_run_and_its_tables(tmp_path, capsys):
    search = ["--trials", "1", "--epochs", "1", "--seeds", "0", "1", "--resamples", "50"]
    training = {"epochs": 1, "batch_size": 64, "view_size": 16}
    words = ["train", "arms", "--method", "simclr", "--out", str(tmp_path / "run"), *search, "--quiet", "--variants", "paper"]
    words += [word for k, v in training.items() for word in (f"--training.{k}", str(v))]
    assert main([*words, "--validation-data", "sample", "--validation-split", "test"]) == 1
    assert "validation must be other images than the test images" in capsys.readouterr().err
    sample = load_dataset("sample", "test")
    for role, start, step in (("data", 0, 5), ("test-data", 1, 10), ("validation-data", 2, 50)):
        images, labels = zip(*(sample[i] for i in range(start, len(sample), step)), strict=True)
        path = tmp_path / f"{role}.npz"
        np.savez(path, images=np.stack(images), labels=np.array(labels), classes=sample.classes)
        words += [f"--{role}", f"npz:{path}"]
    assert main(words) == 0, capsys.readouterr().err
    run = Run.load(tmp_path / "run")
    assert {row["arm"] for row in table(run, "Every run")} >= {"before", "qscore", "paper-lasso"}
    assert (tmp_path / "run" / "trials.csv").read_text().startswith("arm,trial,learning rate")
