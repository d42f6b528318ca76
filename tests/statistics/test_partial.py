"""Partial rank correlations against their formulas in NumPy and SciPy, and where they are not defined."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from sslk.statistics import partial_rank_correlations


def by_inverse(columns, right):
    """-P_12 / sqrt(P_11 P_22), P the inverse of the correlation matrix of ranks: score, answer, covariates."""
    score, *covariates = (stats.rankdata(column) for column in columns)
    inverse = np.linalg.inv(np.corrcoef([score, stats.rankdata(right), *covariates]))
    return -inverse[0, 1] / math.sqrt(inverse[0, 0] * inverse[1, 1])


def by_residuals(columns, right):
    """Pearson's correlation of what least squares on the covariates' ranks leave."""
    ranks = [stats.rankdata(column) for column in columns]
    x = np.column_stack([np.ones(len(right)), *ranks[1:]])
    pair = np.column_stack([ranks[0], stats.rankdata(right)])
    left = pair - x @ np.linalg.lstsq(x, pair, rcond=None)[0]
    return stats.pearsonr(*left.T)[0]


def made(n=400, seed=0, *, tied=False):
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=n)
    right = hidden + rng.normal(size=n) > -0.4
    scores = {"a": hidden + rng.normal(size=n), "b": np.exp(hidden + rng.normal(size=n)), "c": right + rng.normal(size=n)}
    if tied:
        scores = {name: np.round(values) for name, values in scores.items()}
    return {name: torch.from_numpy(values) for name, values in scores.items()}, torch.from_numpy(right)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("known", [(), ("b",), ("b", "c")])
def test_values_are_those_of_the_formulas(tied, known):
    scores, right = made(tied=tied)
    found = partial_rank_correlations(scores, right, [known], resamples=20).values[known]
    assert set(found) == set(scores) - set(known)
    columns = [scores[name].numpy() for name in ("a", *known)]
    for formula in (by_inverse, by_residuals):
        assert found["a"].value == pytest.approx(formula(columns, right.numpy()), abs=1e-12)
    if not known:
        assert found["a"].value == pytest.approx(stats.spearmanr(scores["a"], right)[0], abs=1e-12)


def test_without_covariates_it_is_auroc_on_another_scale():
    """Without ties `rho = (AUROC - 1/2) sqrt(12 a (1 - a)) N / sqrt(N^2 - 1)`."""
    scores, right = made()
    n, share = len(right), right.double().mean().item()
    found = partial_rank_correlations(scores, right, resamples=20).values[()]
    for name, values in scores.items():
        expected = (roc_auc_score(right, values) - 0.5) * math.sqrt(12 * share * (1 - share)) * n / math.sqrt(n * n - 1)
        assert found[name].value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("tied", [False, True])
def test_every_resample_is_ranked_anew(tied):
    """Against the formula on the drawn rows themselves, copies included; several blocks of resamples."""
    scores, right = made(60, seed=1, tied=tied)
    resamples, seed = 3000, 5
    found = partial_rank_correlations(scores, right, [("b",)], resamples, seed).values[("b",)]["a"]
    generator = torch.Generator().manual_seed(seed)
    # Drawn in blocks of 1 MiB of float64 for 60 samples.
    drawn = [rows for size in (2184, 816) for rows in torch.randint(60, (size, 60), generator=generator).numpy()]
    values = [by_residuals([scores[name].numpy()[rows] for name in "ab"], right.numpy()[rows]) for rows in drawn]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=1e-10)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """The score and the covariate are independent copies of one cause plus noise: 150 data sets, the truth from a large one."""
    truth = partial_rank_correlations(*made(200_000, seed=9), [("b",)], resamples=2).values[("b",)]["a"].value
    inside = 0
    for seed in range(150):
        found = partial_rank_correlations(*made(150, seed=seed + 100), [("b",)], resamples=200).values[("b",)]["a"]
        inside += found.low <= truth <= found.high
    assert 0.88 <= inside / 150 <= 0.99


def test_what_is_known_already_or_says_nothing_has_no_correlation():
    scores, right = made()
    scores |= {"constant": torch.ones(400), "copy": torch.exp(scores["a"])}
    found = partial_rank_correlations(scores, right, [(), ("a",), ("constant", "a", "copy")], resamples=50).values
    assert math.isnan(found[()]["constant"].value) and math.isnan(found[()]["constant"].low)
    assert math.isnan(found[("a",)]["copy"].value), "a monotone function of what is given"
    # A constant and a copy among the covariates change nothing.
    assert found[("constant", "a", "copy")]["b"].value == pytest.approx(found[("a",)]["b"].value, abs=1e-12)


def test_samples_without_a_score_are_left_out_and_said():
    scores, right = made()
    kept = torch.ones(400, dtype=torch.bool)
    kept[[3, 50]] = False
    holed = {**scores, "a": scores["a"].clone(), "c": scores["c"].clone()}
    holed["a"][3], holed["c"][50] = torch.nan, torch.inf
    found = partial_rank_correlations(holed, right, [("b",)], resamples=30)
    whole = partial_rank_correlations({n: v[kept] for n, v in scores.items()}, right[kept], [("b",)], resamples=30)
    assert found.values == whole.values and (found.samples, found.missing, whole.missing) == (398, 2, 0)
    assert found.said() == ["2 of 400 samples lack a score (NaN or infinity): partial correlations are without them."]
    assert whole.said() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correct": torch.ones(400, dtype=torch.bool)}, "right and wrong samples that have every score, got 400 right of 400"),
        ({"given": [("norm",)]}, "given must name scores, got 'norm'; there are a, b, c"),
        ({"correct": torch.ones(3, dtype=torch.bool)}, r"got a \[400\] and \[3\]"),
        ({"resamples": 1}, "resamples must be at least 2, got 1"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    scores, right = made()
    with pytest.raises(ValueError, match=message):
        partial_rank_correlations(**{"scores": scores, "correct": right} | change)
