"""Similarities of pairs of samples, on a sample of the rows: each an inner product of two N x N matrices.

Mutual k-NN is that of two adjacency matrices, RSA of two matrices of dissimilarities, CKA of two Gram matrices, CCA of two
projections. A permutation of one representation's samples only reorders its matrix, which is what the permutation test uses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sslk.similarity.dissimilarity import dissimilarities, pair_influence, square, standard
from sslk.similarity.neighbors import adjacency
from sslk.similarity.rbf import centred, radial
from sslk.similarity.settings import SimilaritySettings
from sslk.similarity.sources import varies
from sslk.statistics.influence import resampled_means


def unit_matrices(measure: str, sample: Sequence[Tensor], settings: SimilaritySettings) -> list[Tensor]:
    """The `[N, N]` matrices whose sums of products are the similarities, or in `cca` proportional to them.

    Args:
        measure: a name of `sslk.similarity.settings.PERMUTED`.
        sample: representations `[N, D_v]` of the same samples.
        settings: of the measures.

    Returns:
        float64, float32 for mutual_knn; filled with NaN for a representation without variance.
    """
    return [_MATRICES[measure](x, settings) for x in sample]


def _knn(x: Tensor, settings: SimilaritySettings) -> Tensor:
    return adjacency(x, min(settings.k, len(x) - 1))


def _rsa(x: Tensor, settings: SimilaritySettings) -> Tensor:
    return square(standard(dissimilarities(x, settings.dissimilarity), settings.correlation), len(x)) / 2**0.5


def _linear(x: Tensor, settings: SimilaritySettings) -> Tensor:
    rows = x.double() - x.double().mean(0)
    return _unit(rows @ rows.T, x)


def _rbf(x: Tensor, settings: SimilaritySettings) -> Tensor:
    return _unit(radial(x, settings.rbf_fraction), x)


def _cca(x: Tensor, settings: SimilaritySettings) -> Tensor:
    """The projection onto the centred columns, or what a ridge leaves of it."""
    rows = x.double() - x.double().mean(0)
    left, values, _ = torch.linalg.svd(rows, full_matrices=False)
    kept = values > values[0] * (max(x.shape) * torch.finfo(torch.float64).eps) ** 0.5
    scale = values.square() / (values.square() + settings.ridge * values.square().sum() / x.shape[1])
    found = (left[:, kept] * scale[kept]) @ left[:, kept].T
    return found if varies(x) else found.fill_(torch.nan)


def _unit(gram: Tensor, x: Tensor) -> Tensor:
    found = centred(gram, debiased=True)
    return found / found.norm() if varies(x) else found.fill_(torch.nan)


_MATRICES: dict[str, Callable[[Tensor, SimilaritySettings], Tensor]] = {
    "mutual_knn": _knn,
    "rsa": _rsa,
    "cka_debiased": _linear,
    "cka_rbf": _rbf,
    "cca": _cca,
}


def products(matrices: Sequence[Tensor]) -> Tensor:
    """float64 `[V, V]` sums of products of all pairs."""
    found = torch.empty(len(matrices), len(matrices), dtype=torch.float64)
    for u, a in enumerate(matrices):
        for v in range(u, len(matrices)):
            found[u, v] = found[v, u] = (a * matrices[v]).sum(dtype=torch.float64)
    return found


def resampled(
    measure: str, matrices: Sequence[Tensor], values: Tensor, pairs: Sequence[tuple[int, int]], settings: SimilaritySettings
) -> Tensor:
    """A measure over the resamples of the sampled rows, `[B, V, V]`, by the rows' influences.

    Of mutual k-NN the influence of a row is its own share of common neighbours; that it is a neighbour of others, and that a
    resample would have other neighbours, is not in it: its intervals are too narrow, about 0.6 of the width that new samples
    have at N = 150. RSA and RBF CKA are U-statistics over pairs of rows: a row's
    influence is twice the mean over its pairs (Hajek's projection).

    Args:
        measure: mutual_knn, rsa or cka_rbf.
        matrices: of `unit_matrices`.
        values: their `products`.
        pairs: places above the diagonal whose draws are wanted; the others stay at their values.
        settings: of the bootstrap, and of RSA.
    """
    draws = values.expand(settings.resamples, -1, -1).clone()
    if not pairs:
        return draws
    influences = torch.stack([_influence(measure, matrices[u], matrices[v], float(values[u, v]), settings) for u, v in pairs], 1)
    means = resampled_means(influences, settings.resamples, settings.seed)
    for (u, v), move in zip(pairs, means.unbind(1), strict=True):
        draws[:, u, v] += move
        draws[:, v, u] = draws[:, u, v]
    return draws


def _influence(measure: str, a: Tensor, b: Tensor, value: float, settings: SimilaritySettings) -> Tensor:
    """float64 `[N]`, of mean 0."""
    rows = len(a)
    if measure == "mutual_knn":
        found = rows * (a * b).sum(1, dtype=torch.float64)
    elif measure == "cka_rbf":  # of the ratio: numerator and both norms
        found = 2 * rows * ((a * b).sum(1) - value / 2 * (a.square() + b.square()).sum(1))
    else:
        upper = torch.triu_indices(rows, rows, 1).unbind()
        pair = pair_influence(a[upper] * 2**0.5, b[upper] * 2**0.5, value, settings.correlation)
        found = 2 * square(pair, rows).sum(1) / (rows - 1)
    return found - found.mean()
