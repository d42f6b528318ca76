"""The label-free panel of one representation: values, intervals, and data on which a number is not defined."""

import math

import numpy as np
import pytest
import torch

from sslk.metrics import FeatureSpectrum, LiDAR, SelfCluster, alignment, uniformity
from sslk.quality import PanelSettings, cluster_learnability, discover, panel, panel_influence, qscore
from sslk.quality.panel_values import CLAIMS
from tests.probes.stores import features, write_store

QUICK = PanelSettings(resamples=200)
SPECTRAL = ("RankMe", "effective rank", "alpha-ReQ", "NESum")


def power_law(n, d=32, decay=1.0, seed=0):
    """Rows whose covariance has the eigenvalues `k^-decay`, about a mean."""
    scale = torch.arange(1, d + 1.0, dtype=torch.float64) ** (-decay / 2)
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale + scale[:1]


def by_svd(x):
    """The numbers of the whole matrix in float64, from the papers' equations."""
    x = x.double().numpy()
    sigma, centred = np.linalg.svd(x, compute_uv=False), np.linalg.svd(x - x.mean(0), compute_uv=False)
    raw, own, lam = sigma / sigma.sum() + 1e-7, centred / centred.sum(), centred**2 / len(x)
    place = np.arange(11, min(50, int((lam > 1e-12 * lam[0]).sum())) + 1)
    slope = np.polyfit(np.log(place), np.log(lam[10 : place[-1]]), 1, w=place**-0.5)[0]
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines, (n, d) = unit @ unit.T, x.shape
    squares = ((unit[:, None] - unit[None]) ** 2).sum(2)[np.triu_indices(n, 1)]
    return {
        "RankMe": np.exp(-(raw * np.log(raw)).sum()),
        "effective rank": np.exp(-(own[own > 0] * np.log(own[own > 0])).sum()),
        "alpha-ReQ": -slope,
        "NESum": lam.sum() / lam[0],
        "SelfCluster": (d * (cosines**2).sum() - n * (d + n - 1)) / ((d - 1) * (n - 1) * n),
        "uniformity": np.log(np.exp(-2 * squares).mean()),
        "dead features [%]": 100 * (x.std(0) == 0).mean(),
    }


@pytest.mark.parametrize("stored", [False, True])
def test_values_are_those_of_the_whole_matrix(tmp_path, stored):
    x, y = features(400)
    x[:, 7] = 0.25  # a dead feature
    found = panel(write_store(tmp_path / "s", x, y) if stored else x, QUICK)
    for name, value in by_svd(x).items():
        assert found.values[name].value == pytest.approx(value, rel=1e-5), name
    assert found.values["cluster learnability"].value == cluster_learnability(x).value
    assert found.values["mean Q-Score"].value == pytest.approx(float(qscore(x, discover(x)).scores.mean()), rel=1e-5)
    assert (found.samples, found.nonfinite, found.num_features, found.rank) == (400, 0, 48, 47)
    assert set(found.absent) == {"LiDAR", "alignment"} and "no views" in found.absent["LiDAR"]
    assert [*found.values] == [name for name in CLAIMS if name not in found.absent]
    for name, interval in found.values.items():
        sure = math.isnan(interval.low) if name == "dead features [%]" else interval.low <= interval.value <= interval.high
        assert sure, name


def test_rows_that_are_not_finite_are_left_out_and_counted():
    x, _ = features(300)
    bad = x.clone()
    bad[[3, 160, 299], [0, 5, 9]] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    keep = bad.isfinite().all(1)
    found, clean = panel(bad, QUICK), panel(x[keep], QUICK)
    assert (found.samples, found.nonfinite) == (297, 3)
    for name in clean.values:
        assert found.values[name].value == pytest.approx(clean.values[name].value, rel=1e-9), name
        if name in clean.draws:
            assert float(found.draws[name].std()) == pytest.approx(float(clean.draws[name].std()), rel=0.25), name
    with pytest.raises(ValueError, match="a row that is finite, got NaN or infinity in all 5"):
        panel(torch.full((5, 3), torch.nan))


def test_views_give_lidar_and_alignment():
    generator = torch.Generator().manual_seed(0)
    views = torch.randn(60, 1, 8, generator=generator) + 0.3 * torch.randn(60, 4, 8, generator=generator)
    metric = LiDAR(8)
    metric.update(views)
    found = panel(features(200, d=8)[0], QUICK, views=views)
    assert found.values["LiDAR"].value == pytest.approx(float(metric.compute()["lidar"]), rel=1e-12)
    pairs = [float(alignment(views[:, i], views[:, j])) for i in range(4) for j in range(i)]
    assert found.values["alignment"].value == pytest.approx(np.mean(pairs), rel=1e-6)
    views[7, 2, 0] = torch.nan
    assert panel(features(200, d=8)[0], QUICK, views=views).values["LiDAR"].samples == 59
    few = panel(features(200, d=8)[0], QUICK, views=views[10:18])
    assert math.isnan(few.values["LiDAR"].low) and "8 images of 8 features" in few.absent["LiDAR"]
    with pytest.raises(ValueError, match=r"views must be \[images, views, D\] with at least 2 views"):
        panel(features(200, d=8)[0], QUICK, views=views[:, :1])


def influences(x):
    spectrum, cluster = FeatureSpectrum(x.shape[1]), SelfCluster(x.shape[1])
    spectrum.update(x)
    cluster.update(x)
    found = panel_influence.spectral_influences(spectrum, x)
    found["SelfCluster"] = panel_influence.self_cluster_influences(cluster, x)
    return found | {"uniformity": panel_influence.uniformity_influences(x)}


@pytest.mark.parametrize("name", [*SPECTRAL, "SelfCluster", "uniformity"])
def test_an_influence_is_what_a_little_more_weight_on_a_row_does(name):
    """A row that is there 1 + w times: the number moves by w / N times its influence, to first order."""
    x, row = power_law(64, d=20), 11
    moved = influences(x)[name][row] - influences(x)[name].mean()

    def weighted(copies):
        """All rows `copies` times, the one once more: w = 1 / copies, and no pair of copies in a mean over pairs."""
        if name == "uniformity":
            weight = torch.ones(64, dtype=torch.float64)
            weight[row] += 1 / copies
            unit = torch.nn.functional.normalize(x, dim=1)
            kernel = (-2 * torch.cdist(unit, unit).square()).exp()
            pairs = weight[:, None] * weight * (1 - torch.eye(64, dtype=torch.float64))
            return float(((kernel * pairs).sum() / pairs.sum()).log())
        return by_svd(torch.cat([x] * copies + [x[row : row + 1]]))[name]

    def plain(copies):
        return float(uniformity(x)) if name == "uniformity" else by_svd(torch.cat([x] * copies))[name]

    copies = 40
    slope = (weighted(copies) - plain(copies)) * 64 * copies
    # SelfCluster and uniformity leave the row's pair with itself out, which is of the order 1 / N.
    assert slope == pytest.approx(float(moved), rel=0.1, abs=0.02 * float(influences(x)[name].std()))


def test_an_influence_on_lidar_is_what_a_little_more_weight_on_an_image_does():
    generator = torch.Generator().manual_seed(0)
    views = torch.randn(40, 1, 6, generator=generator, dtype=torch.float64)
    views = views + 0.5 * torch.randn(40, 5, 6, generator=generator, dtype=torch.float64)

    def lidar(v):
        metric = LiDAR(6)
        metric.update(v)
        return metric

    found = panel_influence.lidar_influences(lidar(views), views)
    assert float(found.mean()) == pytest.approx(0, abs=1e-9)
    for image in (0, 17):
        many = torch.cat([views] * 50)
        more = lidar(torch.cat([many, views[image : image + 1]])).compute()["lidar"] - lidar(many).compute()["lidar"]
        assert float(more) * 40 * 50 == pytest.approx(float(found[image]), rel=0.1, abs=0.02)


@pytest.mark.parametrize(("rows", "decay"), [(200, 1.0), (400, 2.0)])
def test_intervals_cover_what_fresh_rows_give(rows, decay):
    """Of 80 fresh samples, the 95 % interval of most holds the mean over samples of that size."""
    names = (*SPECTRAL, "SelfCluster", "uniformity")
    values, widths = [], []
    for seed in range(80):
        x = power_law(rows, decay=decay, seed=seed)
        numbers = panel_numbers(x)
        values.append([numbers[name] for name in names])
        found = influences(x)
        widths.append([1.96 * float(found[name].std()) / rows**0.5 for name in names])
    values, widths = np.array(values), np.array(widths)
    covered = (np.abs(values - values.mean(0)) < widths).mean(0)
    assert (covered >= 0.86).all(), dict(zip(names, covered, strict=True))


def panel_numbers(x):
    spectrum, cluster = FeatureSpectrum(x.shape[1]), SelfCluster(x.shape[1])
    spectrum.update(x)
    cluster.update(x)
    answer = spectrum.compute()
    found = {name: float(f(answer["eigenvalues"])) for name, f in panel_influence.CENTRED.items()}
    found |= {name: float(f(answer["singular_values"].square())) for name, f in panel_influence.NOT_CENTRED.items()}
    return found | {"SelfCluster": float(cluster.compute()["self_cluster"]), "uniformity": float(uniformity(x))}


def test_a_sample_of_rows_gives_intervals_of_all_of_them():
    x = power_law(3000)
    whole, part = (panel(x, PanelSettings(rows=rows, resamples=400)) for rows in (3000, 1500))
    for name in SPECTRAL:
        assert part.values[name].value == whole.values[name].value
        assert float(part.draws[name].std()) == pytest.approx(float(whole.draws[name].std()), rel=0.15), name
    assert (part.values["uniformity"].samples, part.values["RankMe"].samples) == (1500, 3000)
    assert float(part.draws["uniformity"].std()) == pytest.approx(2**0.5 * float(whole.draws["uniformity"].std()), rel=0.2)


def test_fewer_rows_than_features_have_no_spectral_interval():
    found = panel(torch.randn(30, 40, generator=torch.Generator().manual_seed(0)), QUICK)
    for name in SPECTRAL:
        assert math.isnan(found.values[name].low) and "30 rows of 40 features" in found.absent[name]
    assert found.rank == 29 and found.values["uniformity"].low < found.values["uniformity"].high
    low_rank = torch.randn(30, 5, generator=torch.Generator().manual_seed(0)) @ torch.randn(5, 40)
    assert not math.isnan(panel(low_rank, QUICK).values["RankMe"].low)


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_a_constant_has_rank_0_and_no_discriminative_feature(value):
    found = panel(torch.full((50, 12), value), QUICK)
    assert found.rank == 0 and found.values["effective rank"].value == found.values["NESum"].value == 0
    assert found.values["RankMe"].value == pytest.approx(1 if value else 0, abs=1e-3)
    assert found.values["dead features [%]"].value == 100
    assert {"alpha-ReQ", "mean Q-Score"} <= set(found.absent)
    assert "discriminative" in found.absent["mean Q-Score"]


@pytest.mark.parametrize("settings", [PanelSettings(rows=1), PanelSettings(resamples=1)])
def test_settings_that_say_nothing_are_refused(settings):
    with pytest.raises(ValueError, match="rows and resamples must be at least 2"):
        panel(torch.randn(10, 3), settings)
