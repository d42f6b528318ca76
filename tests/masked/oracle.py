"""Float64 oracles of the similarities, from their definitions on N x N or N x D matrices; no code is shared."""

import numpy as np


def hsic_unbiased(k: np.ndarray, m: np.ndarray) -> float:
    """Song et al. 2012, equation (5), as sums over pairs."""
    n = len(k)
    k, m = k.copy(), m.copy()
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    one = np.ones(n)
    return (np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ k @ m @ one)) / (
        n * (n - 3)
    )


def hsic_biased(k: np.ndarray, m: np.ndarray) -> float:
    n = len(k)
    h = np.eye(n) - 1 / n
    return float(np.trace(h @ k @ h @ m))


def cka(grams, hsic) -> np.ndarray:
    return np.array([[hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m)) for m in grams] for k in grams])


def linear_grams(xs):
    return [x @ x.T for x in xs]


def rbf_grams(xs, fraction):
    grams = []
    for x in xs:
        distance = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
        # torch takes the lower of two middle values
        above = np.sort(distance[np.triu_indices(len(x), 1)])
        median = above[(len(above) - 1) // 2]
        grams.append(np.exp(-(distance**2) / (2 * (fraction * median) ** 2)))
    return grams


def basis(x: np.ndarray, variance: float | None = None) -> np.ndarray:
    """Orthonormal basis of the centred columns, or of the leading principal components."""
    u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    if variance is None:
        return u[:, s > 1e-6 * s[0]]
    share = np.cumsum(s**2) / np.sum(s**2)
    return u[:, : int(np.argmax(share >= variance - 1e-12)) + 1]


def cca(xs) -> np.ndarray:
    q = [basis(x) for x in xs]
    return np.array([[np.sum((a.T @ b) ** 2) / min(a.shape[1], b.shape[1]) for b in q] for a in q])


def svcca(xs, variance=0.99) -> np.ndarray:
    q = [basis(x, variance) for x in xs]
    return np.array([[np.linalg.svd(a.T @ b, compute_uv=False).mean() for b in q] for a in q])


def pwcca(xs) -> np.ndarray:
    """Morcos et al. 2018, section 2.2: weights from the projections of the features onto the variates."""
    out = np.eye(len(xs))
    for i, x in enumerate(xs):
        for j, y in enumerate(xs):
            if i != j:
                p, rho, _ = np.linalg.svd(basis(x).T @ basis(y), full_matrices=False)
                variates = basis(x) @ p
                weights = np.array([sum(abs(h @ column) for column in (x - x.mean(0)).T) for h in variates.T])
                out[i, j] = (weights * rho).sum() / weights.sum()
    return out


def shares(xs, k, metric) -> np.ndarray:
    """Neighbours by sorting every distance."""
    rows = [row for x in xs for row in x]
    n, out = len(xs[0]), np.zeros((len(xs), len(xs)))
    for i, a in enumerate(rows):
        if metric == "cosine":
            distance = [-(a @ b) / np.linalg.norm(a) / np.linalg.norm(b) for b in rows]
        else:
            distance = [np.linalg.norm(a - b) for b in rows]
        order = [j for j in np.argsort(distance, kind="stable") if j != i][:k]
        for j in order:
            out[i // n, j // n] += 1 / (n * k)
    return out
