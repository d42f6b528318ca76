"""`kmeans_assign` against all distances in long double."""

from __future__ import annotations

import numpy as np
import torch

from tests.fuzz.draw import DTYPES, Draw, assert_near, assert_refused, wide


def fuzz_kmeans(draw: Draw) -> None:
    n, k, d = draw.choice([0, draw.size(120)]), draw.size(90), draw.size(300)
    dtype = draw.choice(DTYPES)
    both = draw.normal(n + k, d) + draw.choice([0.0, 0.0, 50.0])
    if draw.chance(0.3):
        both = both.round()  # ties
    both = draw.scaled(both, dtype)
    x, centroids = both[:n].clone(), both[n:].clone()
    if draw.chance(0.2) and n:
        x[draw.rng.integers(n), draw.rng.integers(d)] = draw.choice([np.nan, np.inf])
    if draw.chance(0.2) and k > 1:
        centroids[draw.rng.integers(k), draw.rng.integers(d)] = draw.choice([np.nan, -np.inf])
    x, centroids = draw.layout(x), draw.layout(centroids)
    index, distance = draw.op("kmeans_assign")(x, centroids)
    a, c = wide(x), wide(centroids)
    usable = np.isfinite(c).all(axis=1)
    for i, row in enumerate(a):
        with np.errstate(invalid="ignore"):
            squared = np.where(usable, np.square(row - c).sum(axis=1), np.inf)
        if not np.isfinite(row).all() or not usable.any():
            assert index[i] == 0 and distance[i].isnan(), f"row {i} is not finite: {index[i]}, {distance[i]}"
            continue
        best = squared.min()
        found = int(index[i])
        # float64 arithmetic cannot tell apart what lies closer together than its rounding; of equals, the first.
        assert squared[found] <= best * (1 + 1e-13), f"row {i}: centroid {found} instead of {squared.argmin()}"
        same = (c == c[found]).all(axis=1)
        assert found == int(same.argmax()), f"row {i}: centroid {found}, the same as {same.argmax()}"
        tolerance = (1e-13 if dtype == torch.float64 else 1.2e-7) * best
        assert_near("kmeans_assign: distance", distance[i], squared[found], tolerance)
    hostile = [
        (x, centroids[:0]),
        (x, centroids[:, :-1]),
        (x[None], centroids),
        (x, centroids.int()),
        (x[:, :0], centroids[:, :0]),
    ]
    assert_refused("kmeans_assign", draw.op("kmeans_assign"), *draw.choice(hostile))
