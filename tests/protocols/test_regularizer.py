"""The regulariser module: its value, its place in a training step, and two ranks against one process."""

import pytest
import torch
import torch.multiprocessing as mp

import sslk
from tests.ops import oracle
from tests.ops.test_rows import discriminative_mask, representations


def test_value_and_logs():
    h, mask = representations(40, 100), discriminative_mask(100)
    regularizer = sslk.QScoreRegularizer(mask, 0.3, 0.02, eps=1.5)
    q, c = oracle.scores(h, mask, 1.5).numpy(), oracle.column_norms(h).numpy()
    assert regularizer(h).item() == pytest.approx(oracle.penalty(q, c, 0.3, 0.02, q.mean(), c.mean()), rel=1e-5)
    torch.testing.assert_close(regularizer.last_scores.double(), torch.from_numpy(q), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(regularizer.last_column_l1.double(), torch.from_numpy(c), rtol=1e-5, atol=1e-6)
    fixed = sslk.QScoreRegularizer(mask, 0.3, 0.02, eps=1.5, alpha=0.1, beta=1.0)
    assert fixed(h).item() == pytest.approx(oracle.penalty(q, c, 0.3, 0.02, 0.1, 1.0), rel=1e-5)


def test_zero_weights_add_nothing():
    h = representations(40, 100).requires_grad_()
    loss = sslk.QScoreRegularizer(discriminative_mask(100), 0.0, 0.0, eps=1.5)(h)
    loss.backward()
    assert loss.item() == 0 and h.grad.abs().max() == 0


def test_descent_raises_low_scores_and_shrinks_large_columns():
    h = torch.nn.Parameter(representations(64, 100))
    mask = discriminative_mask(100)
    regularizer = sslk.QScoreRegularizer(mask, 1.0, 1e-3, eps=1.0)
    regularizer(h)
    before, low = regularizer.last_scores.clone(), regularizer.last_scores < regularizer.last_scores.mean()
    largest = regularizer.last_column_l1.argmax()
    column = regularizer.last_column_l1[largest].item()
    optimizer = torch.optim.SGD([h], lr=1.0)
    for _ in range(20):
        optimizer.zero_grad()
        regularizer(h).backward()
        optimizer.step()
    assert regularizer.last_scores[low].mean() > before[low].mean()
    assert regularizer.last_column_l1[largest] < column


def test_state_moves_with_the_module_and_compiles():
    mask = discriminative_mask(100)
    regularizer = sslk.QScoreRegularizer(mask, eps=1.0)
    assert torch.equal(regularizer.state_dict()["discriminative"], mask)
    h = representations(20, 100)
    compiled = torch.compile(regularizer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(h), regularizer(h))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"lambda1": -1.0}, ValueError, "lambda1 must be zero or positive"),
        ({"lambda2": float("nan")}, ValueError, "lambda2 must be zero or positive"),
    ],
)
def test_bad_settings(arguments, error, message):
    with pytest.raises(error, match=message):
        sslk.QScoreRegularizer(discriminative_mask(10), **arguments)


def test_other_dimension_is_refused():
    with pytest.raises(ValueError, match=r"h must be \[N, 10\], the D of the discriminative set, got \[4, 12\]"):
        sslk.QScoreRegularizer(discriminative_mask(10))(torch.rand(4, 12))


def _rank(rank, world, path, h, mask, results):
    torch.distributed.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=world)
    model = torch.nn.Linear(100, 100, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.eye(100))
    model = torch.nn.parallel.DistributedDataParallel(model)
    regularizer = sslk.QScoreRegularizer(mask, 0.3, 0.02, eps=1.5)
    loss = regularizer(model(h.chunk(world)[rank]))
    loss.backward()
    mean = loss.detach().clone()
    torch.distributed.all_reduce(mean)
    results[rank] = (mean.item() / world, model.module.weight.grad.clone())
    torch.distributed.destroy_process_group()


def test_two_ranks_equal_one_process(tmp_path):
    """alpha, beta and the column norms are global, and DistributedDataParallel's mean gradient is the right one."""
    h, mask = representations(40, 100), discriminative_mask(100)
    results = mp.Manager().dict()
    mp.spawn(_rank, (2, tmp_path / "store", h, mask, results), nprocs=2)
    weight = torch.eye(100, requires_grad=True)
    loss = sslk.QScoreRegularizer(mask, 0.3, 0.02, eps=1.5)(h @ weight.T)
    loss.backward()
    for rank in range(2):
        value, grad = results[rank]
        assert value == pytest.approx(loss.item(), rel=1e-5)
        torch.testing.assert_close(grad, weight.grad, rtol=1e-4, atol=1e-6)
