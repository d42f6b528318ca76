"""Label-free measures of a model in plain float64: the whole matrix in memory, one paper a function.

The number of an equation is given where it could be checked.
"""

from __future__ import annotations

import numpy as np


def exp_entropy(shares: np.ndarray) -> float:
    """exp of the Shannon entropy in nats, with 0 log 0 = 0. Shares need not sum to one (RankMe's and LiDAR's do not)."""
    total = 0.0
    for share in shares:
        if share > 0:
            total -= share * np.log(share)
    return float(np.exp(total))


def singular_values(z: np.ndarray, centred: bool) -> np.ndarray:
    """Singular values of the [N, D] matrix itself: never by way of its Gram matrix, which halves the digits."""
    z = np.asarray(z, dtype=np.float64)
    return np.linalg.svd(z - z.mean(axis=0) if centred else z, compute_uv=False)


def covariance(z: np.ndarray) -> np.ndarray:
    """Centred covariance over N (no measure here depends on N or N - 1), summed sample by sample."""
    z = np.asarray(z, dtype=np.float64)
    mean = z.mean(axis=0)
    total = np.zeros((z.shape[1], z.shape[1]))
    for row in z:
        total += np.outer(row - mean, row - mean)
    return total / len(z)


def rankme(z: np.ndarray, epsilon: float = 1e-7, centred: bool = False) -> float:
    """RankMe (Garrido et al. 2023, equation 1): exp(-sum p_k log p_k), p_k = s_k / ||s||_1 + epsilon, k to min(N, D).

    Settled: singular values, not eigenvalues; the embeddings as they are (not centred); epsilon added after the division and
    not divided away (1e-7 for float32). Left open: a matrix of zeros (s / 0), here 0. A constant that is not zero has rank 1
    as it stands and 0 when centred.
    """
    s = singular_values(z, centred)
    return exp_entropy(s / s.sum() + epsilon) if s.sum() > 0 else 0.0


def effective_rank(z: np.ndarray, centred: bool = False) -> float:
    """Effective rank (Roy and Vetterli 2007): RankMe with epsilon 0. Undefined for zeros, here 0.

    The paper speaks of a matrix, so whether to centre is left to who builds it. Between 1 and the rank.
    """
    s = singular_values(z, centred)
    return exp_entropy(s / s.sum()) if s.sum() > 0 else 0.0


def alpha_req(z: np.ndarray, first: int = 11, last: int = 100, weighted: bool = True) -> float:
    """alpha-ReQ (Agrawal et al. 2022): lambda_i ~ i^-alpha over the spectrum of the centred covariance.

    Left open by the paper: the ranks of the fit and its weights. The authors' code (reptrix, alpha.py, after Stringer et al.
    2019) fits log lambda on log i by least squares with weights 1 / i over ranks 11 to 100; their earlier runs began at 4 or
    6. It fails below 100 eigenvalues and takes log 0; here the last rank is min(last, rank of the data), and fewer than two
    points give NaN.
    """
    s = singular_values(z, centred=True)
    rank = int((s > s[0] * max(np.shape(z)) * np.finfo(np.float64).eps).sum()) if s[0] > 0 else 0
    last = min(last, rank)
    if last - first < 1:
        return float("nan")
    sw = swx = swy = swxx = swxy = 0.0
    for i in range(first, last + 1):
        w = 1.0 / i if weighted else 1.0
        x, y = np.log(i), np.log(s[i - 1] ** 2)
        sw, swx, swy, swxx, swxy = sw + w, swx + w * x, swy + w * y, swxx + w * x * x, swxy + w * x * y
    return float(-(sw * swxy - swx * swy) / (sw * swxx - swx**2))


def nesum(z: np.ndarray) -> float:
    """NESum (He and Ozay 2022, definition 4.1): sum_i lambda_i / lambda_1 of the centred feature covariance, from 1 to D.

    0 / 0 counts as 0, so that a constant has 0.
    """
    values = np.linalg.eigvalsh(covariance(z))
    return float(values.sum() / values[-1]) if values[-1] > 0 else 0.0


def unit_rows(z: np.ndarray) -> np.ndarray:
    """Rows of length one. A row of zeros has no direction and is the caller's to refuse."""
    z = np.asarray(z, dtype=np.float64)
    return z / np.sqrt((z * z).sum(axis=1, keepdims=True))


def self_cluster(z: np.ndarray) -> float:
    """Self-clustering (Tsitsulin, Munkhoeva and Perozzi 2023, definition 3.5), over all ordered pairs, i = j included.

    (S - n - n (n - 1) / d) / (n^2 - n - n (n - 1) / d) with S = sum_ij cos^2(z_i, z_j). The paper prints the norm
    ||W W^T||_F where expectation and maximum are those of its square; the authors' code squares, and so does this. Not
    centred. 0 for directions spread evenly, 1 for one direction, below 0 for fewer collisions than chance.
    """
    w = unit_rows(z)
    n, d = w.shape
    actual = 0.0
    for a in w:
        for b in w:
            actual += float(a @ b) ** 2
    expected = n + n * (n - 1) / d
    return (actual - expected) / (n * n - expected)


def lidar(views: np.ndarray, delta: float = 1e-4, epsilon: float = 0.0, unbiased: bool = True) -> float:
    """LiDAR (Thilak et al. 2024, equations 1 to 4) of `views` [samples, views, D]: each sample is a class of its own.

    exp(-sum p log p), p = lambda / ||lambda||_1 + epsilon, of Sw^-1/2 Sb Sw^-1/2, Sw with delta I added. The equations have
    expectations; the estimates of the paper's listing divide by n - 1 and n (q - 1) (`unbiased`), which matters only beside
    delta, as a scale of Sb cancels. Left open: epsilon's size, and no variance at all between samples (here 0).
    """
    views = np.asarray(views, dtype=np.float64)
    n, q, d = views.shape
    means = views.mean(axis=1)
    grand = means.mean(axis=0)
    between, within = np.zeros((d, d)), np.zeros((d, d))
    for i in range(n):
        between += np.outer(means[i] - grand, means[i] - grand)
        for j in range(q):
            within += np.outer(views[i, j] - means[i], views[i, j] - means[i])
    between /= n - 1 if unbiased else n
    within = within / (n * (q - 1) if unbiased else n * q) + delta * np.eye(d)
    values, vectors = np.linalg.eigh(within)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    lambdas = np.clip(np.linalg.eigvalsh(root @ between @ root), 0.0, None)
    return exp_entropy(lambdas / lambdas.sum() + epsilon) if lambdas.sum() > 0 else 0.0


def uniformity(z: np.ndarray, t: float = 2.0) -> float:
    """Uniformity (Wang and Isola 2020): log of the mean of exp(-t ||u - v||^2), unit rows.

    The expectation is over independent pairs; the authors' code takes the pairs i < j, so no row meets itself. Natural log;
    0 is the worst (all rows alike), -2 t the limit of a large sphere.
    """
    u = unit_rows(z)
    total, pairs = 0.0, 0
    for i in range(len(u)):
        for j in range(i + 1, len(u)):
            total += np.exp(-t * ((u[i] - u[j]) ** 2).sum())
            pairs += 1
    return float(np.log(total / pairs))


def alignment(x: np.ndarray, y: np.ndarray, alpha: float = 2.0) -> float:
    """Alignment (Wang and Isola 2020): the mean of ||u - v||^alpha over positive pairs of unit rows."""
    u, v = unit_rows(x), unit_rows(y)
    return float(np.mean([((u[i] - v[i]) ** 2).sum() ** (alpha / 2) for i in range(len(u))]))


def cluster_learnability(z: np.ndarray, clusters: np.ndarray, folds: np.ndarray, neighbours: int) -> float:
    """Cluster learnability (Lu et al. 2023): accuracy of k-NN on k-means clusters of the same features, held-out rows.

    TMLR's version is the mean accuracy on validation rows (the first preprint's was prequential). Open: the number of
    clusters, k, the split and ties. Here the clusters and folds are given, the distance is Euclidean, votes count one each
    and a tied vote goes to the nearest of the tied.
    """
    z, accuracies = np.asarray(z, dtype=np.float64), []
    for fold in np.unique(folds):
        train, held = folds != fold, np.flatnonzero(folds == fold)
        accuracies.append(np.mean([majority(z[i], z[train], clusters[train], neighbours) == clusters[i] for i in held]))
    return float(np.mean(accuracies))


def majority(query: np.ndarray, rows: np.ndarray, labels: np.ndarray, neighbours: int) -> int:
    """The label most of the nearest rows have, by Euclidean distance; of tied labels that of the nearest row."""
    votes = [int(labels[j]) for j in np.argsort(((rows - query) ** 2).sum(axis=1), kind="stable")[:neighbours]]
    return max(votes, key=votes.count)


def dead_share(z: np.ndarray) -> float:
    """Share of features that take one value on all rows (for non-negative features that is nearly always 0)."""
    z = np.asarray(z)
    return sum(bool((z[:, d] == z[0, d]).all()) for d in range(z.shape[1])) / z.shape[1]


def inactive_share(z: np.ndarray) -> float:
    """Share of features that no row raises above zero."""
    z = np.asarray(z)
    return sum(not bool((z[:, d] > 0).any()) for d in range(z.shape[1])) / z.shape[1]
