"""Logistic regression over a grid of C against scikit-learn's, one value after another; the choice, the refit, odd data."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from sslk.probes import LogregSettings, logreg_probe
from sslk.probes.logreg_choice import choose
from sslk.probes.logreg_draws import held_out
from sslk.probes.logreg_path import batch_width, fit_path
from sslk.probes.logreg_rows import rotate

CPU = torch.device("cpu")
TIGHT = LogregSettings(tolerance=1e-5, max_iterations=3000, precision="float64")
GRID = (1e-5, 1e-3, 0.1, 3.0, 100.0)


def data(n, d=12, classes=(3, 7, 40), seed=0, spread=1.5):
    """Features of unequal size and offset, labels that are not contiguous."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(len(classes), d, generator=torch.Generator().manual_seed(9))
    target = torch.randint(len(classes), (n,), generator=generator)
    x = (centres[target] + spread * torch.randn(n, d, generator=generator)) * torch.linspace(0.1, 3, d) + 2
    return x, torch.tensor(classes)[target]


def oracle(x: Tensor, y: Tensor, c: float) -> LogisticRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it cannot reach such a tolerance
        return LogisticRegression(C=c, tol=1e-9, max_iter=20_000).fit(x.double().numpy(), y.numpy())


def objective(weight: np.ndarray, bias: np.ndarray, x: Tensor, y: Tensor, c: float) -> float:
    """scikit-learn's, divided by C N, of softmax weights `[K, D]`; of two classes the penalty is on their difference."""
    scores = x.double().numpy() @ weight.T + bias
    place = np.searchsorted(np.unique(y.numpy()), y.numpy())
    top = scores.max(1)
    loss = np.log(np.exp(scores - top[:, None]).sum(1)) + top - scores[np.arange(len(x)), place]
    penalty = np.square(weight).sum() if len(weight) > 2 else np.square(weight[1] - weight[0]).sum()
    return float(loss.mean() + penalty / (2 * c * len(x)))


def softmax_weights(model: LogisticRegression) -> tuple[np.ndarray, np.ndarray]:
    """Of two classes scikit-learn has one vector."""
    if len(model.coef_) > 1:
        return model.coef_, model.intercept_
    return np.concatenate([-model.coef_, model.coef_]) / 2, np.concatenate([-model.intercept_, model.intercept_]) / 2


@pytest.mark.parametrize("c", GRID)
@pytest.mark.parametrize(("n", "d", "classes"), [(300, 12, (3, 7, 40)), (200, 9, (0, 1)), (40, 90, (2, 5, 6, 11))])
def test_weights_and_loss_are_those_of_scikit_learn(c, n, d, classes):
    x, y = data(n, d, classes)
    probe = logreg_probe((x, y), (x, y), TIGHT, c=c)
    weight, bias = softmax_weights(oracle(x, y, c))
    assert probe.converged and probe.c == c and probe.grid == []
    mine, theirs = (objective(w, b, x, y, c) for w, b in ((probe.weight.numpy(), probe.bias.numpy()), (weight, bias)))
    assert mine <= theirs + 1e-9 and probe.loss == pytest.approx(mine, abs=1e-9)
    size = np.abs(weight).max()
    np.testing.assert_allclose(probe.weight, weight, atol=2e-3 * size)
    centred = probe.bias.numpy() - probe.bias.numpy().mean()  # softmax leaves their mean free
    np.testing.assert_allclose(centred, bias - bias.mean(), atol=5e-3 * max(1, np.abs(bias).max()))


@pytest.mark.parametrize("c", [1e-6, 1e-2, 10.0, 1e5])
@pytest.mark.parametrize("spread", [1.5, 0.2])
def test_float32_is_within_the_tolerance(c, spread):
    """Also where the classes are separable and the errors of all rows are below the rounding of 1."""
    x, y = data(400, 30, spread=spread)
    exact = logreg_probe((x, y), (x, y), TIGHT, c=c)
    probe = logreg_probe((x, y), (x, y), c=c)
    assert probe.converged
    assert float((probe.weight - exact.weight).norm() / exact.weight.norm()) < 1.1 * LogregSettings().tolerance
    assert probe.loss - exact.loss < 1e-4 * (1.0986 - exact.loss) and probe.loss < exact.loss * (1 + 2e-4)


@pytest.mark.parametrize("metric", ["top1", "mean-per-class"])
def test_protocol_is_that_of_a_loop_over_scikit_learn(metric):
    """The same split, every C alone, ties to the smaller, all rows for the last."""
    (x, y), (test_x, test_y) = data(260, spread=3.0), data(200, seed=1, spread=3.0)
    keep = (y != 40) | (torch.arange(len(y)) % 4 == 0)
    x, y = x[keep], y[keep]
    grid = tuple(float(v) for v in np.logspace(-5, 2, 15))
    probe = logreg_probe((x, y), (test_x, test_y), TIGHT, c=grid, metric=metric, validation_share=0.3)
    held = held_out(torch.unique(y, return_inverse=True)[1], 0.3, 0)
    best, scores = (-1.0, 0.0), []
    for c in grid:
        right = torch.from_numpy(oracle(x[~held], y[~held], c).predict(x[held].double().numpy())) == y[held]
        values = float(right.double().mean()), float(np.mean([right[y[held] == k].double().mean() for k in (3, 7, 40)]))
        scores.append(values)
        value = values[metric != "top1"]
        best = max(best, (value, -c))
    np.testing.assert_allclose([(p.top1, p.mean_per_class) for p in probe.grid], scores, atol=1e-12)
    assert probe.c == -best[1] and probe.held_out == int(held.sum())
    final = oracle(x, y, probe.c)
    np.testing.assert_allclose(probe.weight, final.coef_, atol=2e-3 * np.abs(final.coef_).max())
    assert probe.top1 == pytest.approx(final.score(test_x.double().numpy(), test_y.numpy()))


def test_both_metrics_may_choose_differently():
    x, y = data(400, 20, (0, 1), spread=4.0)
    keep = (y == 0) | (torch.arange(len(y)) % 8 == 0)
    probes = [logreg_probe((x[keep], y[keep]), (x, y), metric=m, validation_share=0.4) for m in ("top1", "mean-per-class")]
    assert probes[0].c != probes[1].c
    for probe, name in zip(probes, ("top1", "mean_per_class"), strict=True):
        values = [getattr(point, name) for point in probe.grid]
        assert probe.c == probe.grid[int(np.argmax(values))].c


def test_test_rows_choose_nothing_and_held_out_rows_do():
    (x, y), (test_x, test_y) = data(300, spread=3.0), data(100, seed=1)
    probe = logreg_probe((x, y), (test_x, test_y))
    other = logreg_probe((x, y), (10 * test_x.flip(1), test_y.roll(7)))
    assert other.c == probe.c and torch.equal(other.weight, probe.weight) and other.grid == probe.grid
    held = held_out(torch.unique(y, return_inverse=True)[1], 0.1, 0)
    changed = x.clone()
    changed[held] = changed[held].flip(0)
    moved = logreg_probe((changed, y), (test_x, test_y))
    assert [p.loss for p in moved.grid] == pytest.approx([p.loss for p in probe.grid], rel=1e-3)
    assert [p.top1 for p in moved.grid] != [p.top1 for p in probe.grid]


def test_groups_are_one_batch():
    """Any number at once: the same weights up to the tolerance, the same accuracies, C and answers."""
    (x, y), test = data(300), data(200, seed=1)
    grid = tuple(10.0**power for power in range(-5, 3))
    probes = [logreg_probe((x, y), test, TIGHT, c=grid, at_once=n) for n in (8, 3, 1)]
    small = logreg_probe((x, y), test, TIGHT, c=grid, at_once=8, memory=1e-9)
    for probe in [*probes[1:], small]:
        assert probe.c == probes[0].c and [p.top1 for p in probe.grid] == [p.top1 for p in probes[0].grid]
        np.testing.assert_allclose([p.loss for p in probe.grid], [p.loss for p in probes[0].grid], rtol=1e-9)
        np.testing.assert_allclose(probe.weight, probes[0].weight, atol=1e-5)


@pytest.mark.parametrize(("memory", "expected"), [(1.0, 4), (0.25, 1), (100.0, 45), (1e-9, 1)])
def test_width_follows_the_memory(memory, expected):
    settings = LogregSettings(memory=memory, at_once=45)
    assert batch_width(settings, 1000, 2049, torch.float32, CPU) == expected


def test_warm_starts_save_evaluations():
    x, y = data(500, 40, spread=4.0)
    evaluations = [sum(p.evaluations for p in logreg_probe((x, y), (x, y), at_once=n).grid) for n in (45, 1)]
    assert evaluations[1] < 0.8 * evaluations[0]


@pytest.mark.parametrize("factor", [1e-20, 1e15])
def test_scale_of_features_is_that_of_c(factor):
    """C of features times f is C f^2: nothing overflows, nothing is lost."""
    (x, y), (test_x, test_y) = data(200), data(200, seed=1)
    grid = np.array([1e-2, 1.0])
    plain = logreg_probe((x, y), (test_x, test_y), c=tuple(grid))
    scaled = logreg_probe((x * factor, y), (test_x * factor, test_y), c=tuple(grid / factor**2))
    assert torch.equal(scaled.predictions, plain.predictions) and scaled.converged
    np.testing.assert_allclose(scaled.weight * factor, plain.weight, rtol=1e-2, atol=1e-4)


def test_constant_features_and_classes_of_one_side():
    x, y = data(200)
    x[:, 3], x[:, 5] = 7.0, 0.0
    test_x, test_y = data(120, classes=(3, 7, 40, 41), seed=1)
    only = test_y != 7
    with pytest.warns(UserWarning, match="that training lacks"):
        probe = logreg_probe((x, y), (test_x[only], test_y[only]))
    assert probe.outputs.unknown == int((test_y == 41).sum()) and probe.weight[:, [3, 5]].abs().max() < 1e-6
    assert probe.classes.tolist() == [3, 7, 40] and torch.isin(probe.predictions, probe.classes).all()
    constant = logreg_probe((torch.ones(30, 4), torch.arange(30) % 3), (torch.ones(9, 4), torch.arange(9) % 3))
    assert constant.top1 == pytest.approx(1 / 3)


def test_class_of_one_row_stays_in_training():
    x, y = data(200, classes=(3, 7))
    y[0] = 40
    assert logreg_probe((x, y), (x, y)).classes.tolist() == [3, 7, 40]
    rows = torch.eye(3)
    with pytest.raises(ValueError, match="give one value of c"):
        logreg_probe((rows, torch.arange(3)), (rows, torch.arange(3)))
    assert logreg_probe((rows, torch.arange(3)), (rows, torch.arange(3)), c=10).top1 == 1


def test_rows_that_cannot_be_used_change_nothing():
    (x, y), (test_x, test_y) = data(200), data(100, seed=1)
    bad_x, bad_y = torch.cat([x, x[:2], torch.full((1, 12), torch.nan)]), torch.cat([y, torch.tensor([-1, -5]), y[:1]])
    with pytest.warns(UserWarning, match="left out"):
        probe = logreg_probe((bad_x, bad_y), (torch.cat([test_x, bad_x[-1:]]), torch.cat([test_y, y[:1]])))
    plain = logreg_probe((x, y), (test_x, test_y))
    assert probe.unlabelled == 2 and probe.nonfinite == 2
    assert torch.equal(probe.outputs.logits, plain.outputs.logits)


def test_more_rows_than_find_the_axes_and_memory_of_the_host(monkeypatch):
    """Axes of a part of the rows, blocks of a few: the optimum is the same."""
    x, y = data(500)
    plain = logreg_probe((x, y), (x, y), TIGHT, c=1.0)
    monkeypatch.setattr("sslk.probes.logreg_rows.AXES_ROWS", 50)
    monkeypatch.setattr("sslk.probes.logreg_rows.BLOCK_BYTES", 800)
    monkeypatch.setattr("sslk.probes.logreg_path.LOGIT_BYTES", 800)
    small = logreg_probe((x, y), (x, y), TIGHT, c=1.0)
    np.testing.assert_allclose(small.weight, plain.weight, atol=1e-6)


def test_gradient_is_that_of_the_loss():
    from sslk.probes.logreg_path import PathLoss

    x, y = data(50, 6)
    z = torch.cat([x, torch.ones(50, 1)], 1).double()
    targets = torch.unique(y, return_inverse=True)[1]
    loss = PathLoss(z, targets, 3, torch.tensor([0.1, 2.0], dtype=torch.float64))
    position = torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)
    value = torch.stack(
        [
            torch.nn.functional.cross_entropy(z @ v.T, targets) + l2 / 2 * v[:, :-1].square().sum()
            for v, l2 in zip(position, (0.1, 2.0), strict=True)
        ]
    )
    found, gradient = loss(position.detach())
    torch.testing.assert_close(found, value.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(value.sum(), position)[0])


def test_ties_go_to_the_smaller_c():
    x = torch.cat([torch.full((40, 2), -1.0), torch.full((40, 2), 1.0)])
    y = torch.arange(2).repeat_interleave(40)
    rows = rotate(torch.cat([x, torch.ones(80, 1)], 1), CPU)
    choice = choose(rows, y, 2, (rows.z, y), LogregSettings(), 1.0)
    assert choice.best == 0 and all(p.top1 == 1 for p in choice.points)
    found = [m.evaluations for _, m in fit_path(rows, y, 2, [1.0], LogregSettings(), begin=choice.position)]
    assert len(found) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"c": (0.0,)}, "c must be"),
        ({"metric": "top5"}, "metric must be"),
        ({"shots": (0,)}, "shots must be"),
        ({"shots": (2, 2)}, "shots must be"),
        ({"tries": 0}, "tries must be"),
        ({"validation_share": 1.0}, "validation_share must be"),
        ({"memory": 0.0}, "memory must be"),
        ({"precision": "bfloat16"}, "precision must be"),
    ],
)
def test_settings_that_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        LogregSettings(**changes)


def test_one_class_and_other_widths_are_refused():
    x, y = data(50)
    with pytest.raises(ValueError, match="at least two classes"):
        logreg_probe((x, torch.zeros(50)), (x, y))
    with pytest.raises(ValueError, match="same D"):
        logreg_probe((x, y), (x[:, :5], y))
