"""Every similarity equals its slow oracle, for any batch split, several models, low ranks and few samples."""

import math

import numpy as np
import pytest
import torch

from sslk.masked.neighbors import variant_shares
from sslk.masked.similarity import MEASURES, compare_variants
from sslk.metrics import Similarity
from sslk.similarity import rbf_cka
from tests.masked import oracle

VARIANTS = ("a", "b", "c")


def representations(n: int, d: int, seed: int) -> list[torch.Tensor]:
    """Three correlated variants far from the origin, the last with dead and repeated columns."""
    g = torch.Generator().manual_seed(seed)
    shared = torch.randn(n, d, generator=g)
    noise = [torch.randn(n, d, generator=g) for _ in range(3)]
    a, b, c = (shared * torch.rand(d, generator=g) + w * e + 5 for w, e in zip((0.3, 0.6, 1.0), noise, strict=True))
    c[:, -2] = 3.0
    c[:, -1] = c[:, 0]
    return [a, b, c]


def stream(parts: list[torch.Tensor], size: int):
    return lambda: iter(list(zip(*(part.split(size) for part in parts), strict=True)))


def arrays(parts):
    return [part.double().numpy() for part in parts]


@pytest.fixture(scope="module")
def two_models():
    return {"m": representations(90, 8, 0), "w": representations(90, 13, 1)}


@pytest.mark.parametrize("size", [1, 7, 90])
def test_every_measure_equals_its_oracle_for_any_split(two_models, size):
    found = compare_variants(
        {model: stream(parts, size) for model, parts in two_models.items()},
        {model: parts[0].shape[1] for model, parts in two_models.items()},
        VARIANTS,
        resamples=20,
    )
    for model, parts in two_models.items():
        xs = arrays(parts)
        wanted = {
            "cka_debiased": oracle.cka(oracle.linear_grams(xs), oracle.hsic_unbiased),
            "cka_biased": oracle.cka(oracle.linear_grams(xs), oracle.hsic_biased),
            "cca": oracle.cca(xs),
            "svcca": oracle.svcca(xs),
            "pwcca": oracle.pwcca(xs),
        }
        assert wanted.keys() == MEASURES.keys()
        for measure, expected in wanted.items():
            np.testing.assert_allclose(found.within[model][measure].value, expected, atol=1e-8, err_msg=measure)
        assert found.ranks[model].tolist() == [np.linalg.matrix_rank(x - x.mean(0)) for x in xs]
    xs = arrays([*two_models["m"], *two_models["w"]])
    np.testing.assert_allclose(found.across["cca"], oracle.cca(xs), atol=1e-8)
    expected = oracle.cka(oracle.linear_grams(xs), oracle.hsic_unbiased)
    np.testing.assert_allclose(found.across["cka_debiased"], expected, atol=1e-8)


def test_fewer_samples_than_features_work_and_the_rank_is_reported():
    parts = representations(12, 30, 3)
    found = compare_variants({"m": stream(parts, 5)}, {"m": 30}, VARIANTS, resamples=5)
    assert found.ranks["m"].tolist() == [11, 11, 11]
    xs = arrays(parts)
    np.testing.assert_allclose(found.within["m"]["cca"].value, oracle.cca(xs), atol=1e-7)
    expected = oracle.cka(oracle.linear_grams(xs), oracle.hsic_unbiased)
    np.testing.assert_allclose(found.within["m"]["cka_debiased"].value, expected, atol=1e-9)


def test_three_samples_are_refused_and_streams_must_match():
    parts = representations(3, 4, 0)
    with pytest.raises(ValueError, match="at least 4 samples, got 3"):
        compare_variants({"m": stream(parts, 3)}, {"m": 4}, VARIANTS)
    with pytest.raises(ValueError, match="same samples for every model"):
        compare_variants(
            {"m": stream(representations(8, 4, 0), 4), "w": stream(representations(9, 4, 0), 4)}, {"m": 4, "w": 4}, VARIANTS
        )


def test_debiased_cka_of_independent_data_goes_below_zero():
    values = []
    for seed in range(6):
        g = torch.Generator().manual_seed(seed)
        parts = [torch.randn(32, 64, generator=g) for _ in range(2)]
        found = compare_variants({"m": stream(parts, 32)}, {"m": 64}, ("a", "b"), resamples=0)
        assert found.within["m"]["cka_biased"].value[0, 1] > 0.5
        values.append(float(found.within["m"]["cka_debiased"].value[0, 1]))
    assert min(values) < 0 and abs(sum(values) / 6) < 0.1


def test_a_constant_variant_is_nan_and_leaves_the_others_alone():
    parts = representations(40, 6, 0)
    alone = compare_variants({"m": stream(parts[:2], 40)}, {"m": 6}, ("a", "b"), resamples=10)
    parts[2] = torch.ones(40, 6)
    found = compare_variants({"m": stream(parts, 40)}, {"m": 6}, VARIANTS, resamples=10)
    for measure in MEASURES:
        matrix = found.within["m"][measure]
        assert matrix.value[2].isnan().all() and matrix.value[:, 2].isnan().all()
        for name in ("value", "low", "high"):
            torch.testing.assert_close(
                getattr(matrix, name)[:2, :2], getattr(alone.within["m"][measure], name), rtol=1e-5, atol=1e-5
            )
    assert found.ranks["m"].tolist() == [6, 6, 0]


def test_ridge_equals_the_kernel():
    parts = [part.double() for part in representations(80, 6, 2)]
    metric = Similarity([6, 6, 6], ridge=0.1)
    metric.update(*parts)
    kernel, _ = torch.ops.sslk.cca_matrix(torch.stack(parts), None, 0.1)
    torch.testing.assert_close(metric.compute()["r2"], kernel, rtol=1e-8, atol=1e-8)


def draws_of(parts, seed, resamples):
    """The slow bootstrap: rows drawn with replacement, every measure computed anew."""
    rng = np.random.default_rng(seed)
    xs, out = arrays(parts), {"cka_biased": [], "cca": [], "svcca": [], "pwcca": []}
    for _ in range(resamples):
        rows = rng.integers(len(xs[0]), size=len(xs[0]))
        drawn = [x[rows] for x in xs]
        covariances = [[(a - a.mean(0)).T @ (b - b.mean(0)) for b in drawn] for a in drawn]
        h = [[np.sum(c**2) for c in row] for row in covariances]
        out["cka_biased"].append(h[0][1] / math.sqrt(h[0][0] * h[1][1]))
        out["cca"].append(oracle.cca(drawn)[0, 1])
        out["svcca"].append(oracle.svcca(drawn)[0, 1])
        out["pwcca"].append(oracle.pwcca(drawn)[0, 1])
    return out


def test_intervals_are_as_wide_as_those_of_resampled_rows():
    g = torch.Generator().manual_seed(5)
    x = torch.randn(600, 4, generator=g) * torch.tensor([2.0, 1.5, 1.0, 0.7])
    y = x @ torch.randn(4, 4, generator=g) + 2 * torch.randn(600, 4, generator=g)
    found = compare_variants({"m": stream([x, y], 64)}, {"m": 4}, ("x", "y"), resamples=2000, seed=1)
    slow = draws_of([x, y], 0, 150)
    for measure, values in slow.items():
        matrix = found.within["m"][measure]
        width = float(matrix.high[0, 1] - matrix.low[0, 1])
        assert width == pytest.approx(2 * 1.96 * np.std(values), rel=0.25), measure
        assert matrix.low[0, 1] < matrix.value[0, 1] < matrix.high[0, 1]
    debiased, biased = found.within["m"]["cka_debiased"], found.within["m"]["cka_biased"]
    ratio = float((debiased.high - debiased.low)[0, 1] / (biased.high - biased.low)[0, 1])
    assert ratio == pytest.approx(1, rel=0.1)


def test_the_same_seed_gives_the_same_interval():
    parts = representations(50, 5, 0)
    low = [
        compare_variants({"m": stream(parts, 50)}, {"m": 5}, VARIANTS, seed=s, resamples=50).within["m"]["cca"].low
        for s in (3, 3, 4)
    ]
    assert torch.equal(low[0], low[1]) and not torch.equal(low[0], low[2])


@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("fraction", [0.3, 1.0])
def test_rbf_cka_equals_its_oracle(debiased, fraction):
    parts = representations(31, 5, 4)
    hsic = oracle.hsic_unbiased if debiased else oracle.hsic_biased
    expected = oracle.cka(oracle.rbf_grams(arrays(parts), fraction), hsic)
    np.testing.assert_allclose(rbf_cka(parts, fraction, debiased), expected, atol=1e-9)


def test_rbf_cka_refuses_three_samples_and_a_negative_bandwidth():
    with pytest.raises(ValueError, match="needs more samples, got 3"):
        rbf_cka(representations(3, 4, 0))
    with pytest.raises(ValueError, match="fraction must be positive"):
        rbf_cka(representations(9, 4, 0), -1.0)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_neighbour_shares_equal_sorting_all_distances(metric):
    parts = representations(25, 6, 7)
    found = variant_shares(parts, 4, metric)
    np.testing.assert_allclose(found, oracle.shares(arrays(parts), 4, metric), atol=1e-12)
    torch.testing.assert_close(found.sum(1), torch.ones(3, dtype=torch.float64))


def test_a_sample_is_never_its_own_neighbour_among_equal_ones():
    a = torch.ones(20, 3)
    shares = variant_shares([a, a.clone()], k=39, metric="euclidean")
    # 19 of the 39 others are of one's own variant
    torch.testing.assert_close(shares, torch.tensor([[19.0, 20.0], [20.0, 19.0]], dtype=torch.float64) / 39)


def test_neighbours_need_fewer_k_than_samples():
    with pytest.raises(ValueError, match=r"k must lie in \[1, 6\)"):
        variant_shares([torch.ones(3, 2)] * 2, k=6)
