"""Few-shot draws, intervals of accuracies, and the study of two stores with its command."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from sslk.cli import main
from sslk.features import StoreError
from sslk.probes import LogregSettings, ProbeOutputs, balanced_accuracy, logreg_probe, logreg_study
from sslk.probes.accuracy_intervals import mean_per_class_interval, over_tries
from sslk.probes.logreg_draws import drawn, held_out
from sslk.results.run import Run
from tests.probes.stores import features, write_store
from tests.probes.test_logreg import TIGHT, data

FEW = {"shots": (1, 4), "tries": 3, "shots_validation_share": 0.3}


def test_draws_are_disjoint_from_what_chooses_and_the_same_again():
    targets = torch.randint(5, (300,), generator=torch.Generator().manual_seed(0))
    held = held_out(targets, 0.2, 0)
    counts = torch.bincount(targets)
    assert torch.bincount(targets[held]).tolist() == [int(0.2 * n + 1e-9) for n in counts.tolist()]
    tries = [drawn(targets, ~held, 4, seed) for seed in range(6)]
    for rows in tries:
        assert not held[rows].any() and len(rows.unique()) == 20
        assert torch.bincount(targets[rows]).tolist() == [4] * 5
    assert torch.equal(tries[0], drawn(targets, ~held, 4, 0)) and len({tuple(rows.tolist()) for rows in tries}) == 6
    assert torch.isin(drawn(targets, ~held, 1, 3), tries[3]).all()


def test_few_shots_are_a_loop_over_scikit_learn():
    """Every try: its own rows, its own C by the rows that choose for all, no refit."""
    (x, y), (test_x, test_y) = data(200, 40, spread=2.0), data(150, 40, seed=1, spread=2.0)
    grid = tuple(float(v) for v in np.logspace(-4, 3, 8))
    probe = logreg_probe((x, y), (test_x, test_y), TIGHT, c=grid, **FEW)
    targets = torch.unique(y, return_inverse=True)[1]
    order = torch.cat([part.nonzero().squeeze(1) for part in (~held_out(targets, 0.1, 0), held_out(targets, 0.1, 0))])
    x, y, targets = x[order].double(), y[order], targets[order]  # the draws number rows as training does
    held = held_out(targets, 0.3, 0)
    for few, shots in zip(probe.shots, (1, 4), strict=True):
        assert few.shots == shots and few.short == 0 and few.rows == [3 * shots] * 3
        for t in range(3):
            rows, best = drawn(targets, ~held, shots, t), (-1.0, 0.0)
            models = {c: LogisticRegression(C=c, tol=1e-8, max_iter=20_000).fit(x[rows], y[rows]) for c in grid}
            for c, model in models.items():
                best = max(best, (model.score(x[held], y[held]), -c))
            assert few.c[t] == -best[1]
            answers = torch.from_numpy(models[few.c[t]].predict(test_x.double()))
            assert float(few.top1[t]) == pytest.approx(float((answers == test_y).double().mean()), abs=1e-12)
            assert float(few.mean_per_class[t]) == pytest.approx(balanced_accuracy(answers, test_y), abs=1e-12)
        assert few.top1_mean.value == pytest.approx(float(few.top1.mean()))


def test_class_with_fewer_images_than_shots_gives_all_of_them():
    x, y = data(100)
    keep = (y != 40) | ((y == 40).cumsum(0) <= 3)
    probe = logreg_probe((x[keep], y[keep]), (x, y), shots=8, tries=2, c=(0.1, 1.0))
    few = probe.shots[0]
    assert few.short == 1 and few.rows == [18, 18]  # 3 less the one that chooses


def test_interval_of_the_mean_over_classes_is_that_of_drawn_images():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([3] * 100 + [7] * 40 + [40] * 8)
    correct = torch.rand(148, generator=generator) < 0.7
    found = mean_per_class_interval(correct, labels, 4000)
    rows = [torch.randint(148, (148,), generator=generator) for _ in range(4000)]
    slow = torch.tensor([balanced_accuracy(torch.where(correct[r], labels[r], -1), labels[r]) for r in rows])
    low, high = slow.quantile(torch.tensor([0.025, 0.975])).tolist()
    assert found.value == pytest.approx(balanced_accuracy(torch.where(correct, labels, -1), labels))
    assert (found.low, found.high) == (pytest.approx(low, abs=0.012), pytest.approx(high, abs=0.012))


def test_interval_over_tries_is_that_of_drawn_tries_and_images():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (120,), generator=generator)
    correct = torch.rand(5, 120, generator=generator) < torch.tensor([0.5, 0.6, 0.65, 0.7, 0.8])[:, None]
    found = over_tries(correct, labels, 3000)
    slow = [[], []]
    for _ in range(3000):
        rows, tries = torch.randint(120, (120,), generator=generator), torch.randint(5, (5,), generator=generator)
        part = correct[tries][:, rows]
        slow[0].append(part.double().mean())
        slow[1].append(torch.stack([part[:, labels[rows] == k].double().mean() for k in range(4)]).mean())
    for interval, values in zip(found, slow, strict=True):
        low, high = torch.stack(values).quantile(torch.tensor([0.025, 0.975]).double()).tolist()
        assert (interval.low, interval.high) == (pytest.approx(low, abs=0.012), pytest.approx(high, abs=0.012))


def test_top5_is_a_count():
    x, y = data(300, 20, tuple(range(0, 24, 3)), spread=4.0)
    probe = logreg_probe((x, y), (x, y), c=0.01)
    best = np.argsort(-probe.outputs.logits.numpy(), 1)[:, :5]
    assert probe.top5 == pytest.approx(np.mean([label in row * 3 for label, row in zip(y.tolist(), best, strict=True)]))
    assert probe.top1 < probe.top5 < 1 and logreg_probe(data(90), data(50), c=1.0).top5 is None


def stores(tmp_path, n=400):
    (x, y), (test_x, test_y) = features(n), features(200, seed=1)
    y[:3] = -1
    x[5, 0] = torch.nan
    return write_store(tmp_path / "a", x, y), write_store(tmp_path / "b", test_x, test_y), (x, y, test_x, test_y)


@pytest.mark.filterwarnings("ignore:.*left out")
def test_study_of_stores_is_the_probe_of_tensors(tmp_path):
    train, test, (x, y, test_x, test_y) = stores(tmp_path)
    settings = LogregSettings(shots=(1, 3), tries=2)
    run = logreg_study(train, test, settings)
    probe = logreg_probe((x, y), (test_x, test_y), settings)
    assert run.summary["top1"] == probe.top1 and run.summary["c"] == probe.c
    assert (run.summary["unlabelled_train"], run.summary["nonfinite_train"]) == (3, 1)
    assert {(m.task, m.metric) for m in run.measures} == {
        (f"logistic regression{few}", metric)
        for few in ("", ", 1 shot", ", 3 shots")
        for metric in ("top-1 [%]", "mean-per-class accuracy [%]")
    }
    for measure in run.measures:
        assert measure.low < measure.value < measure.high and (measure.model, measure.data, measure.samples) == ("m", "d", 200)
    assert Run.load(run.save(tmp_path / "run").parent).findings == run.findings
    outputs = ProbeOutputs.load(tmp_path / "run")
    assert outputs.source["model"] == "m" and torch.equal(outputs.predictions, probe.predictions)
    with open(tmp_path / "run/logreg_c.csv") as file:
        table = list(csv.DictReader(file))
    assert [float(row["C"]) for row in table] == settings.strengths
    assert [float(row["top-1 [%]"]) for row in table] == pytest.approx([100 * p.top1 for p in probe.grid])
    assert (tmp_path / "run/logreg_shots.svg").exists()


@pytest.mark.filterwarnings("ignore:.*left out")
def test_command_leaves_a_run_that_failure_prediction_reads(tmp_path, capsys):
    stores(tmp_path)
    arguments = ["--train", str(tmp_path / "a"), "--test", str(tmp_path / "b"), "--c", "1e-5", "1e-4", "1e-3"]
    assert main(["probe", "logreg", *arguments, "--metric", "mean-per-class", "--out", str(tmp_path / "run")]) == 0
    run = Run.load(tmp_path / "run")
    assert run.provenance["c"] == [1e-5, 1e-4, 1e-3] and run.summary["c"] in (1e-5, 1e-4, 1e-3)
    assert run.provenance["metric"] == "mean-per-class"
    arguments = ["failure", str(tmp_path / "b"), "--train", str(tmp_path / "a"), "--outputs", str(tmp_path / "run")]
    assert main(["qscore", *arguments, "--out", str(tmp_path / "f")]) == 0, capsys.readouterr()


def test_stores_of_other_models_are_refused_and_joined_by_class_name(tmp_path):
    (x, y), (test_x, test_y) = features(200, classes=(0, 1, 2)), features(100, classes=(0, 1, 2), seed=1)
    train = write_store(tmp_path / "a", x, y, names=("x", "y", "z"))
    test = write_store(tmp_path / "b", test_x, 2 - test_y, names=("z", "y", "x"))
    assert logreg_study(train, test).summary["top1"] == logreg_probe((x, y), (test_x, test_y)).top1
    with pytest.raises(StoreError, match="another model"):
        logreg_study(train, write_store(tmp_path / "c", test_x, test_y, weights="1" * 64))
