"""Rows without a label or with NaN, from discovery to failure prediction: left out, counted, said."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import sslk
from sslk.cli import main
from sslk.probes import ProbeOutputs, linear_probe
from sslk.quality import DiscriminativeFeatures
from sslk.quality.ablation import sweep_thresholds
from sslk.quality.before_after import before_after
from sslk.quality.settings import CompressionSettings, DiscoverSettings
from sslk.quality.signed import compare_sides, matching_eps
from sslk.quality.studies.before_after import before_after_study
from sslk.quality.studies.compression import compression_study
from sslk.quality.studies.failure import failure_study
from sslk.results.run import Run
from tests.probes.stores import features, write_store

pytestmark = pytest.mark.filterwarnings("ignore:.*(not finite|unlabelled)")
BAD = [3, 160, 161]


def broken(x, value=torch.nan):
    x = x.clone()
    x[BAD, 2] = value
    return x, [row for row in range(len(x)) if row not in BAD]


def the_equation(x, eps, mask):
    """Percentages of activation, |L_i|, scores and the share of empty sets in float64, over all rows given."""
    h = x.double().numpy()
    deviation = h - h.mean(1, keepdims=True)
    active = deviation > eps * h.std(1, keepdims=True)
    chosen = active & mask.numpy()
    score = np.where(chosen, deviation, 0).sum(1) / np.maximum(chosen.sum(1), 1)
    return 100 * active.mean(0), active.sum(1), score / np.linalg.norm(h, axis=1), (chosen.sum(1) == 0).mean()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("eps", [1.5, "auto"])
def test_discovery_and_scores_are_those_of_the_other_rows(tmp_path, eps, stored, value):
    clean, y = features(400)
    x, keep = broken(clean, value)
    given = write_store(tmp_path / "s", x, y) if stored else x
    with pytest.warns(UserWarning, match="3 of 400 rows are not finite"):
        found = sslk.discover(given, eps)
    percent, active, score, empty = the_equation(clean[keep], found.eps, found.mask)
    assert found.eps == sslk.discover(clean[keep], eps).eps and (found.num_samples, found.nonfinite) == (397, 3)
    np.testing.assert_allclose(found.activation_percent, percent, rtol=1e-12)
    assert found.mean_active == pytest.approx(active.mean(), rel=1e-12)
    assert found.empty_share == pytest.approx(empty) or (stored and eps == 1.5)
    with pytest.warns(UserWarning, match="3 of 400 rows are not finite .*: their score is NaN"):
        scores = sslk.qscore(given, found)
    assert scores.scores.isnan().nonzero().flatten().tolist() == BAD and scores.nonfinite == 3
    np.testing.assert_allclose(scores.scores[keep], score, rtol=1e-5)
    assert scores.active[BAD].tolist() == [0, 0, 0] and scores.active.dtype == torch.int32
    mean, low, high, *_ = scores.mean_active_interval()
    assert scores.active[keep].tolist() == active.tolist() and scores.mean_active == mean == active.mean()
    assert low < mean < high and (high - low) / 2 == pytest.approx(1.96 * active.std() / len(keep) ** 0.5, rel=0.15)
    assert scores.empty_share == pytest.approx(empty)
    found.save(tmp_path / "set")
    assert DiscriminativeFeatures.load(tmp_path / "set").nonfinite == 3


def test_no_finite_row_and_a_wrong_eps_are_refused(tmp_path):
    x, y = features(200)
    store = write_store(tmp_path / "s", x * torch.nan, y)
    for given in (x * torch.nan, store):
        for call in (lambda h: sslk.discover(h, 1.5), sslk.discover, lambda h: sslk.qscore(h, x[0] > 0)):
            with pytest.raises(ValueError, match="features must hold a row that is finite, got NaN or infinity in all 200"):
                call(given)
    for eps in ("foo", -1, float("nan"), None):
        with pytest.raises(ValueError, match="eps must be zero or positive, or 'auto', got"):
            sslk.discover(x, eps)


def test_compression_without_them_is_as_if_they_were_not_there(tmp_path):
    (clean, y), (x_test, y_test) = features(240), features(100, seed=1)
    x, keep = broken(clean)
    settings = {"reductions": (0, 50), "seeds": 2, "l2": (1e-2,)}
    percent = sslk.discover(x, 1.5).activation_percent
    y_test[5:9] = -1
    labelled = y_test >= 0
    found = sslk.compression((x, y), (x_test, y_test), percent, **settings)
    expected = sslk.compression((clean[keep], y[keep]), (x_test[labelled], y_test[labelled]), percent, **settings)
    assert torch.equal(found.top1, expected.top1)
    assert (found.train_rows.nonfinite, found.test_rows.unlabelled, expected.train_rows.nonfinite) == (3, 4, 0)
    with pytest.raises(TypeError, match="compression has no setting 'seed': did you mean seeds"):
        sslk.compression((x, y), (x, y), percent, seed=2)
    train, test = write_store(tmp_path / "train", x, y), write_store(tmp_path / "test", x_test, y_test)
    run = compression_study(train, test, CompressionSettings(**settings), DiscoverSettings(1.5))
    assert run.summary["nonfinite_train"] == 3 and run.summary["unlabelled_test"] == 4
    assert "4 of 100 test rows are unlabelled (label below 0) and left out." in run.findings


@pytest.fixture
def answered(tmp_path):
    """A store with rows that are unlabelled or not finite, and a probe's answers for the others."""
    (x, y), (x_test, y_test) = features(300), features(200, seed=1)
    y_test[[7, 8]] = -1
    x_test, _ = broken(x_test)
    train, test = write_store(tmp_path / "train", x, y), write_store(tmp_path / "test", x_test, y_test)
    outputs = linear_probe(train, test, epochs=2, learning_rates=0.001).outputs
    rows = [row for row in range(200) if row not in (*BAD, 7, 8)]
    assert outputs.index.tolist() == rows
    return train, test, outputs, rows


def test_failure_prediction_meets_the_answers_by_sample(answered):
    train, test, outputs, rows = answered
    found = sslk.discover(train, 1.5)
    scores = sslk.qscore(test, found)
    x = test.load().features
    expected = roc_auc_score(outputs.correct, scores.scores[rows])
    norm = roc_auc_score(outputs.correct, x[rows].double().norm(dim=1))
    batch = train.load()
    of_arrays = linear_probe(batch.features, batch.labels, x, test.labels(), epochs=2, learning_rates=0.001).outputs
    assert torch.equal(of_arrays.index, outputs.index)
    expected_too = roc_auc_score(of_arrays.correct, scores.scores[rows])
    assert sslk.failure_prediction(scores.scores, of_arrays, features=x).qscore.auroc == pytest.approx(expected_too)
    with pytest.raises(ValueError, match="answers are of 195 samples of a store and scores of 200: give features, the store"):
        sslk.failure_prediction(scores.scores, outputs, features=x)
    for given in (test, str(test.path)):
        result = sslk.failure_prediction(scores.scores, outputs, features=given)
        assert result.qscore.auroc == pytest.approx(expected) and result.nonfinite == 0
        assert result.baselines["feature norm"].auroc == pytest.approx(norm)
    run = failure_study(test, outputs, train, DiscoverSettings(1.5))
    assert run.summary["auroc"] == pytest.approx(expected) and run.summary["samples"] == 195
    assert "5 of 200 test rows are unlabelled or not finite: they have no answer and are left out." in run.findings
    points = sweep_thresholds(train, test, outputs, eps=[1.5])
    assert points[0].auroc == pytest.approx(expected)
    sides = compare_sides(train, test, outputs, DiscoverSettings(1.5))
    assert sides.curves["one-sided"].auroc == pytest.approx(expected)
    with pytest.raises(ValueError, match="correct must have an answer for each of 200 rows, got 195"):
        compare_sides(train, test, outputs.correct, DiscoverSettings(1.5))


def test_scores_that_are_nan_are_left_out_of_failure_prediction():
    generator = torch.Generator().manual_seed(0)
    scores, correct = torch.rand(50, generator=generator), torch.rand(50, generator=generator) < 0.5
    x = torch.rand(50, 4, generator=generator)
    scores[BAD[:1]] = torch.nan
    keep = ~scores.isnan()
    with pytest.warns(UserWarning, match="1 of 50 rows is not finite"):
        result = sslk.failure_prediction(scores, correct.int(), features=x, resamples=20)
    assert result.nonfinite == 1 and result.accuracy == correct[keep].double().mean()
    assert result.qscore.auroc == pytest.approx(roc_auc_score(correct[keep], scores[keep]))


def test_matching_eps_leaves_out_rows_that_are_not_finite():
    h = torch.randn(300, 40, generator=torch.Generator().manual_seed(0))
    x, keep = broken(h)
    assert matching_eps(iter([x]), 2.0) == matching_eps(iter([h[keep]]), 2.0)


def test_before_and_after_of_the_samples_that_both_answered(answered, tmp_path):
    train, test, outputs, rows = answered
    batch = test.load()
    x = batch.features * 2
    x[20] = torch.inf
    later = write_store(tmp_path / "later", x, batch.labels)
    answers = linear_probe(train, later, epochs=2, learning_rates=0.001).outputs
    common = [row for row in rows if row != 20]
    change = before_after(test, later, outputs, answers, sslk.discover(train, 1.5), resamples=50)
    place = [rows.index(row) for row in common]
    assert len(change.after.correct) == len(common) == 194
    assert torch.equal(change.before.correct, outputs.correct[place]) and torch.equal(change.after.correct, answers.correct)
    assert change.qscore.value == pytest.approx(0, abs=1e-7)
    run = before_after_study(test, later, outputs, answers, sslk.discover(train, 1.5))
    assert "6 of 200 test rows are unlabelled or not finite: they have no answer and are left out." in run.findings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": torch.arange(20)}, "answers must be bool, or 0 and 1 for wrong and right, got 2: labels are not answers"),
        ({"answers": torch.ones(19)}, r"scores and answers must both be \[N\], got \[20\] and \[19\]"),
        ({"features": torch.ones(19, 3)}, "features must have the 20 rows of scores, got 19"),
        ({"logits": torch.ones(21, 3)}, "logits must have the 20 rows of scores, got 21"),
        ({"features": torch.ones(20)}, r"features must be a matrix \[N, D\], got \[20\]"),
        ({"logits": torch.ones(20)}, r"logits must be a matrix \[N, D\], got \[20\]"),
    ],
)
def test_failure_prediction_names_the_argument(change, message):
    arguments = {"answers": torch.arange(20) % 2, **change}
    with pytest.raises(ValueError, match=message):
        sslk.failure_prediction(torch.rand(20), arguments.pop("answers"), **arguments)


def test_commands_say_it(answered, tmp_path, capsys):
    train, test, outputs, _ = answered
    outputs.save(tmp_path / "outputs.safetensors")
    assert main(["qscore", "discover", str(test.path), "--out", str(tmp_path / "set"), "--eps", "1.5", "--quiet"]) == 0
    assert "3 of 200 training rows are not finite" in capsys.readouterr().out
    assert main(["qscore", "score", str(test.path), "--discriminative", str(tmp_path / "set"), "--quiet"]) == 0
    assert "3 of 200 rows are not finite" in capsys.readouterr().out
    words = ["--train", str(train.path), "--outputs", str(tmp_path), "--eps", "1.5", "--resamples", "50", "--quiet"]
    for command in ("failure", "sides"):
        assert main(["qscore", command, str(test.path), *words, "--out", str(tmp_path / command)]) == 0
        assert any("5 of 200 test rows" in text for text in Run.load(tmp_path / command).findings)
    assert ProbeOutputs.load(tmp_path).unknown == 0
