"""Intervals cover, are as wide as those of redrawn samples, and differences are judged on the same resamples."""

import numpy as np
import pytest
import torch

from sslk.similarity import SimilaritySettings, compare

MEASURES = ("cka_debiased", "cca", "procrustes", "angular", "rsa", "cka_rbf", "mutual_knn")


def draw(n, seed):
    """Two related representations of n samples of one population."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=g, dtype=torch.float64) * torch.tensor([2.0, 1.5, 1.0, 0.7])
    mix = torch.randn(4, 6, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    return x, x @ mix + torch.randn(n, 6, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("measure", MEASURES)
def test_intervals_are_as_wide_as_those_of_new_samples(measure):
    plain = SimilaritySettings((measure,), permutations=0, resamples=0)
    values, widths = [], []
    for seed in range(60):
        x, y = draw(150, seed)
        values.append(float(compare({"x": x, "y": y}, plain).matrices[measure].value[0, 1]))
    for seed in range(4):
        x, y = draw(150, seed)
        matrix = compare({"x": x, "y": y}, SimilaritySettings((measure,), permutations=0, resamples=400)).matrices[measure]
        assert matrix.low[0, 1] < matrix.value[0, 1] < matrix.high[0, 1]
        widths.append(float((matrix.high - matrix.low)[0, 1]))
    ratio = np.mean(widths) / (2 * 1.96 * np.std(values))
    # Of mutual k-NN only the rows' own shares move; that they are others' neighbours too is left out, and documented.
    assert (0.4 < ratio < 0.9) if measure == "mutual_knn" else (0.6 < ratio < 1.4)


def test_differences_are_on_the_same_resamples():
    x, y = draw(200, 0)
    settings = SimilaritySettings(("cka_debiased", "rsa"), permutations=0, resamples=300)
    found = compare({"x": x, "y": y, "y again": y * 2}, settings)
    for measure in settings.measures:
        same = found.difference(measure, ("x", "y"), ("x", "y again"))
        assert abs(same.value) < 1e-6 and same.high - same.low < 1e-5
    with pytest.raises(ValueError, match="pair must name representations of x, y, y again, got 'z'"):
        found.difference("rsa", ("x", "z"), ("x", "y"))


def test_the_seed_decides():
    x, y = draw(80, 0)
    low = [
        compare({"x": x, "y": y}, SimilaritySettings(("rsa",), permutations=0, resamples=50, seed=s, sample=40))
        .matrices["rsa"]
        .low
        for s in (3, 3, 4)
    ]
    assert torch.equal(low[0], low[1]) and not torch.equal(low[0], low[2])
