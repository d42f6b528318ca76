"""Many probes at once against the equation in float64 and against scikit-learn one by one."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from sslk.probes import batched
from sslk.probes.batched import fit_linear_probes
from sslk.probes.settings import FitSettings


def clusters(n, d=24, classes=(3, 7, 40, 41), seed=0, dtype=torch.float64):
    """Overlapping clusters with non-contiguous labels and features of very different scales and offsets."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(len(classes), d, generator=torch.Generator().manual_seed(9), dtype=dtype)
    target = torch.randint(len(classes), (n,), generator=generator)
    mixing = torch.randn(d, d, generator=torch.Generator().manual_seed(8), dtype=dtype)
    x = centres[target] + (2 * torch.randn(n, d, generator=generator, dtype=dtype)) @ mixing * 0.4
    return x * torch.logspace(-3, 2, d, dtype=dtype) + torch.arange(d), torch.tensor(classes)[target]


def masks(d, n, count=4):
    generator = torch.Generator().manual_seed(1)
    features = torch.rand(count, d, generator=generator) < torch.linspace(0.3, 1, count)[:, None]
    return features, torch.rand(count, n, generator=generator) < 0.7


def objective(x, y, weight, bias, l2, rows, columns):
    """The documented objective of one probe, written out, and the gradient autograd finds for it."""
    z = x[rows][:, columns]
    z = (z - z.mean(0)) / z.std(0, correction=0)
    w, b = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    loss = F.cross_entropy(z @ w.T + b, y[rows]) + l2 / 2 * w.square().sum()
    return loss, torch.cat([g.flatten() for g in torch.autograd.grad(loss, [w, b])])


def test_every_probe_is_at_the_minimum_of_its_own_objective():
    x, y = clusters(400)
    feature_masks, sample_masks = masks(24, 400)
    l2 = torch.tensor([1e-3, 1e-2, 1e-4, 1e-3])
    probes = fit_linear_probes(
        x, y, settings=FitSettings(tolerance=1e-9), l2=l2, feature_masks=feature_masks, sample_masks=sample_masks
    )
    targets = torch.searchsorted(probes.classes, y)
    for g in range(4):
        rows, columns = sample_masks[g], feature_masks[g]
        part = x[rows][:, columns]
        std, mean = part.std(0, correction=0), part.mean(0)
        # From the coordinates of all rows to those of the probe's own.
        weight = probes.weight[g][:, columns] / probes.scale[columns] * std
        bias = probes.bias[g] + probes.weight[g][:, columns] @ ((mean - probes.mean[columns]) / probes.scale[columns])
        loss, gradient = objective(x, targets, weight, bias, l2[g], rows, columns)
        assert gradient.abs().max() < 1e-8
        assert loss.item() == pytest.approx(probes.loss[g].item(), rel=1e-9)
        assert (probes.weight[g][:, ~columns] == 0).all()
    assert probes.converged.all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_predictions_are_those_of_scikit_learn(dtype, device):
    x, y = clusters(600)
    x_test, _ = clusters(500, seed=1)
    feature_masks, sample_masks = masks(24, 600)
    found = fit_linear_probes(
        x.to(device, dtype),
        y,
        settings=FitSettings(tolerance=1e-5),
        feature_masks=feature_masks,
        sample_masks=sample_masks,
        l2=1e-3,
    )
    predicted = found.predict(x_test.to(device, dtype)).cpu()
    for g in range(4):
        rows, columns = sample_masks[g], feature_masks[g]
        scaler = StandardScaler().fit(x[rows][:, columns])
        reference = LogisticRegression(C=1 / (1e-3 * int(rows.sum())), tol=1e-8, max_iter=5000)
        reference.fit(scaler.transform(x[rows][:, columns]), y[rows])
        expected = torch.from_numpy(reference.predict(scaler.transform(x_test[:, columns])))
        assert (predicted[g] == expected).double().mean() >= 0.998


def test_one_probe_does_not_depend_on_its_neighbours():
    x, y = clusters(300)
    feature_masks, sample_masks = masks(24, 300)
    together = fit_linear_probes(
        x, y, settings=FitSettings(tolerance=1e-8), feature_masks=feature_masks, sample_masks=sample_masks
    )
    for g in range(4):
        alone = fit_linear_probes(
            x,
            y,
            settings=FitSettings(tolerance=1e-8),
            feature_masks=feature_masks[g : g + 1],
            sample_masks=sample_masks.roll(-g, 0)[:1],
        )
        torch.testing.assert_close(alone.logits(x)[0], together.logits(x)[g], rtol=1e-4, atol=1e-4)


def test_groups_that_do_not_fit_in_memory_give_the_same(monkeypatch):
    x, y = clusters(300)
    feature_masks, sample_masks = masks(24, 300)
    whole = fit_linear_probes(x, y, settings=FitSettings(tolerance=1e-9), feature_masks=feature_masks, sample_masks=sample_masks)
    monkeypatch.setattr(batched, "MEMORY_BYTES", 3 * (22 * 4 * 25 * 8 + 25 * 25 * 8))
    monkeypatch.setattr(batched, "LOGIT_BYTES", 4096)
    done = []
    parts = fit_linear_probes(
        x,
        y,
        settings=FitSettings(tolerance=1e-9),
        feature_masks=feature_masks,
        sample_masks=sample_masks,
        progress=lambda *state: done.append(state),
    )
    torch.testing.assert_close(parts.logits(x), whole.logits(x), rtol=1e-4, atol=1e-5)
    assert torch.equal(parts.predict(x), whole.predict(x)) and done[-1] == (4, 4, "training probes")


def test_class_absent_from_a_fold_constant_and_duplicate_features():
    x, y = clusters(300)
    x[:, 3] = 5.0
    x[:, 4] = x[:, 5]
    rows = torch.stack([y != 40, torch.ones(300, dtype=torch.bool)])
    found = fit_linear_probes(x.float(), y, settings=FitSettings(max_iterations=60), sample_masks=rows, l2=0.0)
    assert found.weight.isfinite().all()
    assert (found.predict(x.float())[0] != 40).all()
    assert torch.equal(found.predict(x[:0].float()), torch.zeros(2, 0, dtype=torch.int64))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"features": torch.ones(60, 24, dtype=torch.int64)}, TypeError, "floating-point matrix"),
        ({"labels": torch.zeros(59, dtype=torch.int64)}, ValueError, "N = 60"),
        ({"labels": torch.zeros(60, dtype=torch.int64)}, ValueError, "at least two classes, got 1"),
        ({"labels": torch.rand(60)}, ValueError, "labels must be whole numbers, got 0"),
        ({"l2": -1.0}, ValueError, "l2 must be zero or positive"),
        ({"feature_masks": torch.ones(2, 23, dtype=torch.bool)}, ValueError, r"feature_masks must be bool \[G, 24\]"),
        ({"sample_masks": torch.zeros(2, 60, dtype=torch.bool)}, ValueError, "sample_masks must select something"),
        ({"l2": torch.ones(3), "sample_masks": torch.ones(2, 60, dtype=torch.bool)}, ValueError, "same length G"),
    ],
)
def test_bad_input(change, error, message):
    x, y = clusters(60)
    arguments = {"features": x, "labels": y, **change}
    with pytest.raises(error, match=message):
        fit_linear_probes(arguments.pop("features"), arguments.pop("labels"), **arguments)


def test_rows_that_cannot_be_used_are_left_out_and_counted():
    """As if they had never been there, bit by bit; a row that is not finite is predicted as unlabelled."""
    x, y = clusters(60)
    _, sample_masks = masks(24, 60)
    keep = torch.ones(60, dtype=torch.bool)
    keep[[7, 9, 20]] = False
    expected = fit_linear_probes(x[keep], y[keep], sample_masks=sample_masks[:, keep])
    x[7, 3], x[9, 0], y[20] = torch.nan, torch.inf, -4
    with pytest.warns(UserWarning, match="2 of 60 rows are not finite"), pytest.warns(UserWarning, match="1 of 60 rows is unl"):
        found = fit_linear_probes(x, y, sample_masks=sample_masks)
    assert torch.equal(found.weight, expected.weight) and torch.equal(found.classes, expected.classes)
    assert (found.rows.given, found.rows.unlabelled, found.rows.nonfinite, expected.rows.nonfinite) == (60, 1, 2, 0)
    assert torch.equal(found.predict(x)[:, keep], expected.predict(x[keep])) and (found.predict(x)[:, [7, 9]] == -1).all()
    by_hand = (expected.predict(x[keep]) == y[keep]).double().mean(1)
    assert torch.equal(found.accuracy(x, y), by_hand)


def wide_photos(n=233, d=1024, classes=10):
    """As few photos as a class folder holds, under a wide network: correlated, not negative, N far below D."""
    generator = torch.Generator().manual_seed(3)
    y = torch.randint(classes, (n + 117,), generator=generator)
    centres = torch.randn(classes, 64, generator=generator)
    mixing = torch.randn(64, d, generator=generator) / torch.arange(1, 65).sqrt()[:, None]
    x = torch.relu((torch.randn(n + 117, 64, generator=generator) * 1.5 + centres[y]) @ mixing)
    return x[:n], y[:n], x[n:], y[n:]


@pytest.mark.parametrize("l2", [1e-4, 1e-2])
def test_converged_means_the_loss_of_the_optimum(l2):
    """At the tolerance as it comes, a probe said to have converged has scikit-learn's loss and accuracy."""
    x, y, x_test, y_test = wide_photos()
    found = fit_linear_probes(x, y, l2=l2)
    scaler = StandardScaler().fit(x.double())
    model = LogisticRegression(C=1 / (l2 * len(x)), tol=1e-10, max_iter=20000).fit(scaler.transform(x.double()), y)
    weight, bias = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
    rows, columns = torch.ones(len(x), dtype=torch.bool), torch.ones(x.shape[1], dtype=torch.bool)
    least, _ = objective(x.double(), y, weight, bias, l2, rows, columns)
    reached, _ = objective(x.double(), y, found.weight[0].double(), found.bias[0].double(), l2, rows, columns)
    assert found.converged.all()
    assert reached.item() <= least.item() + 1e-4
    expected = model.score(scaler.transform(x_test.double()), y_test)
    assert found.accuracy(x_test, y_test).item() == pytest.approx(expected, abs=1.5 / len(y_test))


def test_a_probe_that_was_stopped_has_not_converged():
    x, y, _, _ = wide_photos()
    assert not fit_linear_probes(x, y, settings=FitSettings(max_iterations=3)).converged.any()
    # float32 cannot reach this, however long it tries; float64 reaches nearly as much.
    assert not fit_linear_probes(x, y, settings=FitSettings(tolerance=1e-14, max_iterations=300)).converged.any()
    assert fit_linear_probes(x.double(), y, settings=FitSettings(tolerance=1e-8), l2=1e-2).converged.all()
