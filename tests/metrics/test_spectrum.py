"""What the numbers of a spectrum are for known representations, and how the one pass keeps its digits."""

import math

import numpy as np
import pytest
import torch

from sslk.metrics import (
    FeatureMoments,
    FeatureSpectrum,
    LiDAR,
    SelfCluster,
    alpha_req,
    dead_features,
    effective_rank,
    nesum,
    rankme,
)
from sslk.metrics.spectrum import merge_spectra


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def spectrum(h, sizes=None):
    metric = FeatureSpectrum(h.shape[1])
    for part in h.split(sizes or len(h)):
        metric.update(part)
    return metric.compute()


def orthogonal(n, d, seed=0):
    """`[n, d]` with orthonormal columns that sum to 0: the spectrum of what is built on them is known."""
    x = normal(n, d, seed=seed)
    return torch.linalg.qr(x - x.mean(0)).Q


def rankme_of_matrix(h, eps=1e-7):
    sigma = np.linalg.svd(h.double().numpy(), compute_uv=False)
    shares = sigma / sigma.sum() + eps
    return math.exp(-(shares * np.log(shares)).sum())


@pytest.mark.parametrize("shape", [(400, 32), (20, 64), (1, 5), (5, 1), (64, 64)])
@pytest.mark.parametrize("mean", [0.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_rankme_equals_the_svd_of_the_matrix(shape, mean, dtype):
    h = (normal(*shape) + mean).to(dtype)
    assert spectrum(h)["singular_values"].numel() == min(shape)
    assert rankme(spectrum(h)["singular_values"]).item() == pytest.approx(rankme_of_matrix(h), rel=1e-6)


def test_features_of_several_blocks_of_products():
    h = normal(40, 300) + 1
    answer = spectrum(h, 13)
    torch.testing.assert_close(answer["singular_values"], torch.linalg.svdvals(h), rtol=1e-9, atol=0)
    unit = torch.nn.functional.normalize(h)
    squares = (unit @ unit.T).square().sum()
    assert self_cluster(h) == pytest.approx(((300 * squares - 40 * 339) / (299 * 39 * 40)).item(), rel=1e-9)


def test_isotropic_data_have_the_full_rank():
    answer = spectrum(normal(20000, 24))
    assert rankme(answer["singular_values"]) == pytest.approx(24, rel=1e-3)
    assert effective_rank(answer["eigenvalues"].sqrt()) == pytest.approx(24, rel=1e-3)
    assert nesum(answer["eigenvalues"]) == pytest.approx(24, rel=0.1)
    assert alpha_req(answer["eigenvalues"]) == pytest.approx(0, abs=0.2)


@pytest.mark.parametrize("r", [1, 3, 17])
def test_low_rank_data_have_exactly_r_values_above_zero(r):
    h = orthogonal(300, r) @ orthogonal(40, r, seed=1).T
    answer = spectrum(h, 37)
    assert (answer["singular_values"] > 0).sum() == (answer["eigenvalues"] > 0).sum() == r
    assert effective_rank(answer["singular_values"]) == pytest.approx(r, rel=1e-9)
    assert nesum(answer["eigenvalues"]) == pytest.approx(r, rel=1e-9)
    # The paper's eps counts the zeros a little: D - r of them, 1.6e-6 of entropy each.
    assert rankme(answer["singular_values"]) == pytest.approx(r, rel=1e-4)
    assert rankme(answer["singular_values"]) > r


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.2])
def test_a_power_law_has_its_alpha(alpha):
    values = torch.arange(1, 65, dtype=torch.float64) ** -alpha
    h = orthogonal(200, 64) * (200 * values).sqrt() + 7
    answer = spectrum(h, 33)
    torch.testing.assert_close(answer["eigenvalues"], values, rtol=1e-10, atol=0)
    assert alpha_req(answer["eigenvalues"]) == pytest.approx(alpha, rel=1e-9)
    assert alpha_req(answer["eigenvalues"], 1, 64) == pytest.approx(alpha, rel=1e-9)
    assert nesum(answer["eigenvalues"]) == pytest.approx(values.sum().item(), rel=1e-9)


def test_alpha_is_the_weighted_line_through_the_range_alone():
    values = torch.rand(80, generator=torch.Generator().manual_seed(2), dtype=torch.float64).sort(descending=True).values
    place = np.arange(5, 41)
    slope = np.polyfit(np.log(place), np.log(values[4:40].numpy()), 1, w=place**-0.5)[0]
    assert alpha_req(values, 5, 40) == pytest.approx(-slope, rel=1e-9)
    values[:4], values[40:] = 1e9, 0.0
    assert alpha_req(values, 5, 100) == pytest.approx(-slope, rel=1e-9)
    assert alpha_req(values[:5], 5, 40).isnan()
    with pytest.raises(ValueError, match="first < last, got 9 and 9"):
        alpha_req(values, 9, 9)


@pytest.mark.parametrize("value", [0.0, 3.3, 1e8])
@pytest.mark.parametrize("sizes", [1, 2, 16, 49, 50])
def test_a_constant_has_centred_rank_zero_for_any_split(value, sizes):
    h = torch.full((50, 6), value) * torch.tensor([1.0, 2.0, 3.0, 5.0, 7.0, 11.0])
    answer = spectrum(h, sizes)
    assert answer["eigenvalues"].eq(0).all()
    assert answer["variance"].eq(0).all()
    assert effective_rank(answer["eigenvalues"].sqrt()) == 0
    assert nesum(answer["eigenvalues"]) == 0
    assert alpha_req(answer["eigenvalues"], 1, 5).isnan()
    # Not centred, a constant other than 0 is one direction, and a matrix of zeros none.
    assert rankme(answer["singular_values"]) == pytest.approx(float(value != 0), rel=1e-4)
    assert dead_features(answer["mean"], answer["variance"]).all()


def test_a_constant_over_ranks_stays_constant():
    halves = [FeatureSpectrum(3) for _ in range(3)]
    for metric, rows in zip(halves, (7, 2, 0), strict=True):
        metric.update(torch.full((rows, 3), 0.1, dtype=torch.float64))
    merged = FeatureSpectrum(3)
    merged.sums = merge_spectra(torch.stack([metric.sums for metric in reversed(halves)]))
    assert merged.compute()["eigenvalues"].eq(0).all()
    assert merged.compute()["mean"].tolist() == [0.1] * 3


def test_merged_sums_are_those_of_all_rows():
    h = normal(120, 9).exp() + 1000
    parts = []
    for rows in h.split([50, 1, 69]):
        metric = FeatureSpectrum(9)
        metric.update(rows)
        parts.append(metric.sums)
    whole, merged = FeatureSpectrum(9), FeatureSpectrum(9)
    whole.update(h)
    merged.sums = merge_spectra(torch.stack(parts))
    for key, value in whole.compute().items():
        torch.testing.assert_close(merged.compute()[key], value, rtol=1e-10, atol=1e-12)
    assert merge_spectra(torch.zeros(3, 91)).eq(0).all()


def test_no_row_has_no_answer():
    answer = spectrum(normal(0, 4), 1)
    assert answer["rows"] == 0
    assert answer["eigenvalues"].shape == answer["singular_values"].shape == (0,)
    for number in (rankme, effective_rank, nesum, alpha_req):
        assert number(answer["eigenvalues"]).isnan()
    assert SelfCluster(4).compute()["self_cluster"].isnan()
    assert LiDAR(4).compute()["lidar"].isnan()


@pytest.mark.parametrize("scale", [1e-30, 1e-5, 1e30])
def test_the_scale_of_the_features_changes_nothing(scale):
    h = normal(200, 20) @ normal(20, 20, seed=1) + 0.5
    before, after = spectrum(h), spectrum((h * scale), 63)
    assert rankme(after["singular_values"]) == pytest.approx(rankme(before["singular_values"]).item(), rel=1e-9)
    for number in (nesum, lambda v: alpha_req(v, 1, 20)):
        assert number(after["eigenvalues"]) == pytest.approx(number(before["eigenvalues"]).item(), rel=1e-9)
    torch.testing.assert_close(self_cluster(h * scale), self_cluster(h), rtol=1e-9, atol=1e-12)


def test_digits_are_kept_far_from_the_origin_and_after_an_outlier():
    h = normal(500, 6)
    near, far = spectrum(h, 7)["eigenvalues"], spectrum(h + 1e8, 7)["eigenvalues"]
    torch.testing.assert_close(far, near, rtol=1e-6, atol=0)
    h[0] = 1e6
    wanted = torch.linalg.svdvals(h - h.mean(0)).square() / 500
    torch.testing.assert_close(spectrum(h, [1, 499])["eigenvalues"], wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_row_that_is_not_finite_makes_every_number_nan(value):
    h = normal(30, 5)
    h[4, 2] = value
    answer = spectrum(h, 7)
    assert answer["eigenvalues"].isnan().all()
    assert all(number(answer["singular_values"]).isnan() for number in (rankme, effective_rank, nesum, alpha_req))
    assert self_cluster(h).isnan()
    lidar = LiDAR(5)
    lidar.update(h.view(10, 3, 5))
    assert lidar.compute()["lidar"].isnan()


def test_dead_features_are_those_that_do_not_vary():
    h = normal(1000, 6, dtype=torch.float32).relu()
    h[:, 0], h[:, 1], h[:, 2] = 0, 2.5, 3 + 1e-7 * h[:, 2]
    h[:, 3] = 3 + 1e-3 * h[:, 3]
    wanted = [True, True, True, False, False, False]
    answer = spectrum(h, 64)
    assert dead_features(answer["mean"], answer["variance"]).tolist() == wanted
    moments = FeatureMoments(6)
    moments.update(h)
    mean, std, _ = moments.compute().values()
    assert dead_features(mean, std.square()).tolist() == wanted
    assert dead_features(answer["mean"], answer["variance"], rtol=1e-2).tolist() == [True] * 4 + [False] * 2


def self_cluster(h):
    metric = SelfCluster(h.shape[1])
    for part in h.split(31):
        metric.update(part)
    return metric.compute()["self_cluster"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_of_any_precision_are_summed_in_float64(dtype):
    h = (normal(70, 9) * 3).to(dtype)
    torch.testing.assert_close(self_cluster(h), self_cluster(h.double()), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(spectrum(h)["eigenvalues"], spectrum(h.double())["eigenvalues"], rtol=1e-12, atol=0)


def test_self_cluster_of_known_directions():
    assert self_cluster(normal(1, 8) * normal(50, 1, seed=1)) == pytest.approx(1)  # on one line, both ways
    assert self_cluster(torch.eye(8)) == pytest.approx(-1 / 7)  # every cosine 0, below chance
    assert self_cluster(normal(4000, 8)) == pytest.approx(0, abs=0.01)
    assert self_cluster(normal(9, 1)).isnan()
    assert self_cluster(torch.zeros(9, 3)).isnan()


def test_lidar_counts_the_directions_that_tell_images_apart():
    g = torch.Generator().manual_seed(0)
    means = torch.randn(300, 12, generator=g, dtype=torch.float64)
    means[:, 5:] = 0
    noise = 0.1 * torch.randn(300, 8, 12, generator=g, dtype=torch.float64)
    lidar = LiDAR(12)
    for part in (means[:, None] + noise).split([1, 17, 282]):
        lidar.update(part)
    assert lidar.compute()["images"] == 300
    assert lidar.compute()["lidar"] == pytest.approx(5, abs=0.2)
    collapsed = LiDAR(12)
    collapsed.update((means[:1, None] + 0 * noise).float())
    assert collapsed.compute()["lidar"] == 0
    with pytest.raises(ValueError, match=r"at least 2 views, got torch.float64 \[3, 1, 12\]"):
        lidar.update(means[:3, None])


def test_lidar_takes_another_number_of_views_per_batch():
    """Every image counts alike, however many views it has."""
    views = normal(10, 4, 6)
    once, twice = LiDAR(6), LiDAR(6)
    once.update(views)
    twice.update(views[:4])
    twice.update(views[4:].repeat(1, 2, 1))
    torch.testing.assert_close(once.compute(), twice.compute(), rtol=1e-10, atol=1e-12)
