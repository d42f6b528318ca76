"""AURC, E-AURC, AUGRC and FPR at 95 % TPR against their definitions, ties averaged over all orders."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

import sslk
from sslk.quality import failure_curves
from sslk.statistics import bootstrap_measures
from sslk.statistics.selective import MEASURES, Ranking, risk_coverage


def orders(scores):
    """Every order of the samples in which none stands before one of a higher score."""
    n = len(scores)
    return [p for p in itertools.permutations(range(n)) if all(scores[p[i]] >= scores[p[i + 1]] for i in range(n - 1))]


def aurc_of(errors):
    """Mean over the coverages k / N of the share of errors among the first k."""
    return np.mean([np.mean(errors[:k]) for k in range(1, len(errors) + 1)])


def augrc_of(errors):
    """Area by the trapezoid under (k / N, errors among the first k / N), from (0, 0)."""
    n = len(errors)
    risks = [sum(errors[:k]) / n for k in range(n + 1)]
    return sum((risks[k] + risks[k + 1]) / 2 / n for k in range(n))


def fpr95_of(scores, right):
    """The least share of wrong samples at a threshold that keeps 95 % of the right ones."""
    rates = []
    for threshold in scores:
        kept = [s >= threshold for s in scores]
        true = sum(k and r for k, r in zip(kept, right, strict=True))
        false = sum(k and not r for k, r in zip(kept, right, strict=True))
        if 100 * true >= 95 * sum(right):
            rates.append(false / (len(right) - sum(right)))
    return min(rates)


def slow(scores, right):
    """All measures by definition, float64."""
    errors = [float(not r) for r in right]
    tied = orders(scores)
    best = min(aurc_of([errors[i] for i in p]) for p in itertools.permutations(range(len(errors))))
    aurc = np.mean([aurc_of([errors[i] for i in p]) for p in tied])
    augrc = np.mean([augrc_of([errors[i] for i in p]) for p in tied])
    areas = roc_auc_score(right, scores), average_precision_score(right, scores)
    return [*areas, aurc, aurc - best, augrc, fpr95_of(scores, right)]


def example(n, levels, seed, wrong=0.4):
    generator = torch.Generator().manual_seed(seed)
    right = torch.rand(n, generator=generator) >= wrong
    right[0], right[1] = True, False
    scores = torch.rand(n, generator=generator, dtype=torch.float64) + 0.3 * right
    return (scores * levels).round() / levels, right


@pytest.mark.parametrize(("n", "levels"), [(2, 1), (5, 2), (6, 3), (6, 1), (7, 4), (7, 1000)])
@pytest.mark.parametrize("seed", range(4))
def test_measures_are_their_definitions_over_all_orders_of_ties(n, levels, seed):
    scores, right = example(n, levels, seed)
    found = Ranking(scores, right).measures()[0]
    np.testing.assert_allclose(found, slow(scores.tolist(), right.tolist()), rtol=0, atol=1e-12)
    curves = failure_curves(scores, right)
    assert list(curves.measures) == list(MEASURES)
    np.testing.assert_allclose(list(curves.measures.values()), found, atol=1e-12)


def test_known_orders():
    right = torch.tensor([True] * 6 + [False] * 3)
    place = torch.arange(9, 0, -1.0)
    best, worst, constant = (
        dict(zip(MEASURES, Ranking(s, right).measures()[0].tolist(), strict=True)) for s in (place, -place, torch.zeros(9))
    )
    assert best["E-AURC"] == pytest.approx(0) and best["FPR at 95 % TPR"] == 0 and best["AUGRC"] == pytest.approx(1 / 18)
    assert best["AURC"] == pytest.approx((1 / 7 + 2 / 8 + 3 / 9) / 9)
    assert worst["AURC"] == pytest.approx((3 + sum(3 / k for k in range(4, 10))) / 9) and worst["FPR at 95 % TPR"] == 1
    assert constant["AURC"] == pytest.approx(1 / 3) and constant["AUGRC"] == pytest.approx(1 / 6)
    assert constant["AUROC"] == 0.5 and constant["FPR at 95 % TPR"] == 1


@pytest.mark.parametrize("place", [1, 4, 10])
def test_one_wrong_sample(place):
    """Behind k - 1 right ones it costs 1/N sum_{i >= k} 1/i."""
    right = torch.ones(10, dtype=torch.bool)
    right[place - 1] = False
    found = dict(zip(MEASURES, Ranking(torch.arange(10, 0, -1.0), right).measures()[0].tolist(), strict=True))
    assert found["AURC"] == pytest.approx(sum(1 / i for i in range(place, 11)) / 10)
    assert found["E-AURC"] == pytest.approx(sum(1 / i for i in range(place, 10)) / 10)
    assert found["FPR at 95 % TPR"] == float(place < 10)


@pytest.mark.parametrize(("right", "kept"), [(20, 19), (100, 95), (101, 96), (40, 38)])
def test_at_least_95_percent_of_the_right_ones_are_kept(right, kept):
    """A wrong sample behind every right one: those above the last one that is kept are the false ones."""
    correct = torch.tensor([True, False] * right)
    scores = torch.arange(2 * right, 0, -1.0)
    found = float(Ranking(scores, correct).measures()[0, 5])
    assert found == pytest.approx((kept - 1) / right) == fpr95_of(scores.tolist(), correct.tolist())


@pytest.mark.parametrize(("n", "levels"), [(50, 3), (400, 1), (400, 7), (1000, 10**6)])
def test_augrc_follows_from_auroc_and_accuracy(n, levels):
    scores, right = example(n, levels, seed=n)
    found = Ranking(scores, right).measures()[0]
    accuracy = float(right.double().mean())
    expected = (1 - float(found[0])) * accuracy * (1 - accuracy) + (1 - accuracy) ** 2 / 2
    assert float(found[4]) == pytest.approx(expected, abs=1e-13)


def test_the_order_of_the_input_does_not_matter():
    scores, right = example(300, 5, seed=0)
    shuffled = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    one, other = Ranking(scores, right).measures(), Ranking(scores[shuffled], right[shuffled]).measures()
    np.testing.assert_allclose(one, other, atol=1e-13)


def test_resamples_are_judged_as_if_drawn_one_by_one():
    scores, right = example(120, 6, seed=2)
    found = bootstrap_measures({"a": scores, "b": -scores}, right, resamples=7, seed=3)
    drawn = torch.randint(120, (7, 120), generator=torch.Generator().manual_seed(3))
    for rows, first, second in zip(drawn, found["a"], found["b"], strict=True):
        np.testing.assert_allclose(first, Ranking(scores[rows], right[rows]).measures()[0], atol=1e-12)
        np.testing.assert_allclose(second, Ranking(-scores[rows], right[rows]).measures()[0], atol=1e-12)


def test_risk_coverage_ends_at_the_error_rate():
    scores, right = example(200, 9, seed=4)
    coverage, selective, general = risk_coverage(scores, right)
    assert coverage[-1] == 1 and float(selective[-1]) == pytest.approx(1 - float(right.double().mean()))
    for threshold, covered, risk, whole in zip(scores.unique().flip(0), coverage, selective, general, strict=True):
        kept = scores >= threshold
        assert float(covered) == pytest.approx(float(kept.double().mean()))
        assert float(risk) == pytest.approx(1 - float(right[kept].double().mean()))
        assert float(whole) == pytest.approx(float((kept & ~right).double().mean()))


def test_intervals_of_all_measures_are_in_pairs():
    scores, right = example(400, 10**6, seed=5)
    same = sslk.failure_prediction(scores, right, others={"twin": 2 * scores + 1}, resamples=100)
    for measure in MEASURES:
        own, twin = (same.intervals[name].measures[measure] for name in ("Q-Score", "twin"))
        assert own.low <= own.value <= own.high and own == twin
        assert same.intervals["twin"].gains[measure][:3] == (0, 0, 0)
