"""Bootstrap, compression, sides, sweeps, lambda search, before and after, transfer, comparison with a paper."""

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

import sslk
from sslk.cli import main
from sslk.features import StoreError
from sslk.probes.outputs import ProbeOutputs
from sslk.quality.ablation import search_lambdas, sweep_thresholds
from sslk.quality.before_after import before_after
from sslk.quality.failure import failure_prediction
from sslk.quality.settings import BootstrapSettings, CompressionSettings, DiscoverSettings
from sslk.quality.signed import compare_sides, matching_eps, mean_active
from sslk.quality.studies.compression import compression_study
from sslk.quality.subsets import compression, subset_masks
from sslk.report.beside_paper import compare
from sslk.results.run import Run, RunTable
from sslk.statistics.bootstrap import bootstrap_areas
from tests.probes.stores import features, write_store


def scored(n=300, seed=0):
    generator = torch.Generator().manual_seed(seed)
    correct = torch.rand(n, generator=generator) < 0.7
    scores = torch.randn(n, generator=generator) + 0.7 * correct
    return (scores * 4).round() / 4, correct  # with ties


def test_bootstrap_areas_are_scikit_learns_on_the_same_resamples():
    scores, correct = scored()
    areas = bootstrap_areas({"s": scores}, correct, resamples=5, seed=3)["s"]
    drawn = torch.randint(300, (5, 300), generator=torch.Generator().manual_seed(3))
    for rows, (auroc, auprc) in zip(drawn, areas.tolist(), strict=True):
        assert auroc == pytest.approx(roc_auc_score(correct[rows], scores[rows]), abs=1e-9)
        assert auprc == pytest.approx(average_precision_score(correct[rows], scores[rows]), abs=1e-9)


def test_intervals_hold_the_value_and_shrink_with_samples(tmp_path):
    widths = []
    for n in (200, 3200):
        scores, correct = scored(n)
        result = sslk.failure_prediction(scores, correct, logits=torch.randn(n, 3), resamples=300)
        own = result.intervals["Q-Score"]
        assert own.auroc.low < own.auroc.value < own.auroc.high and own.auroc_gain.value == 0
        gain = result.intervals["confidence"].auroc_gain
        assert gain.value == pytest.approx(result.qscore.auroc - result.baselines["confidence"].auroc)
        widths.append(own.auroc.half_width)
    assert 2.5 < widths[0] / widths[1] < 6  # the square root of 16


def test_failure_of_a_store_equals_that_of_its_tensors(tmp_path):
    x, y = features(320)
    store = write_store(tmp_path / "s", x, y)
    outputs = ProbeOutputs.from_logits(torch.randn(320, 3), torch.tensor([3, 7, 40]), y)
    scores = torch.rand(320)
    streamed = failure_prediction(scores, outputs, features=store)
    whole = sslk.failure_prediction(scores, outputs.correct, features=x, logits=outputs.logits)
    for (name, *areas), (other, *expected) in zip(streamed.table(), whole.table(), strict=True):
        assert name == other and areas == pytest.approx(expected)
    with pytest.raises(StoreError, match="other samples"):
        failure_prediction(scores, outputs, features=write_store(tmp_path / "t", x[:150], y[:150]))
    foreign = ProbeOutputs.from_logits(outputs.logits, outputs.classes, y, source={"weights_hash": "1" * 64})
    with pytest.raises(StoreError, match="another model"):
        failure_prediction(scores, foreign, features=store)


def test_subsets_have_their_size_and_place():
    percent = torch.rand(100, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    order = percent.argsort()
    for kept in (100, 45, 10):
        assert subset_masks(percent, "lower tail", kept).nonzero().squeeze(1).tolist() == sorted(order[:kept].tolist())
        upper = subset_masks(percent, "upper tail", kept)
        assert upper.nonzero().squeeze(1).tolist() == sorted(order[100 - kept :].tolist())
        assert int(subset_masks(percent, "random", kept, seed=1).sum()) == kept
    # At the size of the default set, the discriminative subset is the default set.
    default = subset_masks(percent, "discriminative", 45)
    assert default.nonzero().squeeze(1).tolist() == sorted(order[50:95].tolist())
    nested = [subset_masks(percent, "discriminative", k) for k in (90, 45, 10)]
    assert (nested[1] & ~nested[0]).sum() == 0 and (nested[2] & ~nested[1]).sum() == 0


def test_compression_finds_where_the_classes_are():
    """Classes live in the features of middle activation; the tails know nothing."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(3, (900,), generator=generator)
    x = torch.randn(900, 40, generator=generator)
    x[:, 20:36] += 0.9 * torch.nn.functional.one_hot(y, 3).float() @ torch.randn(3, 16, generator=generator)
    percent = torch.arange(40.0)
    study = compression(
        (x[:600], y[:600]), (x[600:], y[600:]), percent, CompressionSettings(reductions=(0, 50, 60), seeds=3, l2=(1e-3, 1e-1))
    )
    top1 = {name: values.mean(1).tolist() for name, values in zip(study.selections, study.top1, strict=True)}
    assert study.kept == (40, 20, 16) and study.converged == 1.0
    assert top1["discriminative"][2] > top1["lower tail"][2] + 0.2
    assert top1["discriminative"][2] > top1["random"][2]
    # All principal components are all features, rotated: the same probe.
    assert top1["pca"][0] == pytest.approx(top1["random"][0], abs=0.004)
    assert study.lossless("lower tail") < 60
    assert study.top1[study.selections.index("random"), 2].std() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reductions": (100,)}, r"\[0, 100\)"),
        ({"selections": ("middle",)}, "'middle'"),
        ({"activation_percent": torch.ones(5)}, "another model"),
    ],
)
def test_compression_bad_input(change, message):
    x, y = features(60)
    settings = {"activation_percent": torch.ones(48), **change}
    percent = settings.pop("activation_percent")
    with pytest.raises(ValueError, match=message):
        compression((x, y), (x, y), percent, CompressionSettings(**settings))


def test_matching_eps_meets_the_mean():
    h = torch.randn(500, 64, generator=torch.Generator().manual_seed(0)) * 3 + 1
    for wanted in (0.5, 4.0, 20.0):
        eps = matching_eps(iter(h.split(100)), wanted)
        assert mean_active(h, eps, True) == pytest.approx(wanted, rel=0.02)
    with pytest.raises(ValueError, match="mean_active must lie"):
        matching_eps(iter([h]), 100.0)


def test_two_sides_win_where_the_signal_is_negative(tmp_path):
    """Correct samples deviate strongly downwards in some features: only the two-sided score can see it."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(600, 64, generator=generator), torch.randint(2, (600,), generator=generator)
    correct = torch.rand(600, generator=generator) < 0.5
    rows = correct.nonzero().squeeze(1)
    x[rows, torch.randint(64, (len(rows),), generator=generator)] = -9.0
    store = write_store(tmp_path / "s", x, y, signed=True)
    result = compare_sides(store, store, correct, DiscoverSettings(2.0, 0, 100), BootstrapSettings(100))
    assert result.two_sided.mean_active == pytest.approx(result.one_sided.mean_active, rel=0.02)
    assert result.gain.low > 0.1 and result.auroc["two-sided"].value > 0.75
    assert result.negative_share == pytest.approx(float((x < 0).double().mean()))
    with pytest.raises(ValueError, match="two_sided must not be given, as both sides are compared, got True"):
        compare_sides(store, store, correct, DiscoverSettings(2.0, two_sided=True))


@pytest.mark.parametrize("two_sided", [None, False, True])
def test_compression_selects_by_the_sides_asked_for(two_sided, tmp_path):
    x, y = features(200)
    store = write_store(tmp_path / "s", x - 1, y, signed=True)
    quick = CompressionSettings(selections=("discriminative",), reductions=(0, 50), seeds=1, l2=(1e-2,))
    run = compression_study(store, store, quick, DiscoverSettings(1.0, two_sided=two_sided))
    assert run.provenance["two_sided"] is (two_sided is not False)


def test_sweep_equals_discover_and_score(tmp_path):
    x, y = features(400)
    store = write_store(tmp_path / "s", x, y)
    correct = torch.rand(400, generator=torch.Generator().manual_seed(1)) < 0.6
    points = sweep_thresholds(store, store, correct, eps=[1.0, 2.0, 6.5], bands=[(50, 95), (0, 100)])
    assert [(p.eps, p.lower) for p in points] == [(1.0, 50), (1.0, 0), (2.0, 50), (2.0, 0), (6.5, 50), (6.5, 0)]
    for point in points[:4]:
        found = sslk.discover(x, point.eps, point.lower, point.upper)
        scores = sslk.qscore(x, found).scores
        assert point.num_discriminative == found.num_discriminative
        assert point.auroc == pytest.approx(roc_auc_score(correct, scores), abs=1e-6)
    assert points[-1].auroc is None and points[-1].num_discriminative == 0


def test_lambda_search_follows_the_papers_order_and_goes_on(tmp_path):
    calls = []

    def train(lambda1, lambda2, seed):
        calls.append((lambda1, lambda2, seed))
        if len(calls) == 5 and interrupt:
            raise KeyboardInterrupt
        return 0.5 + 0.1 * (lambda1 == 1e-3) + 0.1 * (lambda2 == 1e-4) + 0.001 * seed

    journal, interrupt = tmp_path / "journal.json", True
    grid = {"lambda1": [0, 1e-3, 1e-2], "lambda2": [0, 1e-4], "seeds": [0, 1], "journal": journal}
    with pytest.raises(KeyboardInterrupt):
        search_lambdas(train, **grid)
    interrupt = False
    found = search_lambdas(train, **grid)
    assert (found.lambda1, found.lambda2) == (1e-3, 1e-4)
    finished = calls[:4] + calls[5:]
    assert len(finished) == len(set(finished)) == 8  # nothing twice, (best, 0) of stage 2 neither
    assert all(pair[1] == 0 for pair in finished[:6]) and finished[6] == (1e-3, 1e-4, 0)
    assert [value for value, _ in found.curve(2)] == [0, 1e-4] and len(found.trials) == 10
    journal.write_text("[[1]]")
    with pytest.raises(ValueError, match=r"journal .* is damaged"):
        search_lambdas(train, **grid)
    with pytest.raises(ValueError, match="lambda1 must hold values that are not negative"):
        search_lambdas(train, lambda1=[-1e-4])
    with pytest.raises(ValueError, match="accuracy in"):
        search_lambdas(lambda *_: 70.0)


def test_before_and_after_are_paired_by_sample(tmp_path):
    x, y = features(300)
    before, after = write_store(tmp_path / "a", x, y), write_store(tmp_path / "b", 2 * x, y, weights="1" * 64)
    logits = torch.randn(300, 3)
    first = ProbeOutputs.from_logits(logits, torch.tensor([3, 7, 40]), y)
    second = ProbeOutputs.from_logits(3 * logits, torch.tensor([3, 7, 40]), y)
    change = before_after(before, after, first, second, sslk.discover(x, 1.5), resamples=200)
    # Scaling changes neither L_i nor Q, and sharpens the confidence of every sample.
    assert change.active.value == 0 and change.qscore.value == pytest.approx(0, abs=1e-7)
    assert change.confidence.low > 0 and change.accuracy.value == 0 and change.repaired == change.broken == 0
    shorter = ProbeOutputs.from_logits(logits[:150], first.classes, y[:150])
    with pytest.raises(StoreError, match="other samples"):
        before_after(before, after, first, shorter, sslk.discover(x, 1.5))


def test_compare_matches_rows_by_name():
    table = RunTable(
        "t",
        ["model", "dataset", "baseline", "qscore"],
        [["moco", "imagenet-1k", 60.0, None], ["MoCo", "Moon", 1.0, 2.0]],
        "table1",
    )
    found = compare(Run("finetune", "t", [], {}, tables=[table]), "table1")
    assert found.paper == "qscore_table1" and found.unmatched == ["MoCo, Moon"]
    assert found.table.rows == [["moco", "imagenet-1k", 60.0, 67.03, pytest.approx(-7.03), None, 69.31, None]]
    masked = RunTable("m", ["dataset", "model", "variant", "balanced_accuracy"], [["CIFAR-100", "MAE", "original", 0.5]])
    assert compare(Run("masked", "t", [], {}, tables=[masked]), "table1").paper == "masked_table1"
    with pytest.raises(ValueError, match="paper must be one of masked_table1"):
        compare(Run("qscore", "t", [], {}, tables=[table]), "table99")
    with pytest.raises(ValueError, match="no table to compare"):
        compare(Run("qscore", "t", [], {}, tables=[RunTable("x", ["a"], [[1]])]), "table1")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    for name, seed in (("train", 0), ("test", 1)):
        write_store(folder / name, *features(300, seed=seed))
    return folder


def test_commands_leave_whole_runs(stores, capsys):
    """Every command once, chained as a user would, and each run read back."""
    train, test = str(stores / "train"), str(stores / "test")
    pair = ["--train", train, "--test", test]
    linear = ["--outputs", str(stores / "linear")]
    commands = {
        "linear": ["probe", "linear", *pair, "--epochs", "5"],
        "knn": ["probe", "knn", *pair, "--neighbors", "5", "20"],
        "kfold": ["probe", "kfold", test, "--l2", "1e-3", "1e-2"],
        "failure": ["qscore", "failure", test, "--train", train, *linear, "--eps", "1.5", "--resamples", "50"],
        "sides": ["qscore", "sides", test, "--train", train, *linear, "--eps", "1.5", "--resamples", "50"],
        "compression": ["qscore", "compression", *pair, "--seeds", "2", "--reductions", "0", "50", "--eps", "1.5"],
        "thresholds": ["qscore", "thresholds", *pair, *linear, "--eps", "1", "2", "--bands", "50-95"],
    }
    for name, words in commands.items():
        assert main([*words, "--out", str(stores / name), "--quiet"]) == 0, capsys.readouterr().err
        run = Run.load(stores / name)
        assert run.findings and run.summary and run.provenance["ssl_kernels"]
        for figure in run.figures:
            assert (stores / name / figure.file).stat().st_size > 1000 and (stores / name / figure.data).exists()
    assert {r.name for r in (stores / "linear").iterdir()} == {"results.json", "outputs.safetensors"}
    assert Run.load(stores / "linear").summary["top1"] == ProbeOutputs.load(stores / "linear").accuracy
    assert main(["qscore", "discover", train, "--out", str(stores / "set"), "--eps", "1.5", "--quiet"]) == 0
    words = ["--before", test, "--after", test, "--before-outputs", str(stores / "linear"), "--after-outputs"]
    words += [str(stores / "kfold"), "--discriminative", str(stores / "set"), "--out", str(stores / "change")]
    assert main(["qscore", "before-after", *words, "--resamples", "50"]) == 0
    capsys.readouterr()
    assert main(["qscore", "failure", test, *linear, "--out", str(stores / "x")]) == 1
    assert "give either --train" in capsys.readouterr().err
    assert main(["probe", "linear", "--train", train, "--out", str(stores / "x")]) == 1
    assert "both of a pair" in capsys.readouterr().err


def test_transfer_of_named_data_resumes_and_compares(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("SSLK_DATA", raising=False)
    words = ["probe", "transfer", "sample", "--model", "embedded", "--epochs", "1", "--workers", "0", "--name", "SimCLR"]
    words += ["--out", str(tmp_path / "run"), "--quiet"]
    assert main(words) == 0
    result = tmp_path / "run" / "sample" / "result.json"
    content = json.loads(result.read_text())
    content["result"]["top1"] = 0.125  # a finished data set is read back, not evaluated again
    result.write_text(json.dumps(content))
    assert main(words) == 0
    assert Run.load(tmp_path / "run").summary == {"top1 sample": 0.125}
    assert np.isclose(content["result"]["low"], 0.6, atol=0.1)
    capsys.readouterr()
    assert main(["probe", "transfer", "sample", "cifar10", "--model", "embedded", "--out", str(tmp_path / "x"), "--quiet"]) == 1
    assert "cifar10" in capsys.readouterr().err and not (tmp_path / "x").exists()
    assert main(["probe", "transfer", "npz:a.npz", "--model", "embedded", "--out", str(tmp_path / "x"), "--quiet"]) == 1
    assert "has no splits" in capsys.readouterr().err
