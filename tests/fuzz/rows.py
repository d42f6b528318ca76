"""The row ops on random rows, against long double and exact integers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tests.fuzz.draw import DTYPES, Draw, assert_near, assert_refused, wide
from tests.ops import exact

# In units of the terms that are summed, as tests/ops/test_rows.py; the offset is what float32 loses to a large mean.
SCORE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 2e-6, torch.bfloat16: 2e-6}
GRADIENT = {torch.float64: 1e-10, torch.float32: 5e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def rows(draw: Draw) -> tuple[Tensor, float]:
    """Heavy-tailed, binary, constant or integer rows, with an offset now and then, some not finite; and a threshold."""
    n, d = draw.choice([0, 1, draw.size(40)]), draw.size(2100)
    kind = draw.choice(["relu", "signed", "binary", "constant", "integers", "one-hot", "offset", "tie"])
    eps = draw.choice([0.0, 0.5, 1.0, 2.0, 3.0, 4.0, float(np.sqrt(d - 1)), float(draw.rng.uniform(0, 6)), 1e300])
    if kind == "tie":  # k of k (eps^2 + 1) elements lie exactly eps deviations from the mean
        k, eps = draw.size(5), float(draw.size(4))
        d = k * int(eps * eps + 1)
    values = draw.normal(n, d)
    if kind == "relu":
        values = values.relu().pow(1.7)
    elif kind == "binary":
        values = (values > draw.rng.normal()).double()
    elif kind == "constant":
        values = values[:, :1].expand(n, d)
    elif kind == "integers":
        values = (3 * values).round()
    elif kind == "one-hot":
        values = torch.zeros(n, d, dtype=torch.float64).scatter_(1, values.abs().argmax(1, keepdim=True), 1.0)
    elif kind == "tie":
        values = (values.argsort(1) < k) * values.abs().amax(1, keepdim=True)
    elif kind == "offset":
        values = values + 10.0 ** draw.rng.uniform(0, 6)
    h = draw.scaled(values, draw.choice(DTYPES)).clone()
    if draw.chance(0.2) and n:
        h[draw.rng.integers(n), draw.rng.integers(d)] = draw.choice([np.nan, np.inf, -np.inf])
    return draw.layout(h), eps


class Facts:
    """What equations (1) to (3) need of the rows, in long double."""

    def __init__(self, h: Tensor, normalize: bool) -> None:
        self.x = wide(h)
        self.finite = np.isfinite(self.x).all(axis=1)
        x = np.where(self.finite[:, None], self.x, 0.0)
        first = x[:, :1]
        self.mean = first + (x - first).mean(axis=1, keepdims=True)
        self.deviation = x - self.mean
        self.std = np.sqrt(np.square(self.deviation).mean(axis=1))
        self.norm = np.sqrt(np.square(x).sum(axis=1))
        self.unit = np.where(self.finite, np.maximum(self.norm, 1e-12), np.nan) if normalize else np.ones(len(x))
        self.below_floor = self.norm <= 1e-12

    def without_part_along(self, g: np.ndarray) -> np.ndarray:
        """The gradient through h = x / |x|; below the floor the divisor is a constant."""
        h = np.where(self.finite[:, None], self.x, np.nan) / self.unit[:, None]
        along = np.where(self.below_floor, 0.0, (g * h).sum(axis=1))
        return (g - h * along[:, None]) / self.unit[:, None]


def fuzz_rows(draw: Draw) -> None:
    (h, eps), normalize, two_sided = rows(draw), draw.chance(0.5), draw.chance(0.5)
    discriminative = draw.layout(draw.mask(h.shape[1]))
    facts = Facts(h, normalize)
    active = exact.active_set(h, eps, two_sided)
    assert torch.equal(draw.op("activating_mask")(h, eps, two_sided), active), "activating_mask"
    per_feature, per_row = draw.op("activation_counts")(h, eps, two_sided)
    assert torch.equal(per_feature, active.sum(0)), "activation_counts of features"
    assert torch.equal(per_row, active.sum(1, dtype=torch.int32)), "activation_counts of rows"
    fuzz_moments(draw, h, facts)

    chosen = (active & discriminative).numpy()
    count = chosen.sum(axis=1)
    size = np.abs(facts.deviation) if two_sided else facts.deviation
    q = np.where(chosen, size, 0.0).sum(axis=1) / np.maximum(count, 1) / (facts.unit if normalize else 1.0)
    q = np.where(facts.finite, q, np.nan)
    slack = SCORE[h.dtype] * np.abs(q) + 3e-7 * (h.dtype != torch.float64) * np.abs(facts.mean[:, 0]) / facts.unit
    arguments = (h, discriminative, eps, normalize, two_sided)
    assert_near("qscore", draw.op("qscore")(*arguments), q, slack)
    same, counted = draw.op("qscore_counts")(*arguments)
    assert_near("qscore_counts", same, q, slack)
    assert torch.equal(counted, per_row), "qscore_counts of features"
    columns = fuzz_columns(draw, h, facts, normalize)
    fuzz_penalty(draw, arguments, q, slack, columns)
    if facts.finite.all():
        fuzz_gradients(draw, arguments, facts, chosen)
    refused(draw, h, discriminative)


def fuzz_moments(draw: Draw, h: Tensor, facts: Facts) -> None:
    tolerance = 1e-12 if h.dtype == torch.float64 else 2e-6
    expected = (facts.mean[:, 0], facts.std, facts.norm)
    slack = (np.abs(facts.mean[:, 0]) + facts.std, facts.std, facts.norm)
    for name, actual, value, scale in zip(("mean", "deviation", "norm"), draw.op("row_moments")(h), expected, slack, strict=True):
        assert_near(f"row_moments: {name}", actual, np.where(facts.finite, value, np.nan), tolerance * scale)


def fuzz_columns(draw: Draw, h: Tensor, facts: Facts, normalize: bool) -> np.ndarray:
    expected = (np.abs(facts.x) / facts.unit[:, None]).sum(axis=0)
    tolerance = 1e-12 if h.dtype == torch.float64 else 4e-6
    assert_near("column_l1", draw.op("column_l1")(h, normalize), expected, tolerance * expected)
    return expected


def fuzz_penalty(draw: Draw, arguments: tuple, q: np.ndarray, slack: np.ndarray, columns: np.ndarray) -> None:
    h, discriminative, eps, normalize, two_sided = arguments
    scores = torch.float64 if h.dtype == torch.float64 else torch.float32
    alpha, beta = (draw.choice([None, torch.tensor(abs(draw.rng.normal()), dtype=scores)]) for _ in range(2))
    weights = (draw.rng.random(), draw.rng.random())
    loss, found_q, found_columns = draw.op("qscore_penalty")(h, discriminative, *weights, eps, normalize, two_sided, alpha, beta)
    assert_near("qscore_penalty: scores", found_q, q, slack)
    tolerance = 1e-12 if h.dtype == torch.float64 else 4e-6
    assert_near("qscore_penalty: columns", found_columns, columns, tolerance * columns)
    if not len(h) or not (found_q.isfinite().all() and found_columns.isfinite().all()):
        return
    # From the rounded scores: they decide on which side of the thresholds a term falls.
    a, b = wide(found_q), wide(found_columns)
    low, high = (values.mean() if t is None else wide(t) for t, values in ((alpha, a), (beta, b)))
    expected = -weights[0] * a[a < low].sum() / len(a) + weights[1] * b[b > high].sum()
    undecided = sum(np.abs(v[np.abs(v - t) <= 1e-14 * np.abs(v)]).sum() for v, t in ((a, low), (b, high)))
    size = np.abs(a).max() + np.abs(b).sum()
    assert_near("qscore_penalty: loss", loss, np.asarray(expected), np.asarray(1e-6 * size + undecided))


def fuzz_gradients(draw: Draw, arguments: tuple, facts: Facts, chosen: np.ndarray) -> None:
    h, _, _, normalize, two_sided = arguments
    n, d = h.shape
    scores = torch.float64 if h.dtype == torch.float64 else torch.float32
    grad_q, grad_c = draw.normal(n).to(scores), draw.normal(d).to(scores)
    direction = np.where(chosen, np.sign(facts.deviation) if two_sided else 1.0, 0.0)
    count = np.maximum(chosen.sum(axis=1), 1)[:, None]
    by_score = wide(grad_q)[:, None] * (direction - direction.sum(axis=1, keepdims=True) / d) / count
    by_column = wide(grad_c) * np.sign(facts.x)
    # The size of the terms before the part along the row is taken off, which may cancel them.
    size = (np.abs(by_score).max(axis=1, initial=0.0) + np.linalg.norm(wide(grad_c))) / facts.unit
    slack = GRADIENT[h.dtype] * 3.0 * np.broadcast_to(size[:, None], (n, d))
    both = by_score + by_column
    if normalize:
        by_score, by_column, both = (facts.without_part_along(g) for g in (by_score, by_column, both))
    tail = arguments[1:]
    assert_near("qscore_backward", draw.op("qscore_backward")(grad_q, h, *tail), by_score, slack)
    assert_near("column_l1_backward", draw.op("column_l1_backward")(grad_c, h, normalize), by_column, slack)
    penalty = draw.op("qscore_penalty_backward")(grad_q, grad_c, h, *tail)
    assert_near("qscore_penalty_backward", penalty, both, slack)


def refused(draw: Draw, h: Tensor, discriminative: Tensor) -> None:
    hostile = [
        (h, discriminative, -1.0),
        (h, discriminative, float("nan")),
        (h, discriminative[:-1], 1.0),
        (h, discriminative.int(), 1.0),
        (h[0] if len(h) else h[None], discriminative, 1.0),
        (h.int() if len(h) and h.isfinite().all() and h.abs().max() < 1e4 else h[None], discriminative, 1.0),
        (h[:, :0], discriminative[:0], 1.0),
    ]
    name = draw.choice(["qscore", "qscore_counts"])
    assert_refused(name, draw.op(name), *draw.choice(hostile))
