"""Every measure equals its slow oracle, has its invariances and known answers, and equals public code where that is right."""

import itertools
import math

import numpy as np
import pytest
import torch

from sslk.similarity import (
    MEASURES,
    SimilaritySettings,
    angular_distance,
    compare,
    mutual_knn,
    permutation_test,
    procrustes_distance,
    rsa,
)
from sslk.similarity.settings import DISTANCES, PERMUTED, STREAMED
from tests.masked import oracle as grams
from tests.similarity import oracle

ALL = SimilaritySettings(measures=tuple(MEASURES), permutations=0, resamples=0, k=5)


def gaussian(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def related(n, widths, seed=0, noise=0.5):
    """Representations of different widths that share structure, far from the origin."""
    shared = gaussian(n, 4, seed)
    return {
        f"r{d}": shared @ gaussian(4, d, seed + d) + noise * gaussian(n, d, seed + 100 + d) + 3 * torch.arange(d) for d in widths
    }


def expected(xs, k=5):
    """All measures by their oracles, `[V, V]`."""

    def every(of):
        return np.array([[of(a, b) for b in xs] for a in xs])

    linear = grams.linear_grams(xs)
    return {
        "cka_debiased": grams.cka(linear, grams.hsic_unbiased),
        "cka_biased": grams.cka(linear, grams.hsic_biased),
        "cca": grams.cca(xs),
        "svcca": grams.svcca(xs),
        "pwcca": grams.pwcca(xs),
        "procrustes": every(oracle.procrustes),
        "angular": every(lambda a, b: 0.0 if a is b else oracle.angular(a, b)),
        "mutual_knn": every(lambda a, b: oracle.mutual_knn(a, b, k)),
        "rsa": every(lambda a, b: oracle.rsa(a, b, "correlation", "spearman")),
        "cka_rbf": grams.cka(grams.rbf_grams(xs, 1.0), grams.hsic_unbiased),
    }


@pytest.mark.parametrize("rows", [60, 9], ids=["more rows than features", "fewer"])
def test_every_measure_equals_its_oracle(rows, monkeypatch):
    monkeypatch.setattr("sslk.similarity.sources.READ_ROWS", 7)
    parts = related(rows, (6, 3, 11))
    found = compare(parts, ALL)
    wanted = expected([part.numpy() for part in parts.values()])
    assert wanted.keys() == found.matrices.keys() == MEASURES.keys()
    for measure, matrix in wanted.items():
        np.testing.assert_allclose(found.matrices[measure].value, matrix, atol=2e-7, err_msg=measure)
    assert found.ranks == {name: min(rows - 1, part.shape[1]) for name, part in parts.items()}


@pytest.mark.parametrize("dissimilarity", ["correlation", "euclidean"])
@pytest.mark.parametrize("correlation", ["spearman", "pearson", "cosine"])
def test_rsa_equals_its_oracle_with_ties(dissimilarity, correlation):
    x, y = gaussian(20, 4, 0).numpy(), gaussian(20, 7, 1).numpy()
    x[5] = x[6]
    y[1:4] = y[0]
    assert rsa(x, y, dissimilarity, correlation) == pytest.approx(oracle.rsa(x, y, dissimilarity, correlation), abs=1e-9)


def sines():
    """The data of the reference numbers below."""
    i, a, b = np.arange(120.0)[:, None], np.arange(7), np.arange(5)
    x = np.sin(i * (1 + a) * 0.37 + a**2) * np.arange(1, 8) + 0.5
    return x, np.cos(i * (1 + b) * 0.37) * np.arange(5, 0, -1) + 0.4 * x[:, :5] - 1


def test_equals_public_implementations():
    """Numbers by rsatoolbox 0.3.2, netrep 2212a8c... and others on `sines`, run outside of this repository.

    rsatoolbox: `rdm.compare(*(rdm.calc_rdm(Dataset(z), method="correlation") for z in (x, y)), method=...)`; its euclidean is the
    squared distance, which only ranks ignore. netrep: `LinearMetric(alpha=1.0, score_method="angular").fit_score(x, y)`.
    js-d/sim_metric (Ding et al.) 42953fb: `procrustes` of centred normalised matrices, `mean_sq_cca_corr`, `pwcca_dist`,
    `lin_cka_dist`. minyoungg/platonic-rep dcd76ba: `mutual_knn` of normalised features, `unbiased_cka` in float64 (it adds 1e-6
    to the denominator). scipy: `spatial.procrustes` leaves 1 - overlap^2, as it also scales.
    """
    x, y = sines()
    found = compare({"x": x, "y": y}, ALL).matrices
    assert rsa(x, y) == pytest.approx(0.04079817025755471, abs=1e-12)
    assert rsa(x, y, correlation="pearson") == pytest.approx(0.07594847390329618, abs=1e-12)
    assert rsa(x, y, correlation="cosine") == pytest.approx(0.798457768964098, abs=1e-12)
    assert rsa(x, y, "euclidean") == pytest.approx(0.039708642680227224, abs=1e-12)
    assert rsa(x, y, "euclidean", "pearson") != pytest.approx(0.06605506016654136, abs=0.1)
    assert angular_distance(x, y) == pytest.approx(1.2460357596705343, abs=1e-12)
    assert procrustes_distance(x, y) == pytest.approx(1.36183624406408, abs=1e-12)
    assert 1 - (1 - procrustes_distance(x, y) / 2) ** 2 == pytest.approx(0.8981867551524401, abs=1e-12)
    assert mutual_knn(x, y, 5) == pytest.approx(0.9866666793823242, abs=1e-6)
    assert mutual_knn(x, y, 10) == pytest.approx(0.606666624546051, abs=1e-6)
    assert float(found["cka_debiased"].value[0, 1]) == pytest.approx(0.07284733741760949, abs=1e-8)
    assert float(found["cka_biased"].value[0, 1]) == pytest.approx(0.10213547814496948, abs=1e-12)
    assert float(found["cca"].value[0, 1]) == pytest.approx(0.4860282811471449, abs=1e-12)
    # From the narrower side; from the wider one sim_metric keeps the weights of directions that have no correlation.
    assert float(found["pwcca"].value[1, 0]) == pytest.approx(0.5873666478140277, abs=1e-12)


INVARIANT = {
    "rotation": {"cka_debiased", "cka_biased", "cca", "svcca", "procrustes", "angular", "mutual_knn", "cka_rbf"},
    "scale": set(MEASURES),
    "permuted features": set(MEASURES),
    "shift of all features by one number": set(MEASURES) - {"mutual_knn"},
    "shift": set(MEASURES) - {"mutual_knn", "rsa"},
    "invertible linear map": {"cca"},
}


@pytest.mark.parametrize("change", INVARIANT)
def test_invariances(change):
    x, other = related(80, (6, 9)).values()
    x = x - x.mean(0)
    q, _ = torch.linalg.qr(gaussian(6, 6, 3))
    changed = {
        "rotation": lambda: x @ q,
        "scale": lambda: 7 * x,
        "permuted features": lambda: x[:, [3, 1, 5, 0, 2, 4]],
        "shift of all features by one number": lambda: x + 1,
        "shift": lambda: x + gaussian(1, 6, 4) * 3,
        "invertible linear map": lambda: x @ gaussian(6, 6, 5),
    }[change]()
    before, after = (compare({"x": part, "y": other}, ALL).matrices for part in (x, changed))
    held = {m for m in MEASURES if abs(float((before[m].value - after[m].value)[0, 1])) < 1e-8}
    assert held == INVARIANT[change]


def test_known_answers():
    x = gaussian(400, 20, 0)
    found = compare({"x": x, "same": x.clone(), "other": gaussian(400, 8, 1)}, ALL)
    for measure, matrix in found.matrices.items():
        assert float(matrix.value[0, 1]) == pytest.approx(0 if measure in DISTANCES else 1, abs=1e-6), measure
    for measure in ("cka_debiased", "mutual_knn", "rsa", "cka_rbf"):
        assert float(found.matrices[measure].value[0, 2]) == pytest.approx(float(found.chance[measure][0, 2]), abs=0.02)
    half = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert procrustes_distance(half, half[:, :1]) == pytest.approx(2 - math.sqrt(2), abs=1e-12)


def test_independent_data_may_score_below_zero():
    values = [
        compare({"x": gaussian(32, 64, s), "y": gaussian(32, 64, 50 + s)}, ALL).matrices["cka_debiased"].value[0, 1]
        for s in range(8)
    ]
    assert min(values) < -0.01 and abs(sum(values) / 8) < 0.1


@pytest.mark.parametrize("constant", [1.0, 0.1, 0.0])
def test_a_constant_is_nan_and_leaves_the_others_alone(constant):
    parts = related(50, (6, 9))
    settings = SimilaritySettings(measures=tuple(MEASURES), permutations=19, resamples=20)
    alone, found = compare(parts, settings), compare({**parts, "flat": torch.full((50, 3), constant)}, settings)
    for measure in MEASURES:
        matrix = found.matrices[measure]
        assert matrix.value[2].isnan().all() and matrix.value[:, 2].isnan().all(), measure
        for name in ("value", "low", "high"):
            torch.testing.assert_close(getattr(matrix, name)[:2, :2], getattr(alone.matrices[measure], name), atol=1e-9, rtol=0)
    for measure, p in found.p_values.items():
        assert p[2].isnan().all() and torch.equal(p[:2, :2].nan_to_num(9), alone.p_values[measure].nan_to_num(9))
    assert math.isnan(mutual_knn(parts["r6"], torch.full((50, 3), constant)))
    assert math.isnan(procrustes_distance(parts["r6"], torch.full((50, 3), constant)))


@pytest.mark.parametrize("measure", ["cka_debiased", "cka_biased", "cca", "mutual_knn", "rsa", "cka_rbf"])
def test_chance_is_the_mean_over_all_permutations(measure):
    x, y = related(6, (2, 3)).values()
    settings = SimilaritySettings(measures=(measure,), permutations=0, resamples=0, k=2)
    chance = compare({"x": x, "y": y}, settings).chance[measure][0, 1]
    values = [
        float(compare({"x": x, "y": y[list(order)]}, settings).matrices[measure].value[0, 1])
        for order in itertools.permutations(range(6))
    ]
    assert float(chance) == pytest.approx(np.mean(values), abs=1e-9)


@pytest.mark.parametrize("measure", PERMUTED)
def test_p_values_are_the_share_of_permutations(measure):
    """All 120 permutations by hand against the drawn ones, and a small p where two are alike."""
    x, y = related(5, (2, 3), seed=3).values()
    settings = SimilaritySettings(measures=(measure,), permutations=2000, resamples=0, k=2)
    if measure == "cca":
        y = y[:, :1]
    value = {m: v.value[0, 1] for m, v in compare({"x": x, "y": y}, settings).matrices.items()}[measure]
    plain = SimilaritySettings(measures=(measure,), permutations=0, resamples=0, k=2)
    others = [
        float(compare({"x": x, "y": y[list(order)]}, plain).matrices[measure].value[0, 1])
        for order in itertools.permutations(range(5))
    ]
    share = np.mean(np.array(others) >= float(value) - 1e-6)
    assert permutation_test(x, y, measure, settings) == pytest.approx(share, abs=0.04)


@pytest.mark.parametrize("measure", ["cka_debiased", "mutual_knn", "rsa"])
def test_p_is_uniform_under_independence(measure):
    settings = SimilaritySettings(measures=(measure,), permutations=19, k=5)
    p = torch.tensor([permutation_test(gaussian(30, 3, s), gaussian(30, 4, 900 + s), measure, settings) for s in range(300)])
    for level in (0.1, 0.3, 0.5, 0.8):
        assert float((p <= level + 1e-9).double().mean()) == pytest.approx(level, abs=0.09)


def test_streamed_measures_are_those_of_masked_studies():
    from sslk.masked.similarity import MEASURES as within

    assert set(within) <= set(STREAMED)
