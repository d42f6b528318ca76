"""Float64 oracles of neighbours, Procrustes and RSA from their definitions, one pair of samples at a time; no code is shared.

Those of CKA and CCA are `tests.masked.oracle`'s.
"""

import itertools
import math

import numpy as np


def neighbours(x, k):
    unit = [row / np.linalg.norm(row) for row in x]
    near = []
    for i, a in enumerate(unit):
        others = sorted((j for j in range(len(x)) if j != i), key=lambda j: -(a @ unit[j]))
        near.append(set(others[:k]))
    return near


def mutual_knn(x, y, k):
    return np.mean([len(a & b) / k for a, b in zip(neighbours(x, k), neighbours(y, k), strict=True)])


def procrustes(x, y):
    """The least squared distance over orthogonal maps, found by the map itself, the narrower padded with zeros."""
    width = max(x.shape[1], y.shape[1])
    a, b = (np.pad(z - z.mean(0), ((0, 0), (0, width - z.shape[1]))) for z in (x, y))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    u, _, v = np.linalg.svd(a.T @ b)
    return np.linalg.norm(a @ (u @ v) - b) ** 2


def angular(x, y):
    return math.acos(1 - procrustes(x, y) / 2)


def pairs(x, how):
    out = []
    for i, j in itertools.combinations(range(len(x)), 2):
        if how == "euclidean":
            out.append(math.dist(x[i], x[j]))
        else:
            a, b = x[i] - x[i].mean(), x[j] - x[j].mean()
            out.append(1 - a @ b / math.sqrt((a @ a) * (b @ b)))
    return np.array(out)


def ranks(values):
    return np.array([np.sum(values < v) + (np.sum(values == v) + 1) / 2 for v in values])


def rsa(x, y, dissimilarity, correlation):
    a, b = pairs(x, dissimilarity), pairs(y, dissimilarity)
    if correlation == "spearman":
        a, b = ranks(a), ranks(b)
    if correlation != "cosine":
        a, b = a - a.mean(), b - b.mean()
    return a @ b / math.sqrt((a @ a) * (b @ b))
