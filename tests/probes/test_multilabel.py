"""Several labels an image: regressions and average precision against scikit-learn's, the study, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from sslk.cli import main
from sslk.features import FeatureStore
from sslk.probes import MultiLabelSettings, multilabel_probe, multilabel_study
from sslk.probes.average_precision import average_precision, micro_average_precision, resampled
from sslk.results.run import Run

TIGHT = {"tolerance": 1e-9, "max_iterations": 2000}


def data(n, d=12, classes=5, seed=0, unknown=0.0):
    """Labels of different shares, linear in the features up to noise; some entries unknown."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64) * torch.linspace(0.1, 30, d) + 5
    weight = (
        torch.randn(d, classes, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
        / torch.linspace(0.1, 30, d)[:, None]
    )
    z = (x - 5) @ weight + torch.randn(n, classes, generator=generator) - torch.linspace(-1, 3, classes)
    y = (z > 0).to(torch.int8)
    return x, torch.where(torch.rand(n, classes, generator=generator) < unknown, -1, y).to(torch.int8)


def of_sklearn(scores, labels):
    known = labels >= 0
    return average_precision_score(labels[known] == 1, scores[known])


@pytest.mark.parametrize("unknown", [0.0, 0.3])
@pytest.mark.parametrize("l2", [1e-3, 0.1])
def test_regressions_are_those_of_scikit_learn(unknown, l2):
    x, y = data(300, unknown=unknown)
    test_x, test_y = data(200, seed=1, unknown=unknown)
    probe = multilabel_probe(x, y, test_x, test_y, l2=l2, resamples=2, **TIGHT)
    assert probe.converged and probe.l2 == l2 and probe.grid == []
    mean, std = x.numpy().mean(0), x.numpy().std(0)
    for c in range(y.shape[1]):
        known = (y[:, c] >= 0).numpy()
        oracle = LogisticRegression(C=1 / (l2 * known.sum()), tol=1e-10, max_iter=10_000)
        oracle.fit(((x.numpy() - mean) / std)[known], y[known, c].numpy())
        np.testing.assert_allclose(probe.weight[c], oracle.coef_[0], atol=2e-4)
        np.testing.assert_allclose(probe.bias[c], oracle.intercept_[0], atol=2e-4)
        scores = oracle.decision_function((test_x.numpy() - mean) / std)
        np.testing.assert_allclose(probe.scores[:, c], scores, atol=2e-3)
        assert probe.average_precision[c] == pytest.approx(
            of_sklearn(probe.scores[:, c].numpy(), test_y[:, c].numpy()), abs=1e-12
        )
    known = (test_y >= 0).numpy()
    micro = average_precision_score(test_y.numpy()[known] == 1, probe.scores.numpy()[known])
    assert probe.micro == pytest.approx(micro, abs=1e-12)
    assert probe.mean.value == pytest.approx(float(probe.average_precision.mean()), abs=1e-12)
    assert probe.unknown == (int((y < 0).sum()), int((test_y < 0).sum()))


@pytest.mark.parametrize("levels", [2, 7, 10_000])
def test_average_precision_with_ties_and_unknowns(levels):
    generator = torch.Generator().manual_seed(levels)
    scores = torch.randint(levels, (400, 6), generator=generator).float()
    labels = torch.randint(-1, 2, (400, 6), generator=generator)
    labels[:, 5] = torch.where(labels[:, 5] == 1, 0, labels[:, 5])
    expected = [of_sklearn(scores[:, c].numpy(), labels[:, c].numpy()) for c in range(5)]
    found = average_precision(scores, labels)
    np.testing.assert_allclose(found[:5], expected, atol=1e-12)
    assert found[5].isnan()
    known = (labels >= 0).numpy()
    both = average_precision_score(labels.numpy()[known] == 1, scores.numpy()[known])
    assert micro_average_precision(scores, labels) == pytest.approx(both, abs=1e-12)


def test_resamples_are_of_images_and_equal_to_repeating_the_rows():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(30, (60, 2), generator=generator).float()
    labels = torch.randint(-1, 2, (60, 2), generator=generator)
    found = {0: [], 1: []}
    for c, values in resampled(scores, labels, 20, seed=3):
        found[c] += values.tolist()
    drawn = torch.randint(60, (20, 60), generator=torch.Generator().manual_seed(3))
    for c in (0, 1):
        expected = [of_sklearn(scores[rows, c].numpy(), labels[rows, c].numpy()) for rows in drawn]
        np.testing.assert_allclose(found[c], expected, atol=1e-6)


def test_interval_covers_what_other_test_sets_give():
    x, y = data(400)
    settings = MultiLabelSettings(l2=(0.03,), resamples=200)
    found = [multilabel_probe(x, y, *data(150, seed=seed), settings) for seed in range(1, 21)]
    truth = multilabel_probe(x, y, *data(8000, seed=99), l2=0.03, resamples=2).mean.value
    covered = sum(probe.mean.low <= truth <= probe.mean.high for probe in found)
    assert covered >= 16  # 19 of 20 are expected; 15 or fewer happen thrice in a thousand
    widths = [probe.mean.high - probe.mean.low for probe in found]
    assert 0.5 < np.mean(widths) / (3.92 * np.std([probe.mean.value for probe in found])) < 2


def test_penalty_is_chosen_on_training_rows_only():
    x, y = data(120, d=60)
    test_x, test_y = data(300, d=60, seed=1)
    asked = {"l2": (1e-6, 1e-2, 1e3), "resamples": 2}
    probe = multilabel_probe(x, y, test_x, test_y, **asked)
    assert [pair[0] for pair in probe.grid] == [1e-6, 1e-2, 1e3]
    assert probe.l2 == max(probe.grid, key=lambda pair: pair[1])[0]
    other = multilabel_probe(x, y, test_x[:50].flip(0), 1 - test_y[:50], **asked)
    assert other.grid == probe.grid and torch.equal(other.weight, probe.weight)
    alone = multilabel_probe(x, y, test_x, test_y, l2=probe.l2, resamples=2)
    torch.testing.assert_close(alone.weight, probe.weight)  # trained on all rows once the penalty is chosen


def test_chosen_penalty_is_the_best_of_scikit_learns_on_the_same_rows():
    x, y = data(200, d=40)
    grid = (1e-4, 1e-2, 1.0)
    probe = multilabel_probe(x, y, *data(50, d=40, seed=1), l2=grid, resamples=2, **TIGHT)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    held, fitted = order[:40].numpy(), order[40:].numpy()
    z = ((x - x.mean(0)) / x.std(0, correction=0)).numpy()
    for l2, value in probe.grid:
        scores = [
            LogisticRegression(C=1 / (l2 * 160), tol=1e-10, max_iter=10_000)
            .fit(z[fitted], y[fitted, c])
            .decision_function(z[held])
            for c in range(5)
        ]
        expected = np.mean([average_precision_score(y[held, c], scores[c]) for c in range(5)])
        assert value == pytest.approx(expected, abs=1e-3)


def test_classes_that_cannot_be_trained_or_judged():
    x, y = data(200)
    test_x, test_y = data(100, seed=1)
    y[:, 0], y[:, 1], y[:, 4], test_y[:, 2] = 0, -1, 1, 0
    probe = multilabel_probe(x, y, test_x, test_y, l2=0.03, resamples=50)
    assert probe.trained.tolist() == [False, False, True, True, False]
    share = (test_y == 1).double().mean(0)
    for c in (0, 1, 4):  # a constant score: precision is the share of positives
        assert not probe.weight[c].any() and probe.average_precision[c] == pytest.approx(float(share[c]))
    assert probe.average_precision[2].isnan() and probe.intervals[2].isnan().all()
    assert probe.mean.value == pytest.approx(float(probe.average_precision[[0, 1, 3, 4]].mean()))


def test_rows_that_cannot_be_used_are_left_out_and_counted():
    x, y = data(200)
    test_x, test_y = data(100, seed=1)
    expected = multilabel_probe(x, y, test_x, test_y, l2=0.03, resamples=50)
    more_x, more_y = torch.cat([x[:50], x[:3] * torch.nan, x[50:], x[:2]]), torch.cat([y[:50], y[:3], y[50:], y[:2] * 0 - 1])
    bad_x = torch.cat([test_x[:1] * torch.inf, test_x])
    with pytest.warns(
        UserWarning, match=r"3 of 205 training rows are not finite|2 of 205 training rows are unlabelled|1 of 101 test row"
    ):
        probe = multilabel_probe(more_x, more_y, bad_x, torch.cat([test_y[:1], test_y]), l2=0.03, resamples=50)
    torch.testing.assert_close(probe.weight, expected.weight)
    assert probe.mean == expected.mean and probe.index.tolist() == list(range(1, 101))
    assert (probe.train_rows.unlabelled, probe.train_rows.nonfinite, probe.test_rows.nonfinite) == (2, 3, 1)
    as_floats = multilabel_probe(x.numpy(), np.where(y < 0, np.nan, y), test_x.numpy(), test_y.numpy(), l2=0.03, resamples=50)
    assert as_floats.mean == expected.mean


def test_a_group_at_a_time_changes_nothing(monkeypatch):
    x, y = data(200)
    test = data(100, seed=1)
    expected = multilabel_probe(x, y, *test, resamples=64, **TIGHT)
    monkeypatch.setattr("sslk.probes.logistic_loss.MEMORY_BYTES", 6000)
    monkeypatch.setattr("sslk.probes.logistic_loss.LOGIT_BYTES", 600)
    probe = multilabel_probe(x, y, *test, resamples=64, **TIGHT)
    torch.testing.assert_close(probe.weight, expected.weight, rtol=1e-4, atol=1e-5)


X, Y = data(20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_labels": Y[:10]}, r"train_labels must be \[N, C\] with N = 20 rows, got \[10, 5\]"),
        ({"test_labels": Y[:, 0]}, r"test_labels must be \[N, C\]"),
        ({"test_labels": Y * 2}, "test_labels must be 1, 0, or -1 for unknown, got 2"),
        ({"test_labels": Y * 0}, "test_labels must hold a positive"),
        ({"train_labels": Y * 0 - 1}, "train_features must hold a row that is finite and has a known label"),
        ({"test_features": X[:, :3]}, "must have 12 features and 5 classes as in training, got 3 and 5"),
        ({"l2": (-1.0,)}, "l2 must be penalties of zero or more"),
        ({"resamples": 1}, "resamples must be at least 2"),
        ({"validation_share": 0.0}, "validation_share must lie between 0 and 1"),
        ({"train_features": X[:1], "train_labels": Y[:1]}, "l2 must be one number where the validation part"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*left out")
def test_what_is_refused(change, message):
    given = {"train_features": X, "train_labels": Y, "test_features": X, "test_labels": Y, **change}
    with pytest.raises(ValueError, match=message):
        multilabel_probe(**given)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Photos whose labels are their colours, a manifest, and a store of each of its splits."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    rows = ["file,label,split"]
    for k in range(90):
        bits = generator.integers(0, 2, 3)
        noise = generator.integers(0, 120, (32, 32, 3)).astype(np.uint8)
        Image.fromarray(noise + (130 * bits).astype(np.uint8)).save(folder / f"{k:02d}.png")
        names = "|".join(name for name, bit in zip(("red", "green", "blue"), bits, strict=True) if bit) or "|"
        names = "" if k == 5 else names + "|rare" if k == 7 else names
        rows.append(f"{k:02d}.png,{names},{'train' if k < 60 else 'test'}")
    (folder / "m.csv").write_text("\n".join(rows) + "\n")
    for split in ("train", "test"):
        words = ["store", "extract", "--model", "embedded", "--data", f"manifest:{folder}/m.csv", "--split", split]
        assert main([*words, "--out", str(folder / split), "--workers", "0", "--quiet", "--device", "cpu"]) == 0
    return folder


@pytest.mark.filterwarnings("ignore:.*")
def test_the_command(place, capsys):
    words = f"probe multilabel --train {place}/train --test {place}/test --data manifest:{place}/m.csv --out {place}/run --quiet"
    assert main([*words.split(), "--json", "--resamples", "100"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["samples"] == 30 and summary["classes"] == 4 and summary["classes_judged"] == 3
    assert summary["map_low"] <= summary["map"] <= summary["map_high"] and summary["map"] > 0.9
    assert summary["left_out_unlabelled_train"] == 1 and summary["unknown_train"] == 0
    run = Run.load(place / "run")
    assert "1 class (rare) has no positive in test and is not judged." in run.findings
    assert run.tables[0].columns[0] == "class" and [row[0] for row in run.tables[0].rows] == ["blue", "green", "rare", "red"]
    with safe_open(place / "run" / "multilabel.safetensors", "pt") as file:
        scores, labels = file.get_tensor("scores").numpy(), file.get_tensor("labels").numpy()
        assert file.get_tensor("index").tolist() == list(range(30))
        assert json.loads(file.metadata()["classes"]) == ["blue", "green", "rare", "red"]
    expected = np.mean([average_precision_score(labels[:, c], scores[:, c]) for c in (0, 1, 3)])
    assert summary["map"] == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:.*")
def test_labels_meet_rows_by_number_and_another_data_set_is_refused(place, tmp_path, capsys):
    from sslk.data import load_dataset

    sets = [load_dataset(f"manifest:{place}/m.csv", split) for split in ("train", "test")]
    stores = [FeatureStore(place / split) for split in ("train", "test")]
    run = multilabel_study(*stores, *sets, MultiLabelSettings(l2=(0.03,), resamples=2))
    features = [store.load().features for store in stores]
    direct = multilabel_probe(features[0], sets[0].multi_labels, features[1], sets[1].multi_labels, l2=0.03, resamples=2)
    assert run.summary["map"] == direct.mean.value
    with pytest.raises(ValueError, match=r"data must be what .*test was extracted from"):
        multilabel_study(*stores, sets[0], sets[0])
    with pytest.raises(ValueError, match="data must have several labels an image"):
        multilabel_study(*stores, load_dataset("sample"), sets[1])
    words = f"probe multilabel --train {place}/train --test {place}/test --data manifest:{place}/m.csv --out {tmp_path} --quiet"
    assert main([*words.split(), "--splits", "train", "val"]) == 1
    assert "has the splits test (30), train (60), got split='val'" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*")
def test_a_store_without_some_images_keeps_its_labels(place, tmp_path):
    from sslk.data import load_dataset

    lines = (place / "m.csv").read_text().splitlines()
    lines[1:1] = ["none.png,red|green,train"]
    (place / "gaps.csv").write_text("\n".join(lines))
    words = (
        f"store extract --model embedded --data manifest:{place}/gaps.csv --split train --out {tmp_path}/s --workers 0 --quiet"
    )
    assert main([*words.split(), "--on-corrupt", "skip"]) == 0
    store, test = FeatureStore(tmp_path / "s"), FeatureStore(place / "test")
    assert store.load().indices.tolist() == list(range(1, 61))
    sets = load_dataset(f"manifest:{place}/gaps.csv", "train"), load_dataset(f"manifest:{place}/m.csv", "test")
    whole = FeatureStore(place / "train"), load_dataset(f"manifest:{place}/m.csv", "train")
    settings = MultiLabelSettings(l2=(0.03,), resamples=2)
    expected = multilabel_study(whole[0], test, whole[1], sets[1], settings)
    assert multilabel_study(store, test, *sets, settings).summary["map"] == pytest.approx(expected.summary["map"], abs=1e-9)
