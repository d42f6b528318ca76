"""What Q-Score tells: its study and command against the equations in NumPy, SciPy and scikit-learn."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from sslk.cli import main
from sslk.features import FeatureStore
from sslk.probes import ProbeOutputs
from sslk.quality import BootstrapSettings, DiscoverSettings, SignalSettings, signal_over_epochs, signal_study
from sslk.quality.signal import Areas
from sslk.quality.studies.signal_tables import compared, records
from sslk.results.run import Run
from sslk.statistics.bootstrap import Interval
from tests.probes.stores import features, write_store

GRID, SHARES = (1.0, 2.0, 9.0), (0.25, 0.5)


def outputs_of(y, seed=0, lacking=()):
    """A classifier that is right more often where its largest logit is large; some samples have no answer."""
    generator = torch.Generator().manual_seed(seed)
    classes, rows = torch.tensor([3, 7, 40]), torch.tensor([i for i in range(len(y)) if i not in lacking])
    sure = torch.rand(len(y), generator=generator)
    target = torch.searchsorted(classes, y)
    logits = torch.randn(len(y), 3, generator=generator)
    logits[torch.arange(len(y)), target] += 3 * sure
    return ProbeOutputs.from_logits(logits[rows], classes, y[rows], rows)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Stores, a classifier's answers and the study by its command; row 5 of the test store is not finite."""
    out = tmp_path_factory.mktemp("signal")
    for name, seed in (("train", 0), ("test", 1)):
        x, y = features(300, seed=seed)
        if name == "test":
            x[5] = torch.nan
        write_store(out / name, x, y, dataset=name)
    outputs = outputs_of(y, lacking=(5,))
    outputs.save(out / "linear" / "outputs.safetensors")
    np.savez(out / "views.npz", **{"variance over views": np.random.default_rng(0).normal(size=300)})
    words = ["qscore", "signal", f"{out}/test", "--train", f"{out}/train", "--outputs", f"{out}/linear", "--out", f"{out}/run"]
    words += ["--eps", "1.5", "--resamples", "80", "--draws", "2", "--folds", "4", "--scores", f"{out}/views.npz", "--quiet"]
    words += ["--grid", *map(str, GRID), "--shares", *map(str, SHARES)]
    with pytest.warns(UserWarning, match="not finite"):
        assert main(words) == 0
    kept = [row for row in range(300) if row != 5]
    h = {name: np.concatenate([batch.features for batch in FeatureStore(out / name).batches(64)]) for name in ("train", "test")}
    return out, Run.load(out / "run"), h["train"].astype(np.float64), h["test"][kept].astype(np.float64), outputs


def rows_of(run, title):
    return records(next(table for table in run.tables if table.title.startswith(title)))


def by_equation(train, test, eps, columns=slice(None)):
    """Q-Score in float64 from the paper's equations."""
    train, test = train[:, columns], test[:, columns]

    def active(h):
        return h > h.mean(1, keepdims=True) + eps * h.std(1, keepdims=True)

    percent = active(train).mean(0)
    low, high = np.percentile(percent, [50, 95])
    chosen = (percent >= low) & (percent <= high) & (percent > 0)
    h = test / np.linalg.norm(test, axis=1, keepdims=True)
    inside = active(test) & chosen
    return np.where(inside, h - h.mean(1, keepdims=True), 0).sum(1) / np.maximum(inside.sum(1), 1), inside


def test_areas_and_thresholds_are_those_of_the_equation(made):
    _, run, train, test, outputs = made
    right = outputs.correct.numpy()
    own, _ = by_equation(train, test, 1.5)
    areas = {row["score"]: row for row in rows_of(run, "AUROC of every score")}
    assert areas["Q-Score"]["AUROC"] == pytest.approx(roc_auc_score(right, own), abs=1e-4)  # scores are float32: near ties
    norm = roc_auc_score(right, np.linalg.norm(test, axis=1))
    assert areas["feature norm"]["AUROC"] == pytest.approx(norm, abs=1e-9)
    assert areas["feature norm"]["Q-Score less it"] == pytest.approx(areas["Q-Score"]["AUROC"] - norm, abs=1e-9)
    assert {"k-NN distance", "Mahalanobis", "max feature", "variance over views", "confidence", "energy"} <= set(areas)
    assert areas["variance over views"]["uses labels"] == "no" and areas["confidence"]["uses labels"] == "yes"
    sweep = rows_of(run, "Q-Score over eps")
    assert [row["eps"] for row in sweep] == list(GRID)
    for row in sweep[:2]:
        scores, inside = by_equation(train, test, row["eps"])
        assert row["AUROC"] == pytest.approx(roc_auc_score(right, scores), abs=1e-4)
        assert row["empty sets [%]"] == pytest.approx(100 * (inside.sum(1) == 0).mean())
        assert row["AUROC low"] <= row["AUROC"] <= row["AUROC high"]
    assert sweep[2]["AUROC"] is None, "no z-score of 48 features exceeds 6.9"
    said = " ".join(run.findings)
    assert "variance over views (it needs" not in said and "neighbourhood consistency (it needs" in said


def test_partial_correlations_are_those_of_the_residuals(made):
    _, run, train, test, outputs = made
    norm, confidence = np.linalg.norm(test, axis=1), outputs.logits.double().softmax(1).amax(1).numpy()
    right = outputs.correct.numpy()
    rows = {(row["score"], row["given"]): row for row in rows_of(run, "Partial rank correlation")}
    own, _ = by_equation(train, test, 1.5)

    def left(score, *given):
        x = np.column_stack([np.ones(len(right)), *map(stats.rankdata, given)])
        pair = np.column_stack([stats.rankdata(score), right])
        return stats.pearsonr(*(pair - x @ np.linalg.lstsq(x, pair, rcond=None)[0]).T)[0]

    both = "feature norm and confidence"
    assert rows["Q-Score", "nothing"]["correlation"] == pytest.approx(left(own), abs=1e-4)
    assert rows["Q-Score", "confidence"]["correlation"] == pytest.approx(left(own, confidence), abs=1e-4)
    assert rows["Q-Score", both]["correlation"] == pytest.approx(left(own, norm, confidence), abs=1e-4)
    assert rows["feature norm", "confidence"]["correlation"] == pytest.approx(left(norm, confidence), abs=1e-9)
    assert ("feature norm", both) not in rows
    at_two = rows_of(run, "Q-Score over eps")[1]
    assert at_two["partial correlation"] == pytest.approx(left(by_equation(train, test, 2.0)[0], norm, confidence), abs=1e-4)
    assert run.summary["partial"] == rows["Q-Score", both]["correlation"]


def test_nested_regressions_are_judged_on_folds_they_have_not_seen(made):
    _, run, train, test, outputs = made
    right, own = outputs.correct.numpy(), by_equation(train, test, 1.5)[0]
    known = np.column_stack([np.linalg.norm(test, axis=1), outputs.logits.double().softmax(1).amax(1).numpy()])

    def area(x):
        odds = np.empty(len(right))
        for fit, judged in StratifiedKFold(4, shuffle=True, random_state=0).split(x, right):
            scaler = StandardScaler().fit(x[fit])
            model = LogisticRegression().fit(scaler.transform(x[fit]), right[fit])
            odds[judged] = model.decision_function(scaler.transform(x[judged]))
        return roc_auc_score(right, odds)

    row = next(r for r in rows_of(run, "Regressions") if r["known"] == "feature norm and confidence")
    with_it, without = area(np.column_stack([own, known])), area(known)
    assert (row["AUROC with"], row["AUROC without"]) == pytest.approx((with_it, without), abs=1e-3)
    assert row["what Q-Score adds"] == pytest.approx(row["AUROC with"] - row["AUROC without"], abs=1e-12)
    assert run.summary["gain"] == row["what Q-Score adds"]


def test_subsets_of_the_features(made):
    """Sizes, means over draws of the same draw as here, and the last row of all features."""
    _, run, train, test, outputs = made
    rows, right = rows_of(run, "Q-Score over the number of features"), outputs.correct.numpy()
    assert [row["features"] for row in rows] == [12, 24, 48] and [row["subsets"] for row in rows] == [2, 2, 1]
    generator = torch.Generator().manual_seed(0)
    torch.randperm(300, generator=generator)
    drawn = [torch.randperm(48, generator=generator)[:12].sort().values.numpy() for _ in range(2)]
    areas = [roc_auc_score(right, by_equation(train, test, 1.5, columns)[0]) for columns in drawn]
    assert rows[0]["AUROC"] == pytest.approx(np.mean(areas), abs=1e-3)
    assert (rows[0]["lowest"], rows[0]["highest"]) == pytest.approx((min(areas), max(areas)), abs=1e-3)
    norms = [roc_auc_score(right, np.linalg.norm(test[:, columns], axis=1)) for columns in drawn]
    assert rows[0]["norm's AUROC"] == pytest.approx(np.mean(norms), abs=1e-9)
    assert rows[-1]["AUROC"] == run.summary["auroc"]


def test_intervals_of_means_and_differences_are_of_the_same_resamples():
    """Against AUROC of the drawn samples themselves."""
    rng = np.random.default_rng(0)
    right = rng.random(80) < 0.6
    scores = {name: right + rng.normal(size=80) for name in "ab"}
    areas = Areas({n: torch.from_numpy(v) for n, v in scores.items()}, torch.from_numpy(right), BootstrapSettings(40, 2))
    drawn = torch.randint(80, (40, 80), generator=torch.Generator().manual_seed(2)).numpy()
    a, b = (np.array([roc_auc_score(right[rows], scores[name][rows]) for rows in drawn]) for name in "ab")
    for found, values in ((areas.of("a", "b"), (a + b) / 2), (areas.gain("a", "b"), a - b), (areas.of("b"), b)):
        assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=1e-12)


def test_figures_and_measures_hold_the_numbers(made):
    out, run, *_ = made
    for name in ("auroc", "eps", "features", "partial"):
        assert (out / "run" / f"{name}.svg").stat().st_size > 1000 and (out / "run" / f"{name}.csv").is_file()
    found = {(m.task, m.metric): m for m in run.measures}
    key = "failure prediction by Q-Score", "rank correlation with correctness given feature norm and confidence"
    assert (found[key].value, found[key].low, found[key].samples) == (run.summary["partial"], run.summary["partial_low"], 299)
    assert ("failure prediction by Q-Score", "AUROC added to feature norm and confidence") in found


def test_a_score_that_tells_more_than_norm_and_confidence_is_found_to(tmp_path):
    """Features whose active ones tell of the answer; shuffled answers leave nothing."""
    generator = torch.Generator().manual_seed(3)
    right = torch.rand(600, generator=generator) < 0.6
    x = torch.rand(1200, 40, generator=generator)
    height = 1.5 + 2.5 * torch.cat([torch.rand(600, generator=generator) < 0.6, right]).double()
    x[torch.arange(1200), torch.randint(40, (1200,), generator=generator)] = height.float()
    x *= (1 + torch.rand(1200, 1, generator=generator)) / x.norm(dim=1, keepdim=True)  # the norm tells nothing
    y = torch.zeros(600, dtype=torch.long)
    train, test = (write_store(tmp_path / n, part, y, dataset=n) for n, part in zip(("a", "b"), x.split(600), strict=True))
    settings = SignalSettings(grid=(), shares=())
    told = {}
    for name, answers in (("told", right), ("shuffled", right[torch.randperm(600, generator=generator)])):
        logits = torch.randn(600, 2, generator=generator)
        logits = torch.where((logits.argmax(1) == 0)[:, None] == answers[:, None], logits, logits.flip(1))
        outputs = ProbeOutputs.from_logits(logits, torch.tensor([0, 1]), y)
        assert torch.equal(outputs.correct, answers)
        told[name] = signal_study(train, test, outputs, settings, DiscoverSettings(0.5, 0, 100), BootstrapSettings(200))
    assert told["told"].summary["partial_low"] > 0.2 and told["told"].summary["gain_low"] > 0.1
    assert told["shuffled"].summary["partial_low"] < 0 < told["shuffled"].summary["partial_high"]
    assert "so that something of its own remains" in " ".join(told["told"].findings)
    over = signal_over_epochs({10: told["told"], 2: told["shuffled"]}, "made")
    rows = records(over.tables[0])
    assert [row["epoch"] for row in rows] == [2, 10]
    assert rows[1]["Q-Score"] == told["told"].summary["auroc"] and rows[1]["given both"] == told["told"].summary["partial"]
    assert "lies above 0 at 1 and below 0 at 0 of 2 epochs" in over.findings[1]
    over.save(tmp_path / "over")
    assert (tmp_path / "over" / "epochs.svg").stat().st_size > 1000


def test_sentences_follow_the_intervals():
    gains = {
        "a": (Interval(0.1, 0.05, 0.2), True),
        "b": (Interval(-0.1, -0.2, -0.05), True),
        "c": (Interval(0.0, -0.1, 0.1), False),
    }
    assert compared(gains) == [
        "Of the label-free scores, Q-Score is better than a; worse than b.",
        "Of the scores that use labels or are of others, Q-Score is not distinguishable from c.",
    ]
    assert "less wrong" in compared(gains, below=True)[-1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (SignalSettings(shares=(0.5, 1.0)), r"shares must lie between 0 and 1, got \[0.5, 1.0\]"),
        (SignalSettings(draws=0), "draws and rows must be at least 1, got 0 and 50000"),
    ],
)
def test_settings_out_of_range_are_refused(made, settings, message):
    out, *_, outputs = made
    with pytest.raises(ValueError, match=message):
        signal_study(FeatureStore(out / "train"), FeatureStore(out / "test"), outputs, settings)
    with pytest.raises(ValueError, match="got none"):
        signal_over_epochs({})


def test_a_single_wrong_answer_is_too_few(made):
    out, *_, outputs = made
    logits = torch.nn.functional.one_hot(torch.searchsorted(outputs.classes, outputs.labels), 3).float()
    logits[7] = logits[7].roll(1)
    nearly = ProbeOutputs.from_logits(logits, outputs.classes, outputs.labels, outputs.index)
    with (
        pytest.warns(UserWarning, match="not finite"),
        pytest.raises(ValueError, match="two right and two wrong samples, got 298 right of 299"),
    ):
        signal_study(FeatureStore(out / "train"), FeatureStore(out / "test"), nearly)
