"""Similarities of two sets of features in plain float64: rows are the same samples, columns are each model's own."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import scipy.stats


def centred(x: np.ndarray) -> np.ndarray:
    """float64 with column means of zero."""
    x = np.asarray(x, dtype=np.float64)
    return x - x.mean(axis=0)


def gram(x: np.ndarray) -> np.ndarray:
    """The linear kernel, entry by entry."""
    x = np.asarray(x, dtype=np.float64)
    return np.array([[float(a @ b) for b in x] for a in x])


def hsic_biased(k: np.ndarray, m: np.ndarray) -> float:
    """tr(K H L H) / (n - 1)^2 (Gretton et al. 2005)."""
    n = len(k)
    h = np.eye(n) - np.ones((n, n)) / n
    return float(np.trace(k @ h @ m @ h)) / (n - 1) ** 2


def hsic_debiased(k: np.ndarray, m: np.ndarray) -> float:
    """The unbiased HSIC_1 (Song et al. 2012, equation 5): diagonals set to zero, four samples at least."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    one = np.ones(n)
    first = np.trace(k @ m)
    second = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    third = 2 * (one @ k @ m @ one) / (n - 2)
    return float(first + second - third) / (n * (n - 3))


def hsic_distinct(k: np.ndarray, m: np.ndarray) -> float:
    """The same by what it estimates: the mean over all distinct (i, j, q, r) of k_ij (m_ij + m_qr - 2 m_iq), O(n^4)."""
    total, count = 0.0, 0
    for i, j, q, r in permutations(range(len(k)), 4):
        total += k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])
        count += 1
    return total / count


def cka(x: np.ndarray, y: np.ndarray, debiased: bool = True, hsic_of=None) -> float:
    """Linear CKA (Kornblith et al. 2019): HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)).

    Debiased after Nguyen, Raghu and Kornblith (2021): it can be below 0. The estimates under the root can be 0 or
    below (a constant, few samples); the papers say nothing of it, here NaN.
    """
    hsic_of = hsic_of or (hsic_debiased if debiased else hsic_biased)
    k, m = gram(centred(x)), gram(centred(y))
    kk, mm = hsic_of(k, k), hsic_of(m, m)
    tiny = 1e-24
    if kk <= tiny * np.trace(k) ** 2 or mm <= tiny * np.trace(m) ** 2:
        return float("nan")
    return hsic_of(k, m) / np.sqrt(kk * mm)


def column_basis(x: np.ndarray, rtol: float | None = None) -> np.ndarray:
    """Orthonormal basis of the centred columns, of the rank at `rtol` of the largest singular value, by default numpy's."""
    u, s, _ = np.linalg.svd(centred(x), full_matrices=False)
    rtol = max(np.shape(x)) * np.finfo(np.float64).eps if rtol is None else rtol
    return u[:, s > s[0] * rtol]


def cca_correlations(x: np.ndarray, y: np.ndarray, rtol: float | None = None) -> np.ndarray:
    """Canonical correlations: cosines of the principal angles between the column spaces (Bjorck and Golub 1973)."""
    return np.clip(np.linalg.svd(column_basis(x, rtol).T @ column_basis(y, rtol), compute_uv=False), 0.0, 1.0)


def mean_cca(x: np.ndarray, y: np.ndarray) -> float:
    """Mean canonical correlation (Raghu et al. 2017) over min(rank, rank) of them.

    The papers take full rank: min(d1, d2). By rank a copied or constant column changes nothing. NaN if a side is constant.
    """
    rho = cca_correlations(x, y)
    return float(rho.mean()) if len(rho) else float("nan")


def truncated(x: np.ndarray, variance: float) -> np.ndarray:
    """The fewest leading singular directions that hold this share of the variance (squared singular values)."""
    u, s, _ = np.linalg.svd(centred(x), full_matrices=False)
    held = np.cumsum(s**2) / (s**2).sum()
    keep = int(np.argmax(held >= variance - 1e-12)) + 1
    return u[:, :keep] * s[:keep]


def svcca(x: np.ndarray, y: np.ndarray, variance: float = 0.99) -> float:
    """SVCCA (Raghu et al. 2017): directions that explain 99 % of the variance, then mean CCA.

    The paper says variance, which is squared singular values; the authors' tutorial adds up plain ones or takes 20 of them.
    """
    return mean_cca(truncated(x, variance), truncated(y, variance))


def pwcca(x: np.ndarray, y: np.ndarray, rtol: float | None = None) -> float:
    """PWCCA (Morcos, Raghu and Bengio 2018): sum alpha_i rho_i / sum alpha_i, alpha_i = sum_j |<h_i, x_j>|.

    h_i is x's i-th canonical variable, of length one; x_j its columns. Asymmetric: weights come from x. The authors' code
    weights by the side of fewer neurons, and orthonormalises variables to which it adds the means again. Not centring the
    x_j leaves alpha alone, as the h_i are centred.
    """
    qx, qy = column_basis(x, rtol), column_basis(y, rtol)
    left, rho, _ = np.linalg.svd(qx.T @ qy, full_matrices=False)
    if not len(rho):
        return float("nan")
    h, columns = qx @ left, centred(x)
    alpha = [sum(abs(float(h[:, i] @ columns[:, j])) for j in range(columns.shape[1])) for i in range(len(rho))]
    return float(np.dot(alpha, np.clip(rho, 0.0, 1.0)) / np.sum(alpha))


def mutual_knn(x: np.ndarray, y: np.ndarray, k: int = 10) -> float:
    """Mutual k-NN alignment (Huh et al. 2024): mean of |S_x(i) & S_y(i)| / k, neighbours by inner product.

    The authors' features are unit rows, so the product is the cosine; a row is no neighbour of its own. Ties: argsort's order.
    """
    shares = []
    for features in (x, y):
        z = np.asarray(features, dtype=np.float64)
        cosine = gram(z / np.sqrt((z * z).sum(axis=1, keepdims=True)))
        np.fill_diagonal(cosine, -np.inf)
        shares.append([set(np.argsort(-row, kind="stable")[:k].tolist()) for row in cosine])
    return float(np.mean([len(a & b) / k for a, b in zip(*shares, strict=True)]))


def unit_norm(x: np.ndarray) -> np.ndarray:
    """Centred, Frobenius norm one."""
    x = centred(x)
    return x / np.sqrt((x * x).sum())


def nuclear_norm(x: np.ndarray, y: np.ndarray) -> float:
    """||X^T Y||_*: what the best rotation reaches. Widths may differ (as if padded with zeros)."""
    return float(np.linalg.svd(np.asarray(x).T @ np.asarray(y), compute_uv=False).sum())


def procrustes(x: np.ndarray, y: np.ndarray) -> float:
    """Orthogonal Procrustes distance (Ding, Denain and Steinhardt 2021): ||A||^2 + ||B||^2 - 2 ||A^T B||_*.

    A and B centred, of Frobenius norm one: 2 - 2 ||.||_*, from 0 to 2. It is the square of the least ||A - B Q||_F; ReSi takes
    the root, anatome halves it.
    """
    return 2.0 - 2.0 * nuclear_norm(unit_norm(x), unit_norm(y))


def angular(x: np.ndarray, y: np.ndarray) -> float:
    """Angular shape distance (Williams et al. 2021): arccos of the best <A, B Q>, radians, 0 to pi / 2."""
    return float(np.arccos(np.clip(nuclear_norm(unit_norm(x), unit_norm(y)), -1.0, 1.0)))


def dissimilarities(x: np.ndarray, distance: str = "correlation") -> np.ndarray:
    """The pairs i < j of the dissimilarity matrix: 1 - Pearson correlation of two rows, or their Euclidean distance."""
    x, found = np.asarray(x, dtype=np.float64), []
    for i in range(len(x)):
        for j in range(i + 1, len(x)):
            a, b = x[i], x[j]
            if distance == "euclidean":
                found.append(np.sqrt(((a - b) ** 2).sum()))
            else:
                a, b = (a - a.mean(), b - b.mean()) if distance == "correlation" else (a, b)
                found.append(1.0 - float(a @ b) / np.sqrt(float(a @ a) * float(b @ b)))
    return np.array(found)


def rsa(x: np.ndarray, y: np.ndarray, distance: str = "correlation") -> float:
    """RSA (Kriegeskorte, Mur and Bandettini 2008): Spearman's correlation of the two dissimilarity matrices' upper triangles.

    The paper's choice is 1 - correlation of the rows as they stand (not centred by column), ties by mean rank. Equal to 11
    digits of the largest counts as a tie, so that rounding orders nothing.
    """
    pairs = [dissimilarities(z, distance) for z in (x, y)]
    a, b = (scipy.stats.rankdata(np.round(d / d.max(), 11)) for d in pairs)
    return float(np.corrcoef(a, b)[0, 1])
