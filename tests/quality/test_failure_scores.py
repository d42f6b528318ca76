"""Scores of others from files, and what Q-Score adds to others in a combination."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

import sslk
from sslk.features import FeatureStore, StoreSpec, StoreWriter
from sslk.features.names import packed, sha256_of, write_names
from sslk.quality import combined, neighbour_answers, read_scores
from sslk.quality.external_scores import read_all_scores
from sslk.statistics.selective import Ranking
from tests.probes.stores import features, write_store


def named_store(folder, names):
    """Samples 5, 6, ... in reverse, by name."""
    data = packed(["?"] * 5 + names)
    count = len(names)
    spec = StoreSpec("m", "0" * 64, "d", "0" * 64, "none", samples=5 + count, num_features=3, names=sha256_of(data))
    with StoreWriter(folder, spec) as writer:
        index = torch.arange(5, 5 + count).flip(0)
        skipped = tuple((row, "unreadable") for row in range(5))
        writer.write(0, torch.rand(count, 3), torch.zeros(count).long(), index, skipped)
    write_names(folder, data, spec)
    return FeatureStore(folder)


@pytest.fixture
def store(tmp_path):
    return named_store(tmp_path / "s", ["a.png", "b.png", "c.png", "d.png"])


EXPECTED = [0.4, 0.3, 0.2, 0.1]  # of samples 8, 7, 6, 5


@pytest.mark.parametrize(
    "text",
    [
        "index,mine\n6,0.2\n5,0.1\n8,0.4\n7,0.3\n",
        "index,label,mine\n5,0,0.1\n6,0,0.2\n7,0,0.3\n8,0,0.4\n",
        "name,mine\nb.png,0.2\na.png,0.1\nd.png,0.4\nc.png,0.3\n",
        "image,mine\nb.png,0.2\na.png,0.1\nd.png,0.4\nc.png,0.3\n",
        "index,image,mine\n6,x,0.2\n5,x,0.1\n8,x,0.4\n7,x,0.3\n",  # the index counts
    ],
)
def test_csv_is_joined_by_sample(tmp_path, store, text):
    (tmp_path / "f.csv").write_text(text)
    assert {name: values.tolist() for name, values in read_scores(tmp_path / "f.csv", store).items()} == {"mine": EXPECTED}


def test_npz_is_joined_by_index_or_by_row(tmp_path, store):
    np.savez(tmp_path / "a.npz", index=np.array([5, 6, 7, 8]), mine=np.array([0.1, 0.2, 0.3, 0.4]), n=np.arange(4))
    np.savez(tmp_path / "b.npz", other=np.array(EXPECTED))
    found = read_all_scores([tmp_path / "a.npz", tmp_path / "b.npz"], store)
    assert {name: values.tolist() for name, values in found.items()} == {"mine": EXPECTED, "n": [3, 2, 1, 0], "other": EXPECTED}
    with pytest.raises(ValueError, match=r"a.npz names 'mine', as an earlier file does: rename the column"):
        read_all_scores([tmp_path / "a.npz"] * 2, store)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("index,mine\n5,1\n6,1\n7,1\n", r"lacks 1 of the store's 4 samples, the first is 8"),
        ("index,mine\n5,1\n6,1\n7,1\n8,1\n8,1\n", "has two rows for sample 8; 1 rows are too many"),
        ("index,mine\n5,1\n6,1\n7,1\n8,1\n4,1\n", "has 1 rows of no sample of the store, the first of sample 4"),
        ("name,mine\na.png,1\nx.png,1\n", "has 1 rows of no sample of .*, the first of 'x.png'"),
        ("index,mine\n5,1\n6,high\n7,1\n8,1\n", "must hold numbers in its column mine, got 'high' in row 2"),
        ("index,mine\n5.5,1\n", "must hold whole numbers in its column index"),
        ("index,mine\n,1\n", "must hold numbers in its column index, got ''"),
        ("mine\n1\n", "needs a column index, image or name, which says whose a score is"),
        ("index,label\n5,1\n6,1\n7,1\n8,1\n", "holds no score"),
        ("index,mine,mine\n5,1,1\n", "has two columns of one name"),
        ("index,mine\n5,1,2\n", "has 3 cells in row 1, its header 2"),
        ("", "needs a column index"),
    ],
)
def test_faults_of_a_csv_are_named(tmp_path, store, text, message):
    (tmp_path / "f.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_scores(tmp_path / "f.csv", store)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mine": np.ones(3)}, r"must hold mine as numbers \[4\], as many as the store's rows, got float64 \[3\]"),
        ({"index": np.arange(5, 9), "mine": np.ones((4, 2))}, r"as many as its index, got float64 \[4, 2\]"),
        ({"index": np.arange(5, 9) / 2, "mine": np.ones(4)}, "must hold index as whole numbers"),
        ({"index": np.array([5, 6, 7, 7]), "mine": np.ones(4)}, "two rows for sample 7"),
        ({"index": np.arange(5, 9)}, "holds no score"),
        ({"mine": np.array(list("abcd"))}, "as numbers"),
    ],
)
def test_faults_of_an_npz_are_named(tmp_path, store, arrays, message):
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        read_scores(tmp_path / "f.npz", store)


def test_names_that_are_absent_or_given_twice_are_refused(tmp_path):
    (tmp_path / "f.csv").write_text("name,mine\na,1\n")
    with pytest.raises(ValueError, match="names two samples 'a': give the column index"):
        read_scores(tmp_path / "f.csv", named_store(tmp_path / "twice", ["a", "a"]))
    with pytest.raises(ValueError, match="holds no names: give the column index"):
        read_scores(tmp_path / "f.csv", write_store(tmp_path / "none", *features(4)))


def test_samples_without_a_score_are_left_out_of_all(tmp_path, store):
    (tmp_path / "f.csv").write_text("index,mine\n5,\n6,nan\n7,0.3\n8,0.4\n")
    assert read_scores(tmp_path / "f.csv", store)["mine"].isnan().tolist() == [False, False, True, True]
    generator = torch.Generator().manual_seed(0)
    right, scores = torch.rand(60, generator=generator) < 0.5, torch.rand(60, generator=generator)
    mine = torch.rand(60, generator=generator)
    mine[[1, 2]], scores[3] = torch.nan, torch.nan
    with pytest.warns(UserWarning, match=r"mine is missing \(NaN or infinity\) for 2 of 59 samples: they are left out of every"):
        found = sslk.failure_prediction(scores, right, others={"mine": mine}, resamples=20)
    keep = [row for row in range(60) if row not in (1, 2, 3)]
    assert found.missing == {"mine": 2} and found.nonfinite == 1 and len(found.correct) == 57
    assert found.qscore.auroc == pytest.approx(roc_auc_score(right[keep], scores[keep]))
    assert found.baselines["mine"].auroc == pytest.approx(roc_auc_score(right[keep], mine[keep]))
    assert set(found.intervals) == {"Q-Score", "mine"}


@pytest.mark.parametrize("name", ["Q-Score", "feature norm"])
def test_a_score_cannot_take_the_name_of_another(name):
    with pytest.raises(ValueError, match=f"others must have names of their own, '{name}' is one of"):
        sslk.failure_prediction(torch.rand(9), torch.arange(9) % 2, features=torch.rand(9, 3), others={name: torch.rand(9)})
    with pytest.raises(ValueError, match=r"others\['mine'\] must have the 9 rows of scores, got 8"):
        sslk.failure_prediction(torch.rand(9), torch.arange(9) % 2, others={"mine": torch.rand(8)})


def test_r_auroc_is_the_auroc_of_neighbours(tmp_path):
    x, y = features(160, signed=True)
    y[3] = -1
    store = write_store(tmp_path / "s", x, y)
    answers, scores = neighbour_answers(store), torch.rand(160, generator=torch.Generator().manual_seed(0))
    found = sslk.failure_prediction(scores, answers, features=store)
    assert found.qscore.auroc == pytest.approx(roc_auc_score(answers.correct, scores[answers.rows]))
    assert set(found.baselines) == {"feature norm", "max feature"} and len(found.correct) == 159


def example(n=800, told=0.8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    right = torch.rand(n, generator=generator) < 0.6
    first = torch.randn(n, generator=generator) + told * right
    return {"Q-Score": first, "norm": torch.randn(n, generator=generator) * 50 + 20 * right}, right


def test_a_combination_is_scikit_learns_on_held_out_folds():
    scores, right = example()
    found = combined(scores, right, folds=4, resamples=50, seed=7)
    x, y = torch.stack([*scores.values()], 1).double().numpy(), right.numpy()
    expected = np.empty(len(y))
    for fit, held in StratifiedKFold(4, shuffle=True, random_state=7).split(x, y):
        mean, std = x[fit].mean(0), x[fit].std(0)
        expected[held] = LogisticRegression().fit((x[fit] - mean) / std, y[fit]).decision_function((x[held] - mean) / std)
    np.testing.assert_allclose(found.with_it, expected, rtol=1e-9)
    auroc = {"with": roc_auc_score(y, expected), "without": float(Ranking(found.without_it, right).measures()[0, 0])}
    for which, value in auroc.items():
        assert found.measures[which]["AUROC"].value == pytest.approx(value)
    assert found.gains["AUROC"].value == pytest.approx(auroc["with"] - auroc["without"])
    assert found.gains["AUROC"].low > 0 and found.coefficients["Q-Score"].low > 0


def test_noise_adds_nothing_and_is_not_learned_by_heart():
    """Thirty scores of pure noise on 120 samples: fitted and judged on the same answers they would reach 0.8."""
    generator = torch.Generator().manual_seed(1)
    right = torch.rand(120, generator=generator) < 0.5
    scores = {"Q-Score": torch.randn(120, generator=generator)}
    scores |= {str(i): torch.randn(120, generator=generator) for i in range(30)}
    found = combined(scores, right, resamples=200)
    assert abs(found.measures["with"]["AUROC"].value - 0.5) < 0.12
    assert found.gains["AUROC"].low < 0 < found.gains["AUROC"].high
    interval = found.coefficients["Q-Score"]
    assert interval.low < 0 < interval.high


def test_coefficients_have_the_width_of_their_sampling_error():
    spread = [combined(*example(seed=seed), resamples=2).coefficients["Q-Score"] for seed in range(20)]
    values = np.array([interval.value for interval in spread])
    assert values.std() == pytest.approx(np.mean([i.half_width for i in spread]) / 1.96, rel=0.45)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": {"Q-Score": torch.rand(9)}}, "must hold Q-Score and another score, got Q-Score"),
        ({"folds": 1}, r"folds must lie in \[2, 4\], the samples of the rarer answer, got 1"),
        ({"folds": 5}, r"folds must lie in \[2, 4\]"),
        ({"scores": {"Q-Score": torch.rand(9), "a": torch.full((9,), torch.nan)}}, "scores must be finite"),
    ],
)
def test_a_combination_names_its_arguments(change, message):
    arguments = {"scores": {"Q-Score": torch.rand(9), "a": torch.rand(9)}, "folds": 2, **change}
    with pytest.raises(ValueError, match=message):
        combined(arguments.pop("scores"), torch.arange(9) % 2 == 0, **arguments)
