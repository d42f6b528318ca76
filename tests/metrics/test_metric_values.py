"""What single metrics promise beyond the common contract."""

import math

import pytest
import torch
from sklearn.metrics import precision_recall_curve, roc_curve

from sslk.metrics import CCA, ActivationRate, FailureAUPRC, FailureAUROC, FeatureMoments, LinearCKA, QScoreSummary
from sslk.metrics.linear_cka import merge_sums, views


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_cka_of_independent_data_is_large_biased_and_about_zero_or_negative_debiased():
    values = []
    for seed in range(4):
        cka = LinearCKA([512, 512])
        for part in range(4):
            cka.update(normal(16, 512, seed=100 * seed + part), normal(16, 512, seed=100 * seed + part + 50))
        answer = cka.compute()
        assert answer["biased"][0, 1] > 0.85
        assert abs(answer["debiased"][0, 1]) < 0.05
        values.append(answer["debiased"][0, 1])
    assert min(values) < 0  # never clamped


def test_cka_merge_moves_sums_to_the_other_shift_exactly():
    """Skewed data, so that every term of the translation counts; one accumulator that saw all rows is the oracle."""
    x = normal(90, 10, seed=1).double().exp()
    x[40:] += 3
    y = x[:, :6].square() + normal(90, 6, seed=3)
    whole, low, high = (LinearCKA([10, 6]) for _ in range(3))
    for cka, rows in ((whole, slice(40)), (whole, slice(40, 90)), (low, slice(40)), (high, slice(40, 90))):
        cka.update(x[rows], y[rows])
    empty = torch.zeros_like(low.sums)
    merged = merge_sums(torch.stack([empty, low.sums, high.sums]), (10, 6))
    for found, wanted in zip(views(merged, (10, 6)), views(whole.sums, (10, 6)), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-9)


def test_cka_keeps_its_digits_far_from_the_origin():
    x, y = normal(200, 8, seed=1).double(), normal(200, 8, seed=2).double()
    y[:, :4] += x[:, :4]
    near, far = LinearCKA([8, 8]), LinearCKA([8, 8])
    for part in range(0, 200, 50):
        near.update(x[part : part + 50], y[part : part + 50])
        far.update(x[part : part + 50] + 1e5, y[part : part + 50] - 1e5)
    torch.testing.assert_close(far.compute()["debiased"], near.compute()["debiased"], rtol=1e-7, atol=1e-7)


def test_cka_needs_four_rows_and_variance():
    cka = LinearCKA([3, 3])
    cka.update(normal(3, 3), normal(3, 3, seed=1))
    assert cka.compute()["debiased"].isnan().all()
    assert not cka.compute()["biased"].isnan().any()
    cka.reset()
    cka.update(normal(9, 3), torch.ones(9, 3))
    assert cka.compute()["biased"].isnan().tolist() == [[False, True], [True, True]]


def test_cca_of_a_constant_representation_is_nan_with_rank_zero():
    cca = CCA([3, 2])
    cca.update(normal(9, 3), torch.full((9, 2), 7.0))
    assert cca.compute()["ranks"].tolist() == [3, 0]
    assert cca.compute()["r2"][0].isnan().tolist() == [False, True]


def test_cca_rtol_drops_weak_directions():
    x = normal(300, 4) * torch.tensor([1.0, 1.0, 1e-3, 1e-3])
    loose, tight = CCA([4, 4]), CCA([4, 4], rtol=0.01)
    for cca in (loose, tight):
        cca.update(x, x)
    assert loose.compute()["ranks"].tolist() == [4, 4]
    assert tight.compute()["ranks"].tolist() == [2, 2]


def test_curves_equal_scikit_learn():
    g = torch.Generator().manual_seed(3)
    scores, correct = torch.randint(0, 9, (80,), generator=g).float(), torch.rand(80, generator=g) > 0.4
    auroc, auprc = FailureAUROC(), FailureAUPRC()
    auroc.update(scores, correct)
    auprc.update(scores, correct)
    fpr, tpr, _ = roc_curve(correct, scores, drop_intermediate=False)
    torch.testing.assert_close(auroc.curve(), (torch.from_numpy(fpr), torch.from_numpy(tpr)))
    precision, recall, _ = precision_recall_curve(correct, scores)
    torch.testing.assert_close(
        auprc.curve(), (torch.from_numpy(recall[:-1][::-1].copy()), torch.from_numpy(precision[:-1][::-1].copy()))
    )


def test_scores_of_any_range_are_ranked_as_they_are():
    """torchmetrics' BinaryAUROC squashes scores outside [0, 1] by a sigmoid, which ties the large ones."""
    scores = torch.arange(100.0) + 1000
    auroc = FailureAUROC()
    auroc.update(scores, scores > 1050)
    assert auroc.compute() == 1


@pytest.mark.parametrize("outcome", [True, False])
def test_failure_metrics_with_one_class(outcome):
    correct = torch.full((5,), outcome)
    auroc, auprc = FailureAUROC(), FailureAUPRC()
    auroc.update(torch.arange(5.0), correct)
    auprc.update(torch.arange(5.0), correct)
    assert auroc.compute().isnan()
    assert auprc.compute() == 1 if outcome else auprc.compute().isnan()
    assert FailureAUROC().compute().isnan()
    assert FailureAUPRC().compute().isnan()


def test_activation_counts_stay_exact_beyond_float32():
    rate = ActivationRate(8, eps=2.0)
    rate.counts = torch.full((8,), 2**24, dtype=torch.int64)
    rate.rows = torch.tensor(2**24)
    rate.update(torch.eye(1, 8))
    assert rate.compute()["counts"].tolist() == [2**24 + 1] + [2**24] * 7


def test_rows_that_are_not_finite_are_counted_apart():
    h = torch.eye(3, 32)
    h[1, 5] = torch.nan
    summary = QScoreSummary(torch.ones(32, dtype=torch.bool))
    summary.update(h)
    clean = QScoreSummary(torch.ones(32, dtype=torch.bool))
    clean.update(h[[0, 2]])
    assert summary.compute()["nonfinite_rows"] == 1
    assert summary.compute()["rows"] == 3
    assert summary.compute()["mean"] == clean.compute()["mean"]


def test_moments_of_a_large_mean_keep_the_deviation():
    x = normal(500, 3, dtype=torch.float64)
    moments = FeatureMoments(3)
    for part in (x + 1e8).split(7):
        moments.update(part)
    torch.testing.assert_close(moments.compute()["std"], x.std(0, correction=0), rtol=1e-6, atol=0)


def test_nothing_seen_is_nan_not_a_number():
    summary = QScoreSummary(torch.ones(4, dtype=torch.bool))
    assert all(math.isnan(summary.compute()[name]) for name in ("mean", "std", "min", "max", "empty_share"))
    assert ActivationRate(4).compute()["mean_active"].isnan()
