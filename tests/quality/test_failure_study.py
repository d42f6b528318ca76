"""The study and its command with every option, on small stores."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

import sslk
from sslk.cli import main
from sslk.data.sample import load_sample
from sslk.probes import linear_probe
from sslk.quality import FailureSettings, FailureSources, failure_study, neighbour_answers, view_variance
from sslk.quality.settings import BootstrapSettings, DiscoverSettings
from sslk.quality.views import ViewSource
from sslk.results.run import Run
from sslk.statistics.selective import MEASURES
from tests.probes.stores import features, write_store

LABEL_FREE = ["Q-Score", "feature norm", "max feature", "k-NN distance", "Mahalanobis", "neighbourhood consistency"]
LABEL_FREE += ["variance over views"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Training and test samples under two models, a second view of the test images, a probe's run, and scores of others."""
    out = tmp_path_factory.mktemp("failure")
    generator = torch.Generator().manual_seed(0)
    turn = torch.randn(48, 24, generator=generator)
    for name, seed in (("train", 0), ("test", 1)):
        x, y = features(300, seed=seed)
        write_store(out / name, x, y, dataset=name)
        write_store(out / f"{name}-2", torch.relu(x @ turn), y, model="n", weights="2" * 64, dataset=name)
        write_store(out / f"{name}-view", torch.relu(x + 0.2 * torch.randn(x.shape, generator=generator)), y, dataset=name)
    write_store(out / "part-2", x[:200], y[:200], model="n", weights="2" * 64)
    assert (
        main(
            [
                "probe",
                "linear",
                "--train",
                f"{out}/train",
                "--test",
                f"{out}/test",
                "--epochs",
                "3",
                "--out",
                f"{out}/linear",
                "--quiet",
            ]
        )
        == 0
    )
    np.savez(out / "mine.npz", mine=np.random.default_rng(0).normal(size=300))
    (out / "theirs.csv").write_text("index,theirs\n" + "".join(f"{i},{-i}\n" for i in reversed(range(300))))
    return out


def cells(run, title):
    table = next(table for table in run.tables if table.title.startswith(title))
    return {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}


@pytest.fixture(scope="module")
def whole(folder):
    """Every option at once, by the command."""
    words = ["qscore", "failure", f"{folder}/test", "--train", f"{folder}/train", "--outputs", f"{folder}/linear", "--eps", "1.5"]
    words += ["--resamples", "60", "--answers", "probe", "neighbours", "--others", f"{folder}/test-2", "--others-train"]
    words += [f"{folder}/train-2", "--views", f"{folder}/test-view", "--scores", f"{folder}/mine.npz", f"{folder}/theirs.csv"]
    words += ["--neighbors", "5", "--shared-neighbors", "20", "--folds", "3", "--out", f"{folder}/run", "--quiet"]
    assert main(words) == 0
    return Run.load(folder / "run")


def test_every_score_is_in_every_table_figure_and_measure(folder, whole):
    using = ["confidence", "entropy", "energy", "Mahalanobis, class-wise"]
    names = {*LABEL_FREE, *using, "mine", "theirs"}
    areas = cells(whole, "Predicting which samples are classified correctly")
    assert set(areas) == {*names, "random (trivial)"} == set(cells(whole, "Selective classification"))
    assert {name: row["uses labels"] for name, row in areas.items() if name in names} == (
        dict.fromkeys(LABEL_FREE, "no") | dict.fromkeys(using, "yes") | {"mine": "unknown", "theirs": "unknown"}
    )
    assert set(cells(whole, "Differences in pairs")) == names - {"Q-Score"}
    assert set(cells(whole, "Predicting that the nearest neighbour")) == {*names, "random (trivial)"} - {
        "confidence",
        "entropy",
        "energy",
    }
    for file in ("failure-curves", "risk-coverage", "auroc-intervals"):
        assert (folder / "run" / f"{file}.svg").stat().st_size > 1000
        text = (folder / "run" / f"{file}.csv").read_text()
        assert all(name in text for name in names)
    tasks = {(m.task, m.metric): m for m in whole.measures}
    assert {
        (f"failure prediction by {n}", f"{r}{m}")
        for n in names - {"confidence", "entropy", "energy"}
        for m in MEASURES
        for r in ("", "R-")
    } <= set(tasks)
    one = tasks["failure prediction by mine", "AURC"]
    assert (one.data, one.model, one.samples) == ("test", "m", 300)
    assert one.value == cells(whole, "Selective classification")["mine"]["AURC"] and one.low <= one.value <= one.high
    assert json.loads((folder / "run" / "results.json").read_text())["measures"]


def test_numbers_are_those_of_the_parts(folder, whole):
    train, test = (sslk.features.FeatureStore(folder / name) for name in ("train", "test"))
    outputs = sslk.probes.ProbeOutputs.load(folder / "linear")
    areas = cells(whole, "Predicting which samples")
    mine = np.random.default_rng(0).normal(size=300)
    assert areas["mine"]["AUROC"] == pytest.approx(roc_auc_score(outputs.correct, mine))
    assert areas["theirs"]["AUROC"] == pytest.approx(roc_auc_score(outputs.correct, -np.arange(300)))
    near = sslk.quality.neighbour_distance(test, train, 5)
    assert areas["k-NN distance"]["AUROC"] == pytest.approx(roc_auc_score(outputs.correct, near))
    answers = neighbour_answers(test)
    scores = sslk.qscore(test, sslk.discover(train, 1.5)).scores
    r_auroc = roc_auc_score(answers.correct, scores)
    assert whole.summary["r_auroc"] == pytest.approx(r_auroc) == cells(whole, "Predicting that")["Q-Score"]["AUROC"]
    assert whole.summary["auroc"] == pytest.approx(roc_auc_score(outputs.correct, scores))
    random = cells(whole, "Selective classification")["random (trivial)"]
    assert random["AURC"] == pytest.approx(1 - outputs.accuracy) and random["AUGRC"] == pytest.approx((1 - outputs.accuracy) / 2)


def test_the_combination_holds_the_label_free_scores_alone(whole):
    weights = cells(whole, "Coefficients")
    assert set(weights) == set(LABEL_FREE)
    parts = cells(whole, "Logistic regression on 7 scores, fitted on answers, 3-fold")
    added = parts["what Q-Score adds"]["AUROC"]
    assert added == pytest.approx(parts["combined with Q-Score"]["AUROC"] - parts["combined without Q-Score"]["AUROC"])
    assert any(sentence.startswith("Combined with feature norm, max feature") for sentence in whole.findings)
    assert not any(sentence.startswith("Not compared") for sentence in whole.findings)


def test_neighbours_alone_need_no_classifier(folder, capsys):
    words = ["qscore", "failure", f"{folder}/test", "--train", f"{folder}/train", "--eps", "1.5", "--resamples", "40"]
    assert main([*words, "--answers", "neighbours", "--out", f"{folder}/alone", "--quiet"]) == 0
    run = Run.load(folder / "alone")
    assert run.summary["auroc"] == run.summary["r_auroc"] and run.provenance["classifier"] == "none"
    assert {m.metric for m in run.measures} == {f"R-{measure}" for measure in MEASURES}
    assert any(s.startswith("Q-Score predicts that the nearest neighbour shares the class") for s in run.findings)
    absent = next(s for s in run.findings if s.startswith("Not compared"))
    assert "neighbourhood consistency (it needs stores of other models)" in absent and "k-NN" not in absent
    capsys.readouterr()
    assert main([*words, "--out", f"{folder}/x", "--quiet"]) == 1
    assert "answers must be probe, for which outputs are needed, or neighbours" in capsys.readouterr().err


def test_a_set_alone_leaves_out_what_needs_training_samples(folder):
    test = sslk.features.FeatureStore(folder / "test")
    outputs = sslk.probes.ProbeOutputs.load(folder / "linear")
    found = sslk.discover(sslk.features.FeatureStore(folder / "train"), 1.5)
    run = failure_study(test, outputs, found, bootstrap=BootstrapSettings(20))
    assert "k-NN distance" not in cells(run, "Predicting") and "Mahalanobis" not in cells(run, "Predicting")
    assert any("k-NN distance and Mahalanobis distance (they need the training store)" in s for s in run.findings)
    trained = FailureSources(sslk.features.FeatureStore(folder / "train"), settings=FailureSettings(neighbors=10**6))
    run = failure_study(test, outputs, found, bootstrap=BootstrapSettings(20), sources=trained)
    assert "There are 300 samples to be neighbours: neighbors is 300, not 1000000." in run.findings


def test_a_store_judged_against_itself_is_no_neighbour_of_itself(folder):
    test = sslk.features.FeatureStore(folder / "test")
    outputs = sslk.probes.ProbeOutputs.load(folder / "linear")
    settings = FailureSettings(neighbors=1, combine=("feature norm",))
    run = failure_study(
        test, outputs, test, DiscoverSettings(1.5), BootstrapSettings(20), sources=FailureSources(settings=settings)
    )
    x = torch.nn.functional.normalize(test.load().features.double(), dim=1)
    distance = torch.cdist(x, x).fill_diagonal_(9).amin(1)
    assert cells(run, "Predicting")["k-NN distance"]["AUROC"] == pytest.approx(roc_auc_score(outputs.correct, -distance))
    assert "Training and test store hold the same samples: none is its own neighbour." in run.findings
    assert set(cells(run, "Coefficients")) == {"Q-Score", "feature norm"}


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"settings": FailureSettings(neighbors=0)}, "neighbors must be at least 1, got 0"),
        ({"settings": FailureSettings(combine=("mine",))}, "combine must name scores of the run, got 'mine'; there are Q-Score"),
        ({"settings": FailureSettings(random_views=1)}, "random_views must be at least 2 and fit into 2 GiB, got 1"),
        ({"settings": FailureSettings(answers=())}, "answers must be probe, .* got none and outputs"),
        ({"others": ["test-2"], "others_train": ["train-2", "train"]}, "others_train must hold a store for each of 1 others"),
        ({"others": ["part-2"]}, "part-2 does not hold the samples of"),
        ({"views": ["test-2"]}, "is of another model than .*test: views are of one encoder"),
        ({"train": "train-2"}, "is of another model than"),
    ],
)
def test_what_cannot_be_compared_is_named(folder, sources, message):
    def opened(value):
        return [opened(part) for part in value] if isinstance(value, list) else sslk.features.FeatureStore(folder / value)

    given = {name: value if name == "settings" else opened(value) for name, value in sources.items()}
    test, train = opened("test"), opened("train")
    outputs = sslk.probes.ProbeOutputs.load(folder / "linear")
    with pytest.raises(ValueError, match=message):
        failure_study(test, outputs, train, DiscoverSettings(1.5), BootstrapSettings(20), sources=FailureSources(**given))


def test_one_wrong_answer_leaves_no_combination(folder):
    test = sslk.features.FeatureStore(folder / "test")
    y = test.labels()
    logits = torch.nn.functional.one_hot(torch.searchsorted(torch.tensor([3, 7, 40]), y), 3).float()
    logits[4] = logits[4].roll(1)
    outputs = sslk.probes.ProbeOutputs.from_logits(logits, torch.tensor([3, 7, 40]), y)
    run = failure_study(test, outputs, sslk.features.FeatureStore(folder / "train"), bootstrap=BootstrapSettings(20))
    assert "There is no combination of scores: a single sample of one answer." in run.findings


def test_answers_of_a_probe_and_rows_without_one(folder):
    """Unlabelled rows are scored and have no answer, under either kind of answers."""
    x, y = features(200, seed=3)
    y[[0, 9]] = -1
    store = write_store(folder / "part", x, y, dataset="part")
    with pytest.warns(UserWarning, match="unlabelled"):
        outputs = linear_probe(sslk.features.FeatureStore(folder / "train"), store, epochs=2, learning_rates=0.001).outputs
    settings = FailureSettings(("neighbours", "probe"), neighbors=3)
    sources = FailureSources(settings=settings)
    run = failure_study(
        store, outputs, sslk.features.FeatureStore(folder / "train"), sources=sources, bootstrap=BootstrapSettings(20)
    )
    assert "2 of 200 test rows are unlabelled or not finite: they have no answer and are left out." in run.findings
    assert run.summary["samples"] == 198 and "Q-Score" in cells(run, "Predicting which samples")


def test_variance_over_random_views_of_the_images(tmp_path):
    """By the packaged encoder on a folder of images: the model and the images are found again from the store."""
    images, labels = load_sample("test")
    chosen = torch.cat([(labels == label).nonzero().flatten()[:6] for label in (3, 5)])
    for row in chosen.tolist():
        folder = tmp_path / "images" / f"class-{int(labels[row])}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[row].permute(1, 2, 0).numpy()).save(folder / f"{row}.png")
    words = ["store", "extract", "--model", "embedded", "--data", f"folder:{tmp_path}/images", "--out", f"{tmp_path}/s"]
    assert main([*words, "--workers", "0", "--device", "cpu", "--quiet"]) == 0
    store = sslk.features.FeatureStore(tmp_path / "s")
    scores, said = FailureSources(settings=FailureSettings(random_views=3)).compared(store)
    found = scores["variance over views"]
    assert found.shape == (12,) and bool((found < 0).all()) and bool((found > -1).all())
    assert torch.equal(found, view_variance(ViewSource().of(store, images=12, views=3)))
    assert "The variance is over 3 random views of each image." in said
