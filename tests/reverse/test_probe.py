"""The predictor, the split, k-means and the metrics against slow independent implementations."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from sslk.concepts import ConceptError, ConceptTable
from sslk.reverse import Clusterings, KMeansSettings, ProbeSettings, fit_predictor, quantize, reverse_metrics
from sslk.reverse.kmeans import lloyd, plus_plus_start, random_start
from sslk.reverse.protocol import reverse_probe, reverse_probes
from sslk.reverse.sparse_rows import SparseRows
from sslk.reverse.split import stratified_split
from sslk.reverse.standardize import Standardizer
from tests.reverse import oracle


def random_table(rows: int, concepts: int, density: float, seed: int = 0) -> ConceptTable:
    bits = torch.rand(rows, concepts, generator=torch.Generator().manual_seed(seed)) < density
    return ConceptTable.from_dense(bits, [f"c{i}" for i in range(concepts)], "all")


@pytest.mark.parametrize(("clusters", "batch"), [(7, 32), (130, 64), (300, 50)])
def test_sgd_equals_the_dense_loop_in_float64(clusters, batch):
    """Same batches, same schedule: the sparse, tiled steps are torch.optim.SGD on nn.Linear."""
    table = random_table(210, 23, 0.2)
    target = torch.randint(clusters, (210,), generator=torch.Generator().manual_seed(1))
    settings = ProbeSettings(epochs=5, batch_size=batch, learning_rate=0.7, weight_decay=3e-3, seed=5)
    found = fit_predictor(table, target, table, target, clusters, settings, dtype=torch.float64)
    generator = torch.Generator().manual_seed(5)
    orders = [torch.randperm(210, generator=generator) for _ in range(5)]
    expected = oracle.sgd(table.dense(), target, orders, clusters, settings)
    assert found.epoch == 5  # the loss on the training rows falls, so the last epoch is selected
    torch.testing.assert_close(found.weight, expected.weight.detach().T, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.bias, expected.bias.detach(), rtol=1e-9, atol=1e-12)
    loss = torch.nn.functional.cross_entropy(found.logits(table), target)
    assert abs(found.validation_curve[-1] - float(loss)) < 1e-10


def test_the_selected_epoch_is_the_best_on_validation():
    table, target = random_table(300, 60, 0.2), torch.randint(5, (300,), generator=torch.Generator().manual_seed(1))
    other = random_table(80, 60, 0.2, seed=9)
    truth = torch.randint(5, (80,), generator=torch.Generator().manual_seed(2))
    found = fit_predictor(table, target, other, truth, 5, ProbeSettings(epochs=20, batch_size=64))
    assert found.epoch == int(np.argmin(found.validation_curve)) + 1 < 20  # noise: it overfits, and stops in time
    loss = float(torch.nn.functional.cross_entropy(found.logits(other), truth))
    assert loss == pytest.approx(min(found.validation_curve), rel=1e-5)
    assert found.train_curve[-1] < found.train_curve[0]


def test_lbfgs_reaches_the_optimum_of_scikit_learn():
    table = random_table(400, 12, 0.3)
    weights = torch.randn(12, 4, generator=torch.Generator().manual_seed(3))
    target = (table.dense().float() @ weights).argmax(1)
    decay = 1e-2
    found = fit_predictor(table, target, table, target, 4, ProbeSettings(solver="lbfgs", weight_decay=decay), dtype=torch.float64)
    # A constant column with L2 in place of scikit-learn's unpenalised intercept: our bias is penalised as torch's is.
    bits = np.concatenate([table.dense().numpy(), np.ones((400, 1))], 1)
    model = LogisticRegression(C=1 / (decay * 400), fit_intercept=False, tol=1e-10, max_iter=5000)
    expected = model.fit(bits, target.numpy()).coef_.T
    np.testing.assert_allclose(np.concatenate([found.weight, found.bias[None]]), expected, atol=2e-4)


def test_the_transpose_lists_the_rows_of_every_concept():
    table = random_table(101, 9, 0.3)
    rows, offsets = SparseRows.of(table, torch.arange(101), torch.device("cpu")).transposed(9)
    for concept in range(9):
        shown = rows[offsets[concept] : offsets[concept + 1]]
        assert shown.tolist() == table.dense()[:, concept].nonzero().flatten().tolist()


@pytest.mark.parametrize("seed", range(4))
def test_metrics_equal_scikit_learn(seed):
    """Also with ties, which images of equal concepts make, and clusters without a row."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(8, 11, generator=generator)[torch.randint(8, (150,), generator=generator)]
    clusters = torch.randint(9, (150,), generator=generator)
    found = dataclasses.asdict(reverse_metrics(logits.double(), clusters))
    expected = oracle.metrics(logits, clusters)
    del found["top5"], expected["top5"]  # scikit-learn breaks ties within a row otherwise; checked below
    assert found == pytest.approx(expected, abs=1e-12)
    distinct = torch.randn(150, 11, generator=generator, dtype=torch.float64)
    assert reverse_metrics(distinct, clusters).top5 == pytest.approx(oracle.metrics(distinct, clusters)["top5"])


def test_split_shares_hold_in_every_cluster_and_small_clusters_are_said():
    clusters = torch.cat([torch.arange(40).repeat_interleave(25), torch.tensor([40, 41, 41])])
    split = stratified_split(clusters, seed=3)
    joined = torch.cat([split.train, split.validation, split.test])
    assert sorted(joined.tolist()) == list(range(1003))
    assert [len(split.train), len(split.validation), len(split.test)] == [642, 160, 201]
    for part, share in ((split.test, 5), (split.validation, 4), (split.train, 16)):
        counts = torch.bincount(clusters[part], minlength=42)[:40]
        assert (counts - share).abs().max() <= 1
    assert split.too_small == 2


def test_lloyd_equals_the_textbook_loop():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 5, generator=generator)
    start = random_start(x, 12, generator)
    fit = lloyd(x, start, 7)
    centroids, inertia = oracle.lloyd(x, start, 7)
    torch.testing.assert_close(fit.centroids.double(), centroids, rtol=1e-5, atol=1e-5)
    assert fit.inertia == pytest.approx(inertia, rel=1e-6)
    assert lloyd(x, start, 500).iterations < 500  # nothing moves any more


def test_empty_clusters_take_the_farthest_rows():
    x = torch.tensor([[0.0], [0.1], [0.2], [5.0], [9.0]])
    start = torch.tensor([[0.0], [100.0], [200.0]])
    first, second = lloyd(x, start), lloyd(x, start)
    assert first.repaired == 2 and torch.equal(first.centroids, second.centroids)
    assert first.inertia == pytest.approx(0.02, rel=1e-4)
    few = lloyd(torch.zeros(4, 2), torch.zeros(3, 2))  # fewer different rows than clusters: no endless repair
    assert few.inertia == 0 and bool(few.centroids.isfinite().all())


def test_plus_plus_spreads_the_start():
    x = torch.cat([torch.full((50, 2), 10.0 * k) for k in range(5)])
    for seed in range(5):
        start = plus_plus_start(x, 5, torch.Generator().manual_seed(seed))
        assert len(start[:, 0].unique()) == 5


@pytest.mark.parametrize("engine", ["sslk", "faiss"])
def test_quantize_sees_every_row_and_states_a_sample(engine):
    if engine == "faiss":
        pytest.importorskip("faiss")
    x = torch.randn(2000, 6, generator=torch.Generator().manual_seed(0)) + 100
    settings = KMeansSettings(clusters=4, clusterings=2, restarts=3, iterations=30, engine=engine)
    found = quantize(x, settings)
    assert found.about["points"] == 2000  # faiss alone would take 256 a centroid
    assert found.inertia.shape == (2, 3) and found.sizes().sum(1).tolist() == [2000, 2000]
    rows = found.standardizer(x)
    for r in range(2):
        distance = torch.cdist(rows, found.centroids[r]).square().amin(1)
        assert float(distance.double().sum()) == pytest.approx(float(found.inertia[r].min()), rel=1e-5)
    assert quantize(x, dataclasses.replace(settings, max_points=500)).about["points"] == 500
    assert torch.equal(found.assign(x), found.assignments)


def test_both_engines_agree():
    pytest.importorskip("faiss")
    x = torch.randn(1500, 16, generator=torch.Generator().manual_seed(0))
    settings = KMeansSettings(clusters=10, clusterings=1, restarts=5, iterations=100)
    ours = quantize(x, settings).inertia.min()
    theirs = quantize(x, dataclasses.replace(settings, engine="faiss")).inertia.min()
    assert float(ours) == pytest.approx(float(theirs), rel=5e-3)


def test_standardiser_is_exact_for_constant_and_shifted_columns():
    x = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    x[:, 1], x[:, 2] = 0.1, x[:, 2] + 1e5
    rows = Standardizer.fit(x)(x)
    expected = (x.double() - x.double().mean(0)) / x.double().std(0, correction=0)
    assert rows[:, 1].abs().max() == 0
    torch.testing.assert_close(rows[:, [0, 2, 3]].double(), expected[:, [0, 2, 3]], rtol=1e-6, atol=1e-6)


def test_clusterings_survive_the_disk(tmp_path):
    found = quantize(torch.randn(60, 3), KMeansSettings(clusters=3, clusterings=2, restarts=1))
    loaded = Clusterings.load(found.save(tmp_path / "k.safetensors"))
    assert torch.equal(loaded.assign(torch.ones(4, 3)), found.assign(torch.ones(4, 3)))
    assert torch.equal(loaded.assignments, found.assignments) and loaded.about == found.about
    (tmp_path / "k.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        Clusterings.load(tmp_path / "k.safetensors")


def test_rows_meet_by_sample_number_not_by_order():
    labels = torch.arange(300) % 3
    table = ConceptTable.from_rows([[c] for c in labels.tolist()], list("abc"), "labels")
    shuffle = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    result = reverse_probe(Clusterings.given(labels), table.take(shuffle), ProbeSettings(epochs=5))
    assert result.mean("top1") == 1.0
    with pytest.raises(ConceptError, match="10 of 300 samples have no concepts, the first is 290"):
        reverse_probe(Clusterings.given(labels), table.take(torch.arange(290)), ProbeSettings(epochs=5))


def test_useless_columns_do_no_harm_and_are_reported():
    labels = torch.arange(400) % 4
    rows = [[c, 4] for c in labels.tolist()]  # column 4 is always on, 5 never
    table = ConceptTable.from_rows(rows, [*"abcd", "always", "never"], "g")
    result = reverse_probes(Clusterings.given(labels), {"x": table}, ProbeSettings(epochs=10))["x"]
    assert result.constant == ["g/always", "g/never"] and result.mean("nmi") == 1.0
    assert "2 of 6 concepts are constant" in result.warnings[0]


def test_validated_information_is_a_lower_bound_of_what_concepts_tell():
    """Two independent bits give clusters (a + 2 b) with 2 bits of entropy; one bit column tells half of it."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(2, (4000,), generator=generator) for _ in range(2))
    table = ConceptTable.from_dense(torch.stack([a, b], 1), ["a", "b"], ["one", "two"])
    clusters = Clusterings.given(a + 2 * b)
    found = reverse_probes(clusters, {"one": table.select(["one"]), "both": table}, ProbeSettings(epochs=20))
    assert found["one"].mean("normalized_information") == pytest.approx(0.5, abs=0.01)
    assert found["both"].mean("normalized_information") == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quantize(torch.randn(5, 2), KMeansSettings(clusters=6)), "K=6 for N=5"),
        (lambda: quantize(torch.tensor([[1.0], [float("nan")]])), "K=1000 for N=1"),
        (lambda: Standardizer.fit(torch.tensor([[1.0], [float("nan")]])), "1 of 2 rows are not, the first is 1"),
        (lambda: quantize(torch.ones(3, 2, dtype=torch.int32)), "floating point"),
        (lambda: quantize(torch.randn(50, 2), KMeansSettings(clusters=9, max_points=5)), "max_points"),
        (lambda: KMeansSettings(restarts=0), "restarts must be at least 1"),
        (lambda: KMeansSettings(engine="gpu"), "engine"),
        (lambda: ProbeSettings(solver="adam"), "solver"),
        (lambda: ProbeSettings(epochs=0), "epochs must be positive"),
        (lambda: Clusterings.given(torch.full((3,), 1.5)), "must be whole numbers, got 1.5"),
        (lambda: Clusterings.given(torch.tensor([0, 1])).assign(torch.ones(2, 2)), "given as assignments"),
        (lambda: stratified_split(torch.tensor([0, 1])), "all three parts"),
        (lambda: reverse_metrics(torch.ones(3, 2), torch.tensor([0])), "logits must be"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_divergence_is_said():
    table, target = random_table(64, 10, 0.9), torch.arange(64) % 8
    with pytest.raises(ValueError, match="learning_rate=1e\\+38 makes the loss diverge"):
        fit_predictor(table, target, table, target, 8, ProbeSettings(learning_rate=1e38))
