"""Linear probe and failure prediction against scikit-learn."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

import sslk
from sslk.probes.settings import LinearSettings


def blobs(n, d=20, classes=(3, 7, 40), seed=0, spread=2.2):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(len(classes), d, generator=torch.Generator().manual_seed(99))
    target = torch.randint(len(classes), (n,), generator=generator)
    x = centres[target] + spread * torch.randn(n, d, generator=generator)
    return x * torch.linspace(0.01, 100, d), torch.tensor(classes)[target]


def test_probe_reaches_logistic_regression():
    """Non-contiguous labels and features of very different scales."""
    x, y = blobs(2000)
    x_test, y_test = blobs(2000, seed=1)
    probe = sslk.linear_probe((x, y), (x_test, y_test), LinearSettings(epochs=40))
    mean, std = x.mean(0), x.std(0)
    reference = LogisticRegression().fit((x - mean) / std, y).score((x_test - mean) / std, y_test)
    assert abs(probe.top1 - reference) < 0.015
    assert probe.classes.tolist() == [3, 7, 40]
    assert set(probe.predictions.tolist()) <= {3, 7, 40}
    assert torch.equal(probe.correct, probe.predictions == y_test)
    assert probe.top1 == pytest.approx(probe.correct.double().mean().item())


def test_class_missing_from_the_test_set_and_one_only_there():
    x, y = blobs(600)
    x_test, y_test = blobs(300, seed=1)
    keep = y_test != 7
    y_test = torch.where(y_test == 3, 5, y_test)  # a class the probe has never seen is never right
    probe = sslk.linear_probe((x, y), (x_test[keep], y_test[keep]), LinearSettings(epochs=10))
    assert not probe.correct[y_test[keep] == 5].any()


def test_same_seed_same_probe_and_test_labels_change_nothing_else():
    x, y = blobs(600)
    x_test, y_test = blobs(300, seed=1)
    one = sslk.linear_probe((x, y), (x_test, y_test), LinearSettings(epochs=10))
    other = sslk.linear_probe((x, y), (x_test, y_test.flip(0)), LinearSettings(epochs=10))
    assert torch.equal(one.logits, other.logits) and one.learning_rate == other.learning_rate


def test_constant_features_are_harmless():
    x, y = blobs(600)
    x[:, 3] = 5.0
    assert sslk.linear_probe((x, y), (x, y), LinearSettings(epochs=5)).logits.isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: (a[0][:5], *a[1:]), "train_features must be"),
        (lambda a: (a[0], a[1], a[2], a[3][:5]), "test_features must be"),
        (lambda a: (a[0], a[1], a[2][:, :4], a[3]), "same D"),
        (lambda a: (a[0], torch.zeros_like(a[1]), a[2], a[3]), "at least two classes, got 1"),
    ],
)
def test_probe_bad_input(change, message):
    x, y = blobs(60)
    a, b, c, d = change((x, y, x, y))
    with pytest.raises(ValueError, match=message):
        sslk.linear_probe((a, b), (c, d))


def test_failure_numbers_equal_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    correct = torch.rand(500, generator=generator) < 0.7
    scores = torch.randn(500, generator=generator) + 0.5 * correct
    logits, features = torch.randn(500, 10, generator=generator), torch.rand(500, 30, generator=generator)
    result = sslk.failure_prediction(scores, correct, features=features, logits=logits)
    assert result.qscore.auroc == pytest.approx(roc_auc_score(correct, scores))
    assert result.qscore.auprc == pytest.approx(average_precision_score(correct, scores))
    logits = logits.double()
    probabilities = logits.softmax(1)
    by_hand = {
        "confidence": probabilities.max(1).values,
        "entropy": (probabilities * probabilities.log()).sum(1),
        "energy": logits.exp().sum(1).log(),
        "feature norm": features.double().norm(dim=1),
        "max feature": features.max(1).values,
    }
    assert set(result.baselines) == set(by_hand)
    for name, values in by_hand.items():
        assert result.baselines[name].auroc == pytest.approx(roc_auc_score(correct, values), abs=1e-6)
    assert result.table()[-1] == ("random (trivial)", 0.5, pytest.approx(correct.double().mean().item()))


@pytest.mark.parametrize(
    ("scores", "correct", "message"),
    [
        (torch.rand(4), torch.ones(4, dtype=torch.bool), "both correct and misclassified"),
        (torch.rand(4), torch.zeros(3, dtype=torch.bool), r"must both be \[N\]"),
        (torch.tensor([0.1, float("nan")]), torch.tensor([True, False]), "1 NaN values"),
    ],
)
def test_failure_bad_input(scores, correct, message):
    with pytest.raises(ValueError, match=message):
        sslk.failure_prediction(scores, correct)
