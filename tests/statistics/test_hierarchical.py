"""Intervals over seeds and images: their coverage where the variance components are known, and an oracle in NumPy."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from sslk.statistics.hierarchical import crossed_auroc, crossed_mean, few_runs_factor


def simulated(components, runs, images, generator):
    """Values whose true mean is 0, from the variances of runs, of images and of both together."""
    of_run, of_image, of_both = (variance**0.5 for variance in components)
    return (
        of_run * torch.randn(runs, 1, generator=generator, dtype=torch.float64)
        + of_image * torch.randn(1, images, generator=generator, dtype=torch.float64)
        + of_both * torch.randn(runs, images, generator=generator, dtype=torch.float64)
    )


# Binomial deviation of a coverage of 0.95 in 300 trials: 0.0126. What runs and images do at random is counted twice: wider.
@pytest.mark.parametrize(
    ("components", "least", "most"),
    [((1, 0, 1), 0.91, 0.985), ((1e-4, 1, 0.01), 0.91, 0.985), ((0.01, 1, 1), 0.93, 1), ((0, 0, 1), 0.96, 1)],
    ids=["runs differ", "images differ", "both", "neither"],
)
def test_coverage_with_five_runs(components, least, most):
    generator, trials, hits, widths = torch.Generator().manual_seed(1), 300, 0, 0.0
    for trial in range(trials):
        found = crossed_mean(simulated(components, 5, 80, generator), resamples=300, seed=trial)
        hits += found.low <= 0 <= found.high
        widths += (found.high - found.low) / trials
    assert least <= hits / trials <= most
    true = (components[0] / 5 + components[1] / 80 + components[2] / 400) ** 0.5
    assert 0.9 < widths / (2 * 1.96 * true) < 1.8


def test_an_interval_over_images_alone_would_miss_the_seeds():
    generator, hits = torch.Generator().manual_seed(2), 0
    for trial in range(100):
        values = simulated((1, 0, 1), 5, 80, generator).mean(0)
        draws = np.random.default_rng(trial).integers(80, size=(300, 80))
        low, high = np.quantile(values.numpy()[draws].mean(1), [0.025, 0.975])
        hits += low <= 0 <= high
    assert hits < 50


def test_mean_is_that_of_a_bootstrap_written_out():
    values = simulated((0.5, 2, 1), 4, 60, torch.Generator().manual_seed(3)) + 7
    x, rng = values.numpy(), np.random.default_rng(0)
    k = (4 / 3) ** 0.5 * stats.t.ppf(0.975, 3) / 1.959963984540054
    replicates = [
        x[:, rng.integers(60, size=60)].mean() + k * (x[rng.integers(4, size=4)].mean() - x.mean()) for _ in range(20_000)
    ]
    found = crossed_mean(values, resamples=20_000)
    assert found.value == pytest.approx(x.mean(), abs=1e-12) and found.samples == 60
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(replicates, [0.025, 0.975])), abs=0.04)
    assert few_runs_factor(4) == pytest.approx(k)


def test_auroc_difference_is_paired_over_images_and_runs():
    generator = torch.Generator().manual_seed(4)
    right = torch.rand(5, 300, generator=generator) < 0.7
    score = torch.rand(5, 300, generator=generator, dtype=torch.float64) + 0.3 * right
    other = score + 0.05 * torch.rand(5, 300, generator=generator)
    found = crossed_auroc(score, right, other, right, resamples=300)
    areas = [roc_auc_score(r, s) - roc_auc_score(r, o) for r, s, o in zip(right, score, other, strict=True)]
    assert found.value == pytest.approx(np.mean(areas), abs=1e-12)
    alone = np.std([roc_auc_score(r, s) for r, s in zip(right, score, strict=True)])
    assert 0 < found.half_width < alone  # far narrower than what one arm's area moves by
    assert crossed_auroc(score, right, score, right, resamples=50)[:3] == (0, 0, 0)
    same = crossed_auroc(score, torch.ones_like(right), other, right, resamples=50)
    assert same.value != same.value  # no wrong answer, no area


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.zeros(1, 9), r"at least two of each, got \[1, 9\]"),
        (torch.tensor([[0.0, torch.nan], [0, 1]]), "values must be finite"),
    ],
)
def test_what_says_nothing_about_other_runs_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        crossed_mean(values)
    with pytest.raises(ValueError, match="resamples must be at least 2, got 1"):
        crossed_mean(torch.rand(2, 2), resamples=1)
