"""Permutation test of similarity: how often do samples paired at random look as alike?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sslk.progress import Progress
from sslk.similarity.sampled import unit_matrices
from sslk.similarity.settings import PERMUTED, MeasureName, SimilaritySettings
from sslk.similarity.sources import two


def permutation_test(
    x: object,
    y: object,
    measure: MeasureName = "cka_debiased",
    settings: SimilaritySettings = SimilaritySettings(),  # noqa: B008
) -> float:
    """The share of random pairings of the samples that look at least as similar as the real one, itself counted.

    `p = (1 + #{permutations with a similarity as large}) / (P + 1)`: at most alpha with probability at most alpha where the
    representations are independent. All rows take part; draw a sample of many first.

    Args:
        x, y: tensors or arrays `[N, D_1]` and `[N, D_2]` of the same samples; matrices `[N, N]` of each are held.
        measure: one that is an inner product of two N x N matrices: cka_debiased, cca, mutual_knn, rsa or cka_rbf.
        settings: of the measures, the permutations and the seed.

    Returns:
        p, NaN where a representation has no variance.

    Raises:
        ValueError: another measure, no permutations, or the rows differ in number or are not finite.

    >>> a = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    >>> permutation_test(a, a[:, :2]), permutation_test(a, a.roll(7, 0)) > 0.05
    (0.005, True)
    """
    a, b = two(x, y)
    if measure not in PERMUTED:
        raise ValueError(f"measure must be of {', '.join(PERMUTED)}, got {measure!r}.")
    if not settings.permutations:
        raise ValueError("permutations must be positive, got 0.")
    left, right = unit_matrices(measure, [a, b], settings)
    return float(p_values([left], [right], settings)[0, 0])


def p_values(
    rows: Sequence[Tensor],
    columns: Sequence[Tensor],
    settings: SimilaritySettings,
    progress: Progress | None = None,
    stage: str = "",
) -> Tensor:
    """p-values of all pairs of rows and columns, the same permutations for all, float64 `[R, C]`.

    Args:
        rows, columns: matrices `[N, N]` of `unit_matrices`; the columns' samples are permuted.
        settings: of the permutations.
        progress, stage: called with the permutations done.
    """
    flat = torch.stack([part.flatten() for part in rows]).float()
    observed = torch.stack([flat @ part.float().flatten() for part in columns], 1)
    right = [part.float().numpy() for part in columns]
    exceeded = torch.ones_like(observed, dtype=torch.float64)
    generator = torch.Generator().manual_seed(settings.seed)
    # Rounding must not tell a permutation that changes nothing from none.
    least = observed - 1e-5 * observed.abs()
    for done in range(settings.permutations):
        order = torch.randperm(len(right[0]), generator=generator).numpy()
        for place, part in enumerate(right):
            # NumPy gathers an order of magnitude faster.
            moved = torch.from_numpy(part.take(order, 0).take(order, 1))
            exceeded[:, place] += flat @ moved.flatten() >= least[:, place]
        if progress is not None:
            progress(done + 1, settings.permutations, stage)
    return torch.where(observed.isnan(), torch.nan, exceeded / (settings.permutations + 1))
