"""The package's label-free measures are those of the papers, on every kind of rows."""

import numpy as np
import pytest
import torch

from sslk.metrics import (
    FeatureSpectrum,
    LiDAR,
    SelfCluster,
    alignment,
    alpha_req,
    dead_features,
    effective_rank,
    nesum,
    rankme,
    uniformity,
)
from sslk.quality import PanelSettings, cluster_learnability, panel
from tests.oracles import label_free
from tests.oracles.rows import CONSTANT, ROWS


def resolved(rows, centred):
    """How many singular values the spectrum of float64 products can tell from rounding, and how far the rest may move a rank.

    Those below s = sqrt(D eps) of the largest are given as 0: K of them of a share of at most s each.
    """
    least = np.sqrt(rows.shape[1] * np.finfo(float).eps)
    values = label_free.singular_values(rows, centred)
    lost = int((values < least * values[0]).sum())
    return len(values) - lost, max(1e-8, lost * least * np.log(1 / least))


def answers(*batches):
    spectrum = FeatureSpectrum(batches[0].shape[1])
    for batch in batches:
        spectrum.update(torch.from_numpy(batch))
    return spectrum.compute()


@pytest.mark.parametrize("name", ROWS)
def test_spectrum_measures(name):
    rows = ROWS[name]
    found = answers(rows[:2], rows[2:])
    _, error = resolved(rows, centred=False)
    assert rankme(found["singular_values"]).item() == pytest.approx(label_free.rankme(rows), rel=error)
    assert effective_rank(found["singular_values"]).item() == pytest.approx(label_free.effective_rank(rows), rel=error)
    rank, error = resolved(rows, centred=True)
    centred = effective_rank(found["eigenvalues"].sqrt()).item()
    assert centred == pytest.approx(label_free.effective_rank(rows, centred=True), rel=error)
    assert nesum(found["eigenvalues"]).item() == pytest.approx(label_free.nesum(rows), rel=1e-11)
    for first, last in ((11, 100), (2, 20)):
        wanted = label_free.alpha_req(rows, first, min(last, rank))
        assert alpha_req(found["eigenvalues"], first, last).item() == pytest.approx(wanted, rel=1e-6, nan_ok=True)
    dead = dead_features(found["mean"], found["variance"])
    assert dead.double().mean().item() == label_free.dead_share(rows)


def test_a_constant_has_rank_one_as_it_stands_and_zero_when_centred():
    found = answers(CONSTANT[:7], CONSTANT[7:])
    assert effective_rank(found["singular_values"]).item() == pytest.approx(label_free.effective_rank(CONSTANT))
    assert rankme(found["singular_values"]).item() == pytest.approx(label_free.rankme(CONSTANT), rel=1e-12)
    assert effective_rank(found["eigenvalues"].sqrt()) == nesum(found["eigenvalues"]) == 0 == label_free.nesum(CONSTANT)
    assert rankme(answers(0 * CONSTANT)["singular_values"]) == 0
    assert dead_features(found["mean"], found["variance"]).all()


@pytest.mark.parametrize("name", [name for name in ROWS if ROWS[name].shape[1] > 1])
def test_directions(name):
    rows = ROWS[name]
    # Rows of float64: sums of N^2 squares, less numbers of their size. Rows of float32 are divided in float32.
    for given, error in ((torch.from_numpy(rows).double(), 1e-11), (torch.from_numpy(rows), 1e-7)):
        metric = SelfCluster(rows.shape[1])
        metric.update(given[:3])
        metric.update(given[3:])
        assert metric.compute()["self_cluster"].item() == pytest.approx(label_free.self_cluster(rows), rel=error, abs=error)
    # Float32 products of unit rows: exponents 2 t (1 - cosine) off by 4 ulp, 4 t eps.
    assert uniformity(torch.from_numpy(rows)).item() == pytest.approx(label_free.uniformity(rows), abs=1e-5)
    exact = uniformity(torch.from_numpy(rows).double(), t=3, tile=7).item()
    assert exact == pytest.approx(label_free.uniformity(rows, 3), abs=1e-12)
    other = np.roll(rows, 1, axis=0)
    for alpha in (2, 1):
        found = alignment(torch.from_numpy(rows), torch.from_numpy(other), alpha).item()
        assert found == pytest.approx(label_free.alignment(rows, other, alpha), rel=1e-7)


@pytest.mark.parametrize(("images", "views", "width"), [(30, 4, 12), (5, 3, 40), (40, 2, 6)])
@pytest.mark.parametrize("scale", [1.0, 1e-2])
def test_lidar(images, views, width, scale):
    rng = np.random.default_rng(4)
    centres = rng.normal(size=(images, 1, width)) * np.arange(1, width + 1)
    rows = (scale * (centres + 0.4 * rng.normal(size=(images, views, width)) + 3)).astype(np.float32)
    metric = LiDAR(width, delta=1e-4)
    metric.update(torch.from_numpy(rows[:2]))
    metric.update(torch.from_numpy(rows[2:]))
    wanted = label_free.lidar(rows, delta=1e-4, epsilon=metric.eps, unbiased=False)
    assert metric.compute()["lidar"].item() == pytest.approx(wanted, rel=1e-8)
    constant = LiDAR(width)
    constant.update(torch.ones(4, 3, width))
    assert constant.compute()["lidar"] == 0 == label_free.lidar(np.ones((4, 3, width)))


def test_cluster_learnability():
    """With the clusters of its k-means and the halves of its orders; the package keeps neither, so both are drawn again."""
    from sklearn.cluster import KMeans

    rows, neighbours = ROWS["random"], 3
    unit = label_free.unit_rows(rows).astype(np.float32)
    found = cluster_learnability(torch.from_numpy(rows), 6, neighbours, repeats=3, seed=5)
    labels = KMeans(6, n_init=1, random_state=5).fit(unit).labels_
    generator, half = torch.Generator().manual_seed(5), len(rows) // 2
    for value in found.by_order:
        order = torch.randperm(len(rows), generator=generator).numpy()
        told = [label_free.majority(unit[i], unit[order[:half]], labels[order[:half]], neighbours) for i in order[half:]]
        assert value == pytest.approx(np.mean(told == labels[order[half:]]), abs=1e-12)


def test_the_panel_holds_these_numbers():
    rows = ROWS["power law"]
    rng = np.random.default_rng(6)
    views = (rows[:40, None] + 0.5 * rng.normal(size=(40, 3, 104))).astype(np.float32)
    found = panel(torch.from_numpy(rows), PanelSettings(resamples=20), views=torch.from_numpy(views))
    pairs = [label_free.alignment(views[:, i], views[:, j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    for name, value in {
        "RankMe": label_free.rankme(rows),
        "effective rank": label_free.effective_rank(rows, centred=True),
        "alpha-ReQ": label_free.alpha_req(rows),
        "NESum": label_free.nesum(rows),
        "SelfCluster": label_free.self_cluster(rows),
        "LiDAR": label_free.lidar(views, epsilon=1e-7, unbiased=False),
        "uniformity": label_free.uniformity(rows),
        "alignment": np.mean(pairs),
        "dead features [%]": 100 * label_free.dead_share(rows),
    }.items():
        assert found.values[name].value == pytest.approx(value, rel=1e-5, abs=1e-7), name
