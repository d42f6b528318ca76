"""Every metric: the equation's answer for any batch split, and torchmetrics' semantics."""

import copy
import pickle

import pytest
import torch

from tests.metrics.cases import CASES, answers, assert_answer

# QScoreSummary rests on float32 scores (the op's result for float32 rows).
TOLERANCE = {"qscore": 1e-6}


def splits(n):
    return {
        "one": [n],
        "rows": [1] * n,
        "last_of_one": [n // 2, n - n // 2 - 1, 1],
        "with_empty": [0, 3, 0, n - 3, 0],
        "uneven": [5, 1, n - 13, 2, 5],
    }


@pytest.mark.parametrize("split", ["one", "rows", "last_of_one", "with_empty", "uneven"])
@pytest.mark.parametrize("name", CASES)
def test_any_split_gives_the_oracles_answer(name, split):
    case = CASES[name]
    metric = case.make()
    n = len(case.rows[0])
    if n < 14 and split == "uneven":
        pytest.skip("too few rows")
    for batch in zip(*(rows.split(splits(n)[split]) for rows in case.rows), strict=True):
        metric.update(*batch)
    assert_answer(metric.compute(), case.oracle(*case.rows), TOLERANCE.get(name, 1e-9))


@pytest.mark.parametrize("name", CASES)
def test_state_saves_loads_and_goes_on(name):
    case = CASES[name]
    first, rest = [r[:9] for r in case.rows], [r[9:] for r in case.rows]
    metric = case.make()
    metric.update(*first)
    for restored in (case.make(), pickle.loads(pickle.dumps(metric)), copy.deepcopy(metric)):
        restored.load_state_dict(metric.state_dict())
        restored.update(*rest)
        assert_answer(restored.compute(), case.oracle(*case.rows), TOLERANCE.get(name, 1e-9))


@pytest.mark.parametrize("name", CASES)
def test_forward_is_the_batch_and_reset_forgets(name):
    case = CASES[name]
    first, rest = [r[:-8] for r in case.rows], [r[-8:] for r in case.rows]
    metric = case.make()
    metric(*first)
    alone = case.make()
    alone.update(*rest)
    batch, expected = answers(metric(*rest)), answers(alone.compute())
    for key in expected:
        torch.testing.assert_close(batch[key], expected[key], rtol=0, atol=0, equal_nan=True)
    assert_answer(metric.compute(), case.oracle(*case.rows), TOLERANCE.get(name, 1e-9))
    metric.reset()
    metric.update(*rest)
    for key, value in answers(metric.compute()).items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=0, equal_nan=True)


def test_wrong_shapes_are_refused_with_the_shape():
    from sslk.metrics import CCA, ActivationRate, FailureAUROC, LinearCKA, QScoreSummary

    with pytest.raises(ValueError, match=r"h must be floating-point \[n, 5\], got torch.float32 \[2, 4\]"):
        ActivationRate(5).update(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="needs 2 representations, got 1"):
        LinearCKA([2, 2]).update(torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"equal rows, got \[2, 3\]"):
        CCA([2, 2]).update(torch.zeros(2, 2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="width of every representation"):
        CCA([])
    with pytest.raises(ValueError, match="must be bool"):
        QScoreSummary(torch.ones(3))
    with pytest.raises(ValueError, match="must not be NaN, got 1 of 2"):
        FailureAUROC().update(torch.tensor([0.0, torch.nan]), torch.tensor([True, False]))
    with pytest.raises(ValueError, match=r"correct bool \[n\]"):
        FailureAUROC().update(torch.zeros(2), torch.ones(2))


def test_a_loaded_state_of_as_many_rows_replaces_what_was_computed():
    from sslk.metrics import Similarity

    g = torch.Generator().manual_seed(0)
    first, second = Similarity([4, 3]), Similarity([4, 3])
    for metric in (first, second):
        metric.update(torch.randn(40, 4, generator=g), torch.randn(40, 3, generator=g))
        metric.compute()
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second.compute()["r2"], first.compute()["r2"], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["CCA", "Similarity"])
def test_a_row_that_is_not_finite_is_named(name):
    from sslk import metrics

    metric = getattr(metrics, name)([4, 3])
    metric.update(torch.rand(20, 4), torch.full((20, 3), torch.inf))
    with pytest.raises(ValueError, match="representation 1 must be finite"):
        metric.compute()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("between", [False, True], ids=["before", "amid"])
def test_precision_of_the_module_around_it_changes_nothing(name, between):
    """Through `.half()`, bfloat16 and back, before and amid the updates: the same bits, the same dtypes."""
    case = CASES[name]
    alone, net = case.make(), torch.nn.Module()
    net.metric = case.make()
    halves = [[r[:31] for r in case.rows], [r[31:] for r in case.rows]]
    dtypes = {key: value.dtype for key, value in alone.state_dict().items() if isinstance(value, torch.Tensor)}
    for number, rows in enumerate(halves):
        alone.update(*rows)
        if number == int(between):
            net.half().to(torch.bfloat16)
            net.to("cpu").float()
        net.metric.update(*rows)
    expected, found = answers(alone.compute()), answers(net.metric.compute())
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=0, equal_nan=True)
        assert found[key].dtype == value.dtype
    assert net.metric.dtype == alone.dtype
    saved = {key: value.dtype for key, value in net.metric.state_dict().items() if isinstance(value, torch.Tensor)}
    assert {key: saved[key] for key in dtypes if key in saved} == dtypes
