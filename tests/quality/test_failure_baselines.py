"""Baselines and R-AUROC against slow computations from their papers."""

import builtins

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from sslk.features import StoreError
from sslk.quality import failure_neighbors, neighbour_answers, neighbour_distance, neighbourhood_consistency, view_variance
from sslk.quality.failure_baselines import stored_view_variance
from sslk.quality.failure_mahalanobis import Gaussians, mahalanobis_scores
from tests.probes.stores import features, write_store


@pytest.fixture(params=["faiss", "torch"])
def small_tiles(request, monkeypatch):
    """Tiles far smaller than the stores, so that every seam is crossed; with faiss and without."""
    monkeypatch.setattr(failure_neighbors, "TILE_BYTES", 4 * 48 * 70)
    monkeypatch.setattr(failure_neighbors, "BANK_ROWS", 40)
    if request.param == "torch":
        found = builtins.__import__

        def without_faiss(name, *rest, **more):
            if name == "faiss":
                raise ImportError(name)
            return found(name, *rest, **more)

        monkeypatch.setattr(builtins, "__import__", without_faiss)


def unit(x):
    x = x.double().numpy()
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("k", [1, 7, 60])
def test_distance_to_the_kth_neighbour(tmp_path, k):
    (x, y), (x_test, y_test) = features(230, signed=True), features(170, seed=1, signed=True)
    train, test = write_store(tmp_path / "train", x, y), write_store(tmp_path / "test", x_test, y_test)
    expected = NearestNeighbors(n_neighbors=k).fit(unit(x)).kneighbors(unit(x_test))[0][:, -1]
    np.testing.assert_allclose(neighbour_distance(test, train, k), -expected, atol=1e-5)
    itself = NearestNeighbors(n_neighbors=k + 1).fit(unit(x)).kneighbors(unit(x))[0][:, -1]
    np.testing.assert_allclose(neighbour_distance(train, train, k), -itself, atol=1e-5)


@pytest.mark.usefixtures("small_tiles")
def test_rows_that_are_not_finite_have_no_distance_and_are_nobodys_neighbour(tmp_path):
    (x, y), (x_test, y_test) = features(230), features(90, seed=1)
    x[5] = torch.nan
    x_test[[0, 44], 3] = torch.inf
    found = neighbour_distance(write_store(tmp_path / "test", x_test, y_test), write_store(tmp_path / "train", x, y), 4)
    assert found.isnan().nonzero().flatten().tolist() == [0, 44]
    clean = torch.arange(230) != 5
    expected = NearestNeighbors(n_neighbors=4).fit(unit(x[clean])).kneighbors(unit(x_test[1:44]))[0][:, -1]
    np.testing.assert_allclose(found[1:44], -expected, atol=1e-5)


def test_samples_that_share_a_number_are_not_the_same(tmp_path):
    """Two imported sets may have one hash and one numbering: a training sample next to a test sample is its neighbour."""
    x, y = features(160, signed=True)
    near = x + 1e-2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    train, test = write_store(tmp_path / "train", x, y), write_store(tmp_path / "test", near, y)
    expected = np.linalg.norm(unit(x) - unit(near), axis=1)
    np.testing.assert_allclose(neighbour_distance(test, train, 1), -expected, atol=1e-4)
    assert float(neighbour_distance(train, train, 1).amax()) < -0.2


def test_more_neighbours_than_there_are_is_refused(tmp_path):
    store = write_store(tmp_path / "s", *features(20))
    with pytest.raises(ValueError, match=r"k must lie in \[1, 19\], the rows that can be neighbours, got 20"):
        neighbour_distance(store, store, 20)


def consistency(tests, banks, k, itself):
    """Park et al.: mean over pairs of models of the Jaccard index of the k nearest reference samples."""
    found = []
    for row in range(len(tests[0])):
        sets = []
        for test, bank in zip(tests, banks, strict=True):
            similarity = unit(bank) @ unit(test)[row]
            if itself:
                similarity[row] = -np.inf
            sets.append(set(np.argsort(-similarity)[:k].tolist()))
        pairs = [(a, b) for i, a in enumerate(sets) for b in sets[i + 1 :]]
        found.append(np.mean([len(a & b) / len(a | b) for a, b in pairs]))
    return found


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("reference", [True, False])
@pytest.mark.parametrize("models", [2, 3])
def test_neighbourhood_consistency(tmp_path, models, reference):
    generator = torch.Generator().manual_seed(0)
    (x, y), (x_test, y_test) = features(150, signed=True), features(110, seed=1, signed=True)
    turns = [torch.eye(48), *(torch.randn(48, 32, generator=generator) for _ in range(models - 1))]
    banks, tests = [x @ turn for turn in turns], [x_test @ turn for turn in turns]
    stored = [write_store(tmp_path / f"t{i}", h, y_test, model=str(i), dataset="test") for i, h in enumerate(tests)]
    kept = [write_store(tmp_path / f"b{i}", h, y, model=str(i), dataset="train") for i, h in enumerate(banks)]
    found = neighbourhood_consistency(stored, kept if reference else None, k=9)
    expected = consistency(tests, banks if reference else tests, 9, itself=not reference)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    same = neighbourhood_consistency([stored[0], stored[0]], k=9)
    assert same.tolist() == [1.0] * 110


def test_consistency_needs_two_models_of_the_same_samples(tmp_path):
    one, other = write_store(tmp_path / "a", *features(40)), write_store(tmp_path / "b", *features(39))
    with pytest.raises(ValueError, match="two models or more, got 1 and 1"):
        neighbourhood_consistency([one], k=3)
    with pytest.raises(StoreError, match="b does not hold the samples of"):
        neighbourhood_consistency([one, other], k=3)


def test_view_variance_is_the_mean_squared_distance_to_the_mean_view(tmp_path):
    generator = torch.Generator().manual_seed(0)
    views = torch.rand(160, 3, 12, generator=generator)
    expected = [-np.var(unit(rows), axis=0).sum() for rows in views]
    np.testing.assert_allclose(view_variance(views), expected, atol=1e-12)
    stores = [write_store(tmp_path / f"v{i}", views[:, i], torch.zeros(160).long()) for i in range(3)]
    np.testing.assert_allclose(stored_view_variance(stores[0], stores[1:]), expected, atol=1e-12)
    other = write_store(tmp_path / "w", views[:, 0], torch.zeros(160).long(), weights="1" * 64)
    with pytest.raises(StoreError, match=r"is of another model than .*views are of one encoder"):
        stored_view_variance(stores[0], [other])
    with pytest.raises(ValueError, match="of two views or more"):
        view_variance(views[:, :1])


@pytest.mark.parametrize("case", ["many", "few", "dead", "offset"])
def test_mahalanobis_of_one_gaussian_and_of_one_for_each_class(tmp_path, case):
    n = 30 if case == "few" else 400
    (x, y), (x_test, y_test) = features(n, signed=True), features(60, seed=1, signed=True)
    if case == "dead":
        x[:, 5], x_test[:, 5] = 2.0, 2.0
    if case == "offset":
        x, x_test = x + 1e6, x_test + 1e6
    y[:7] = -1  # unlabelled: in the mean of all, in no class
    train, test = write_store(tmp_path / "train", x, y), write_store(tmp_path / "test", x_test, y_test)
    found = mahalanobis_scores(test, Gaussians(train))
    h, q, labels = x.double().numpy(), x_test.double().numpy(), y.numpy()

    def distances(centre, covariance):
        inverse = np.linalg.pinv(covariance, hermitian=True, rcond=1e-10)
        return np.einsum("nd,de,ne->n", q - centre, inverse, q - centre)

    np.testing.assert_allclose(found["Mahalanobis"], -distances(h.mean(0), np.cov(h.T, bias=True)), rtol=1e-6)
    classes = [h[labels == c] for c in np.unique(labels[labels >= 0])]
    tied = sum(len(part) * np.cov(part.T, bias=True) for part in classes) / sum(map(len, classes))
    nearest = np.min([distances(part.mean(0), tied) for part in classes], axis=0)
    np.testing.assert_allclose(found["Mahalanobis, class-wise"], -nearest, rtol=1e-6)


def test_without_labels_there_is_no_class_wise_distance(tmp_path):
    x, y = features(80)
    x_test, _ = features(30, seed=1)
    x[3], x_test[2] = torch.nan, torch.inf
    train = write_store(tmp_path / "train", x, y, labels=False)
    found = mahalanobis_scores(write_store(tmp_path / "test", x_test, y[:30]), Gaussians(train))
    assert set(found) == {"Mahalanobis"} and found["Mahalanobis"].isnan().nonzero().flatten().tolist() == [2]


@pytest.mark.usefixtures("small_tiles")
def test_answers_of_neighbours_leave_out_itself_and_rows_that_cannot_be_used(tmp_path):
    x, y = features(200, signed=True)
    x[150:160] = x[10:20]  # copies: nearest to each other, and not to themselves
    y[150:155] = torch.where(y[10:15] == 3, 7, 3)
    y[[30, 31]] = -1
    x[40, 2] = torch.nan
    found = neighbour_answers(write_store(tmp_path / "s", x, y))
    rows = [row for row in range(200) if row not in (30, 31, 40)]
    assert found.rows.tolist() == rows
    h = unit(x[rows])
    similarity = h @ h.T
    np.fill_diagonal(similarity, -np.inf)
    assert found.correct.tolist() == (y[rows][similarity.argmax(1)] == y[rows]).tolist()


def test_answers_of_neighbours_need_labels(tmp_path):
    x, y = features(20)
    with pytest.raises(StoreError, match="has no labels"):
        neighbour_answers(write_store(tmp_path / "a", x, y, labels=False))
    with pytest.raises(ValueError, match="must have two rows that are labelled and finite, got 0 of 20"):
        neighbour_answers(write_store(tmp_path / "b", x, torch.full((20,), -1)))
