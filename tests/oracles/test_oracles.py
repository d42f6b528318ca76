"""The oracles themselves, where the answer is known without them."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from tests.oracles import failure, label_free, similarity

RNG = np.random.default_rng(7)
X = RNG.normal(size=(20, 6))
Y = X @ RNG.normal(size=(6, 4)) + 2 * RNG.normal(size=(20, 4)) + 5
# Seven samples by falling confidence: right, wrong, (wrong and right, tied), right, right, wrong.
CONFIDENCE = np.array([9.0, 8, 5, 5, 4, 3, 2])
WRONG = np.array([0, 1, 1, 0, 0, 0, 1])


def turned(d):
    """A random rotation or reflection."""
    return np.linalg.qr(RNG.normal(size=(d, d)))[0]


def spectrum(values, rows=200):
    """Centred rows whose covariance has exactly these eigenvalues, in a turned basis."""
    d = len(values)
    q = np.linalg.qr(similarity.centred(RNG.normal(size=(rows, d))))[0]
    return q * np.sqrt(rows * np.asarray(values)) @ turned(d)


@pytest.mark.parametrize("measure", [label_free.effective_rank, label_free.nesum, lambda z: label_free.rankme(z, 0.0)])
def test_ranks_of_isotropic_and_low_rank_rows(measure):
    assert measure(spectrum(np.ones(8))) == pytest.approx(8)
    assert measure(spectrum([3, 3, 3, 0, 0, 0])) == pytest.approx(3, abs=1e-10)
    assert measure(1e-6 * spectrum(np.ones(5))) == pytest.approx(5)


def test_ranks_by_hand():
    """Singular values 3 and 1, thus shares 3/4 and 1/4; eigenvalues 9 and 1, thus NESum 10/9."""
    z = spectrum([9.0, 1.0])
    assert label_free.effective_rank(z) == pytest.approx(4 / 3**0.75)
    assert label_free.nesum(z) == pytest.approx(10 / 9)
    assert label_free.rankme(z, 0.01) == pytest.approx(np.exp(-0.76 * np.log(0.76) - 0.26 * np.log(0.26)))
    constant = np.full((5, 3), 2.0)
    assert label_free.effective_rank(constant) == pytest.approx(1) and label_free.effective_rank(constant, centred=True) == 0
    assert label_free.nesum(constant) == label_free.rankme(0 * constant) == 0


@pytest.mark.parametrize(("alpha", "weighted"), [(0.7, True), (1.0, False), (2.5, True)])
def test_alpha_of_a_power_law(alpha, weighted):
    z = spectrum(np.arange(1.0, 105) ** -alpha, rows=130)
    assert label_free.alpha_req(z, weighted=weighted) == pytest.approx(alpha)
    assert np.isnan(label_free.alpha_req(z[:9]))


def test_directions_on_the_sphere():
    same, opposite = np.ones((4, 3)), np.array([[1.0, 0], [-1, 0]])
    assert label_free.self_cluster(same) == pytest.approx(1) and label_free.self_cluster(opposite) == pytest.approx(1)
    assert label_free.self_cluster(np.eye(5)) == pytest.approx(-1 / 4)
    assert label_free.uniformity(same) == pytest.approx(0) and label_free.uniformity(opposite) == pytest.approx(-8)
    assert label_free.uniformity(np.array([[2.0, 0], [0, 3]]), t=1) == pytest.approx(-2)
    assert label_free.alignment(opposite, -opposite) == pytest.approx(4)
    assert label_free.alignment(opposite, 7 * opposite) == 0


def test_lidar_counts_the_directions_that_tell_samples_apart():
    """Samples at +-e_i, views spread alike in every direction: three directions of equal weight, whatever the scale."""
    centres = np.vstack([np.eye(3), -np.eye(3)]).repeat(6, axis=0).reshape(6, 6, 3)
    jitter = 0.1 * np.vstack([np.eye(3), -np.eye(3)])
    assert label_free.lidar(centres + jitter) == pytest.approx(3)
    flat = (centres + jitter) * [1, 1, 0]
    assert label_free.lidar(flat) < 2.2 and label_free.lidar(0 * flat) == 0
    stretched = centres * [100, 1, 1] + jitter * [100, 1, 1]
    assert label_free.lidar(stretched, delta=0) == pytest.approx(3)  # Whitening by the views takes the scale away.


def test_lidar_by_hand():
    """Sb = 4/3 I, Sw = diag(0.18, 0.02) / 3 + delta I."""
    corners = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])[:, None]
    views = corners + np.array([[0.3, 0], [-0.3, 0], [0, 0.1], [0, -0.1]])
    weights = 1 / (np.array([0.06, 0.02 / 3]) + 0.01)
    share = weights / weights.sum()
    assert label_free.lidar(views, delta=0.01) == pytest.approx(np.exp(-share @ np.log(share)))


def test_learnable_clusters_and_dead_features():
    z = np.array([[0.0], [1], [2], [10], [11], [12]])
    folds = np.array([0, 1, 2, 0, 1, 2])
    assert label_free.cluster_learnability(z, np.array([0, 0, 0, 1, 1, 1]), folds, 2) == 1
    assert label_free.cluster_learnability(z, np.array([0, 0, 1, 1, 1, 1]), folds, 1) == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert label_free.cluster_learnability(z, np.array([0, 1, 0, 1, 0, 1]), folds, 1) == 0
    dead = np.array([[0.0, 1, -2, 5], [0, 2, -1, 5]])
    assert label_free.dead_share(dead) == 0.5 and label_free.inactive_share(dead) == 0.5


def test_failure_by_hand():
    kept = [0, 1 / 2, 2 / 4, 2 / 4, 2 / 5, 2 / 6, 3 / 7]  # Errors over samples at each one's own threshold.
    assert failure.aurc(CONFIDENCE, WRONG) == pytest.approx(np.mean(kept))
    kept[2] = 1.5 / 3
    assert failure.aurc_expected(CONFIDENCE, WRONG) == pytest.approx(np.mean(kept))
    assert failure.auroc(CONFIDENCE, 1 - WRONG) == pytest.approx((3 + 1.5 + 1 + 1) / 12)
    assert failure.fpr_at_tpr(CONFIDENCE, 1 - WRONG) == pytest.approx(2 / 3)
    assert failure.fpr_at_tpr(CONFIDENCE, 1 - WRONG, tpr=0.5) == pytest.approx(2 / 3)
    assert failure.auprc(-CONFIDENCE, WRONG) == pytest.approx((1 + 2 / 5 + 3 / 6) / 3)
    assert failure.risk_coverage_curve(CONFIDENCE, WRONG)[0] == pytest.approx(np.array([1, 2, 4, 5, 6, 7]) / 7)


def test_best_and_worst_orderings():
    perfect = -WRONG.astype(float) + np.linspace(0, 0.1, 7)
    assert failure.auroc(perfect, 1 - WRONG) == 1 and failure.auroc(-perfect, 1 - WRONG) == 0
    assert failure.eaurc(perfect, WRONG) == pytest.approx(0) and failure.eaurc(perfect, WRONG, limit=True) > 0
    assert failure.augrc(perfect, WRONG) == pytest.approx((3 / 7) ** 2 / 2)
    assert failure.aurc(perfect, WRONG) < failure.aurc(CONFIDENCE, WRONG) < failure.aurc(-perfect, WRONG)
    assert [failure.aurc(0 * CONFIDENCE, WRONG), failure.aurc_trapezoid(0 * CONFIDENCE, WRONG)] == pytest.approx([3 / 7, 3 / 7])


def test_ties_against_scikit_learn_and_random_orders():
    confidence, wrong = RNG.integers(0, 8, 200).astype(float), RNG.integers(0, 2, 200)
    area, accuracy = failure.auroc(confidence, 1 - wrong), 1 - wrong.mean()
    assert area == pytest.approx(roc_auc_score(1 - wrong, confidence))
    assert failure.auprc(-confidence, wrong) == pytest.approx(average_precision_score(wrong, -confidence))
    assert failure.augrc(confidence, wrong) == pytest.approx((1 - area) * accuracy * (1 - accuracy) + (1 - accuracy) ** 2 / 2)
    untied = [failure.aurc(confidence + 1e-3 * RNG.random(200), wrong) for _ in range(100)]
    error = np.std(untied) / 10
    assert abs(np.mean(untied) - failure.aurc_expected(confidence, wrong)) < 4 * error


def test_neighbours_by_hand():
    z, labels = np.array([[1.0, 0], [5, 0.1], [0, 1], [0.1, 2], [1, -0.2]]), np.array([0, 0, 1, 0, 1])
    assert failure.nearest_is_same(z, labels).tolist() == [1, 1, 0, 0, 0]
    assert failure.nearest_is_same(np.array([[1.0, 0], [-1, 0], [-1, 0.1]]), np.array([0, 1, 1])).tolist() == [0, 1, 1]
    assert failure.r_auroc(np.array([3.0, 2, 1, 0, 2]), z, labels) == pytest.approx(5.5 / 6)
    assert failure.knn_distance(z[:1], np.array([[2.0, 0], [0, 9], [-1, 0]]), 2) == pytest.approx([np.sqrt(2)])
    line = np.arange(6.0)[:, None]
    swapped = line.copy()
    swapped[[1, 5]] = swapped[[5, 1]]
    found = failure.neighbourhood_consistency([np.zeros((1, 1))] * 3, [line, line, swapped], 2, cosine=False)
    assert found == pytest.approx([(1 + 1 / 3 + 1 / 3) / 3])  # {0, 1} and {0, 5} share one of three.


def test_mahalanobis_is_euclidean_after_whitening_and_ignores_absent_directions():
    reference = spectrum([4.0, 1.0, 0.25]) + 3
    assert failure.mahalanobis(reference, reference).mean() == pytest.approx(3)
    mixed = reference @ RNG.normal(size=(3, 3))
    assert failure.mahalanobis(mixed, mixed) == pytest.approx(failure.mahalanobis(reference, reference))
    padded = np.c_[reference, np.zeros(len(reference))]
    assert failure.mahalanobis(padded, padded) == pytest.approx(failure.mahalanobis(reference, reference))


@pytest.mark.parametrize("n", [4, 5, 7])
def test_debiased_hsic_is_the_mean_over_distinct_samples(n):
    k, m = similarity.gram(X[:n]), similarity.gram(Y[:n])
    assert similarity.hsic_debiased(k, m) == pytest.approx(similarity.hsic_distinct(k, m))
    shifted = similarity.hsic_debiased(similarity.gram(similarity.centred(X[:n])), similarity.gram(similarity.centred(Y[:n])))
    assert shifted == pytest.approx(similarity.hsic_debiased(k, m))


def test_cka_from_covariances_and_of_independent_features():
    a, b = similarity.centred(X), similarity.centred(Y)
    by_features = (a.T @ b).ravel() @ (a.T @ b).ravel() / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
    assert similarity.cka(X, Y, debiased=False) == pytest.approx(by_features)
    draws = [similarity.cka(RNG.normal(size=(12, 40)), RNG.normal(size=(12, 40))) for _ in range(60)]
    assert abs(np.mean(draws)) < 4 * np.std(draws) / np.sqrt(60) and min(draws) < 0
    assert np.isnan(similarity.cka(X, np.ones((20, 2))))


ALIKE = [
    similarity.cka,
    similarity.mean_cca,
    similarity.svcca,
    similarity.pwcca,
    lambda x, y: 1 - similarity.procrustes(x, y) / 2,
]
TURN = turned(6)


@pytest.mark.parametrize("measure", [*ALIKE, lambda x, y: np.cos(similarity.angular(x, y))])
def test_turned_scaled_and_shifted_features_are_the_same(measure):
    assert measure(X, 3 * X @ TURN + 7) == pytest.approx(1)
    assert measure(X, Y) == pytest.approx(measure(X, Y @ turned(4))) and measure(X, Y) < 0.95


def test_canonical_correlations_by_rank():
    """One shared direction of two and two; a copied and a constant column change nothing."""
    q = np.linalg.qr(similarity.centred(RNG.normal(size=(30, 3))))[0]
    a, b = q[:, :2], q[:, 1:]
    assert similarity.cca_correlations(a, b) == pytest.approx([1, 0], abs=1e-7)
    assert similarity.mean_cca(np.c_[a, a[:, 0], np.ones(30)], b) == pytest.approx(0.5)
    assert similarity.pwcca(a * [3, 1], b) == pytest.approx(1 / 4)
    assert similarity.svcca(a * [1, 0.1], b, variance=0.99) == pytest.approx(0, abs=1e-7)
    assert similarity.svcca(a * [1, 0.101], b, variance=0.99) == pytest.approx(0.5)
    assert similarity.procrustes(a, b) == pytest.approx(1) and similarity.angular(a, b) == pytest.approx(np.pi / 3)


def test_neighbours_and_dissimilarities():
    assert similarity.mutual_knn(X, 5 * X @ TURN, 3) == 1
    assert similarity.mutual_knn(X, Y, 19) == 1
    draws = [similarity.mutual_knn(RNG.normal(size=(21, 5)), RNG.normal(size=(21, 5)), 4) for _ in range(40)]
    assert np.mean(draws) == pytest.approx(4 / 20, abs=4 * np.std(draws) / np.sqrt(40))
    assert similarity.rsa(X, 2 * X + 3) == pytest.approx(1)
    assert similarity.rsa(X, X @ TURN, "euclidean") == pytest.approx(1)
    assert similarity.rsa(np.array([[0.0], [1], [3]]), np.array([[0.0], [1], [-3]]), "euclidean") == pytest.approx(0.5)
