"""The package's similarities are those of the papers, whatever the widths, ranks and scales of the two."""

import numpy as np
import pytest
import torch

from sslk.similarity import SimilaritySettings, angular_distance, compare, mutual_knn, procrustes_distance, rsa
from tests.oracles import similarity
from tests.oracles.rows import CONSTANT, ROWS

RNG = np.random.default_rng(31)
MEASURES = ("cka_debiased", "cka_biased", "cca", "svcca", "pwcca", "procrustes", "angular", "mutual_knn", "rsa")
EXACT = SimilaritySettings(MEASURES, k=3, permutations=0, resamples=0)


def partner(rows, width):
    """Other features of the same samples: partly the same, partly noise."""
    part = rows.astype(float) @ RNG.normal(size=(rows.shape[1], width)) / np.sqrt(rows.shape[1])
    return (part + rows.std() * (RNG.normal(size=(len(rows), width)) + 1)).astype(np.float32)


PAIRS = {name: (rows[:130], partner(rows[:130], 4)) for name, rows in ROWS.items()}
PAIRS["wider"] = (ROWS["random"], partner(ROWS["random"], 60))
PAIRS["copied columns"] = (
    np.c_[ROWS["random"], ROWS["random"][:, :5], np.ones((130, 1))].astype(np.float32),
    ROWS["random"][:, 3:],
)
PAIRS["four rows"] = (ROWS["random"][:4], ROWS["power law"][:4, :9])
PAIRS["independent"] = (ROWS["random"], RNG.normal(size=(130, 7)).astype(np.float32))


def wanted(measure, x, y):
    """Ranks at the tolerance of the package: what sums of float64 products can tell from rounding."""
    rtol = (max(len(x), x.shape[1], y.shape[1]) * np.finfo(float).eps) ** 0.5
    return {
        "cka_debiased": lambda: similarity.cka(x, y),
        "cka_biased": lambda: similarity.cka(x, y, debiased=False),
        "cca": lambda: (similarity.cca_correlations(x, y, rtol) ** 2).mean(),
        "svcca": lambda: similarity.svcca(x, y),
        "pwcca": lambda: similarity.pwcca(x, y, rtol),
        "procrustes": lambda: similarity.procrustes(x, y),
        "angular": lambda: similarity.angular(x, y),
        "mutual_knn": lambda: similarity.mutual_knn(x, y, min(3, len(x) - 1)),
        "rsa": lambda: similarity.rsa(x, y),
    }[measure]()


@pytest.mark.parametrize("name", PAIRS)
def test_every_measure(name):
    x, y = PAIRS[name]
    found = compare({"x": torch.from_numpy(x), "y": torch.from_numpy(y)}, EXACT)
    for measure in MEASURES:
        matrix = found.matrices[measure].value
        if name == "one column" and measure in ("mutual_knn", "rsa"):
            continue  # Cosines are all 1 or -1, and rows of one feature have no correlation.
        value = wanted(measure, x, y)
        assert matrix[0, 1].item() == pytest.approx(value, rel=1e-6, abs=1e-7, nan_ok=True), measure
        other = wanted(measure, y, x) if measure == "pwcca" else value
        assert matrix[1, 0].item() == pytest.approx(other, rel=1e-6, abs=1e-7, nan_ok=True), measure
        same = 0 if measure in ("procrustes", "angular") else 1
        assert matrix[0, 0].item() == pytest.approx(same, abs=1e-6, nan_ok=True), measure


@pytest.mark.parametrize("name", ["random", "low rank", "wide", "copies", "far from zero", "scales apart"])
def test_functions_of_two_arrays(name):
    x, y = PAIRS[name]
    assert procrustes_distance(x, y) == pytest.approx(similarity.procrustes(x, y), abs=1e-9)
    assert angular_distance(x, y) == pytest.approx(similarity.angular(x, y), abs=1e-8)
    assert rsa(x, y) == pytest.approx(similarity.rsa(x, y), abs=1e-9)
    assert rsa(x, y, "euclidean") == pytest.approx(similarity.rsa(x, y, "euclidean"), abs=1e-6)
    if name != "copies":
        assert mutual_knn(x.astype(float), y.astype(float), 5) == pytest.approx(similarity.mutual_knn(x, y, 5))


def test_a_constant_is_like_nothing():
    other = RNG.normal(size=(30, 5)).astype(np.float32)
    found = compare({"x": torch.from_numpy(CONSTANT), "y": torch.from_numpy(other)}, EXACT)
    for measure in ("cka_debiased", "cka_biased", "cca", "svcca", "pwcca", "procrustes", "mutual_knn"):
        assert np.isnan(found.matrices[measure].value[0, 1].item()), measure
    assert np.isnan(similarity.cka(CONSTANT, other)) and np.isnan(similarity.mean_cca(CONSTANT, other))
