"""Cluster learnability against a loop over samples, with scikit-learn's k-means for the labels of both."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from sslk.quality import cluster_learnability


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tell(query, bank, labels, k):
    """The majority of the k most similar; of several, the one whose member is nearest."""
    order = np.argsort(-(bank @ query), kind="stable")[:k]
    counts = np.bincount(labels[order])
    return next(labels[i] for i in order if counts[labels[i]] == counts.max())


@pytest.mark.parametrize("protocol", ["validation", "prequential"])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_equals_a_loop_over_the_samples(protocol, k, monkeypatch):
    monkeypatch.setattr("sslk.quality.learnability._TILE_BYTES", 4 * 61 * 7)  # tiles of a few queries
    x = normal(61, 6)
    found = cluster_learnability(x, 5, k, protocol, repeats=2, seed=3)
    unit = (x.double() / x.double().norm(dim=1, keepdim=True)).numpy()
    labels = KMeans(5, n_init=1, random_state=3).fit(unit.astype(np.float32)).labels_
    generator, values = torch.Generator().manual_seed(3), []
    for _ in range(2):
        order = torch.randperm(61, generator=generator).numpy()
        if protocol == "validation":
            bank, queries = order[:30], order[30:]
            hits = [tell(unit[i], unit[bank], labels[bank], k) == labels[i] for i in queries]
        else:
            hits = [tell(unit[order[i]], unit[order[:i]], labels[order[:i]], k) == labels[order[i]] for i in range(1, len(order))]
        values.append(np.mean(hits))
    assert found.by_order == pytest.approx(values)
    assert found.value == pytest.approx(np.mean(values))
    assert (found.clusters, found.rows) == (5, 61)


def test_separate_groups_are_learned_and_noise_is_not():
    groups = torch.eye(8)[torch.arange(400) % 8] * 10 + 0.1 * normal(400, 8)
    assert cluster_learnability(groups, 8).value == 1
    assert cluster_learnability(groups * 1e-25, 8).value == 1
    assert cluster_learnability(groups, 8, protocol="prequential").value > 0.95
    assert cluster_learnability(normal(400, 256)).value < 0.5
    assert cluster_learnability(groups).clusters == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": torch.ones(3, 2)}, "at least 4 rows"),
        ({"x": torch.full((9, 2), torch.nan)}, "x must be finite"),
        ({"clusters": 1}, "clusters must lie between 2 and the 9 rows, got 1"),
        ({"neighbors": 5}, "neighbors must lie between 1 and 4"),
        ({"protocol": "online"}, "one of validation, prequential, got 'online'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        cluster_learnability(**({"x": normal(9, 2)} | arguments))
