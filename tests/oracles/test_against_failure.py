"""The package's measures and baselines of failure prediction are those of the papers, ties and copies among them."""

import numpy as np
import pytest
import torch

from sslk.quality.answers import neighbour_answers
from sslk.quality.failure_baselines import neighbour_distance, neighbourhood_consistency, norm_and_largest, view_variance
from sslk.quality.failure_mahalanobis import Gaussians, mahalanobis_scores
from sslk.quality.failure_measures import failure_curves
from sslk.statistics.selective import MEASURES, Ranking, risk_coverage
from tests.oracles import failure
from tests.oracles.rows import ROWS
from tests.probes.stores import write_store

RNG = np.random.default_rng(23)


def cases():
    for name, scores in {
        "untied": RNG.normal(size=97),
        "tied": RNG.integers(0, 6, 97).astype(float),
        "all tied": np.zeros(31),
        "few": np.array([2.0, 1, 2, 3]),
        "close in float64": 1 + 1e-12 * RNG.integers(0, 40, 60),
        "huge": 1e200 * RNG.normal(size=40),
    }.items():
        wrong = RNG.integers(0, 2, len(scores))
        wrong[:2] = 0, 1
        yield pytest.param(scores, wrong, id=name)
    yield pytest.param(np.arange(50.0), (np.arange(50) < 9).astype(int), id="perfect")
    yield pytest.param(np.arange(50.0), (np.arange(50) > 9).astype(int), id="worst")
    yield pytest.param(RNG.normal(size=400), (RNG.random(400) < 0.02).astype(int), id="few wrong")
    # 19 of 20 right ones are exactly 95 %.
    yield pytest.param(np.r_[np.arange(20.0), 0.5, 5.5], np.r_[np.zeros(20, int), 1, 1], id="at the threshold")


def wanted(scores, wrong):
    """By name. AURC is the expectation over orders of tied samples, as the package says."""
    area = failure.aurc_expected(scores, wrong)
    return {
        "AUROC": failure.auroc(scores, 1 - wrong),
        "AUPRC": failure.auprc(scores, 1 - wrong),
        "AURC": area,
        "E-AURC": area - failure.optimal_aurc(wrong),
        "AUGRC": failure.augrc(scores, wrong),
        "FPR at 95 % TPR": failure.fpr_at_tpr(scores, 1 - wrong),
    }


@pytest.mark.parametrize(("scores", "wrong"), cases())
def test_measures_and_curves(scores, wrong):
    s, correct = torch.from_numpy(scores), torch.from_numpy(wrong == 0)
    found = dict(zip(MEASURES, Ranking(s, correct).measures()[0].tolist(), strict=True))
    curves = failure_curves(s, correct)
    for name, value in wanted(scores, wrong).items():
        # Sums of N numbers of order 1 in float64.
        assert found[name] == pytest.approx(value, rel=1e-12, abs=1e-13), name
        assert curves.measures[name] == pytest.approx(value, rel=1e-12, abs=1e-13), name
    coverage, selective, general = (part.numpy() for part in risk_coverage(s, correct))
    points = failure.risk_coverage_curve(scores, wrong)
    assert coverage == pytest.approx(points[0]) and selective == pytest.approx(points[1])
    assert general == pytest.approx(points[0] * points[1])


def test_resamples_are_measured_as_what_they_hold():
    scores, wrong = RNG.integers(0, 9, 40).astype(float), RNG.integers(0, 2, 40)
    times = RNG.multinomial(40, np.full(40, 1 / 40), size=4)
    found = Ranking(torch.from_numpy(scores), torch.from_numpy(wrong == 0)).measures(torch.from_numpy(times).float())
    for row, values in zip(times, found, strict=True):
        held = wanted(np.repeat(scores, row), np.repeat(wrong, row))
        assert values.tolist() == pytest.approx([held[name] for name in MEASURES], rel=1e-12, abs=1e-13)


def store(folder, rows, labels=None):
    return write_store(folder, torch.from_numpy(rows), torch.zeros(len(rows), dtype=torch.int64) if labels is None else labels)


@pytest.mark.parametrize("name", ["random", "relu, two dead", "copies", "far from zero", "large", "scales apart"])
def test_neighbours(name, tmp_path):
    rows = ROWS[name]
    labels = torch.from_numpy(RNG.integers(0, 2, len(rows)))
    test, train = store(tmp_path / "test", rows[:40], labels[:40]), store(tmp_path / "train", rows[40:])
    # Cosines of float32 are off by about eps, distances sqrt(2 - 2 cosine) by eps / distance, and by sqrt(2 eps) at 0.
    for k in (1, 5):
        far = failure.knn_distance(rows[:40], rows[40:], k)
        error = np.minimum(16e-7 / np.maximum(far, 1e-9), 2e-3)
        assert (np.abs(-neighbour_distance(test, train, k).numpy() - far) <= error).all()
    right = neighbour_answers(test).correct.numpy().astype(int)
    cosine = failure.unit_rows(rows[:40]) @ failure.unit_rows(rows[:40]).T
    np.fill_diagonal(cosine, -2)
    for answer, row, label in zip(right, cosine, labels[:40], strict=True):
        nearest = labels[:40].numpy()[row > row.max() - 1e-6]  # Of equally near ones, any.
        assert answer in (nearest == label.item())


def test_r_auroc_is_the_auroc_of_these_answers(tmp_path):
    rows, labels = ROWS["random"], torch.from_numpy(RNG.integers(0, 3, 130))
    answers = neighbour_answers(store(tmp_path / "s", rows, labels))
    scores = RNG.integers(0, 20, 130).astype(float)
    curves = failure_curves(torch.from_numpy(scores), answers.correct)
    assert curves.auroc == pytest.approx(failure.r_auroc(scores, rows, labels.numpy()), rel=1e-12)


@pytest.mark.parametrize("models", [2, 3])
@pytest.mark.parametrize("k", [1, 4, 30])
def test_neighbourhood_consistency(models, k, tmp_path):
    base = RNG.normal(size=(70, 6)).astype(np.float32)
    several = [base, base + RNG.normal(size=base.shape).astype(np.float32), RNG.normal(size=(70, 9)).astype(np.float32)][:models]
    tests = [store(tmp_path / f"test{i}", rows[:30]) for i, rows in enumerate(several)]
    banks = [store(tmp_path / f"bank{i}", rows[30:]) for i, rows in enumerate(several)]
    found = neighbourhood_consistency(tests, banks, k).numpy()
    assert found == pytest.approx(failure.neighbourhood_consistency([x[:30] for x in several], [x[30:] for x in several], k))


@pytest.mark.parametrize("name", ["random", "relu, two dead", "wide", "far from zero", "large", "scales apart", "copies"])
def test_mahalanobis(name, tmp_path):
    rows = ROWS[name]
    labels = torch.from_numpy(np.arange(len(rows)) % 3)
    half = len(rows) // 2
    train = store(tmp_path / "train", rows[:half], labels[:half])
    found = mahalanobis_scores(store(tmp_path / "test", rows[half:]), Gaussians(train))
    for answer, classes in (("Mahalanobis", None), ("Mahalanobis, class-wise", labels[:half].numpy())):
        assert -found[answer].numpy() == pytest.approx(failure.mahalanobis(rows[half:], rows[:half], classes), rel=1e-6), answer


def test_norm_largest_and_variance_over_views(tmp_path):
    rows = ROWS["relu, two dead"]
    norm, largest = norm_and_largest(store(tmp_path / "s", rows))
    assert norm.numpy() == pytest.approx(np.sqrt((rows.astype(float) ** 2).sum(1)))
    assert largest.tolist() == rows.max(1).tolist()
    views = RNG.normal(size=(12, 5, 4))
    unit = views / np.linalg.norm(views, axis=2, keepdims=True)
    assert -view_variance(torch.from_numpy(views)).numpy() == pytest.approx(unit.var(axis=1).sum(axis=1))
