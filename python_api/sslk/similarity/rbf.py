"""CKA with radial kernels, on samples few enough for their Gram matrices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def rbf_cka(representations: Sequence[Tensor], fraction: float = 1.0, debiased: bool = True) -> Tensor:
    """CKA of every pair with `k(x, x') = exp(-|x - x'|^2 / (2 (fraction m)^2))`, m the median distance.

    As Kornblith et al. (ICML 2019) choose the bandwidth; debiased with the unbiased HSIC_1 of Song et al. (2012).
    Small fractions look at near neighbours only, large ones approach linear CKA. Needs `8 V N^2` bytes.

    Args:
        representations: V matrices `[N, D_v]` of the same N samples.
        fraction: of the median distance between two samples.
        debiased: needs N >= 4; may be negative.

    Returns:
        float64 `[V, V]`; NaN for a representation whose median distance is 0.

    Raises:
        ValueError: fraction is not positive, or there are too few samples.

    Examples:
        >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
        >>> matrix = rbf_cka([x, x.flip(1), torch.rand(50, 3, generator=torch.Generator().manual_seed(1))])
        >>> round(matrix[0, 1].item(), 6), abs(matrix[0, 2].item()) < 0.1
        (1.0, True)
    """
    if not fraction > 0:
        raise ValueError(f"fraction must be positive, got {fraction}.")
    n = len(representations[0])
    if n < (4 if debiased else 2):
        raise ValueError(f"{'debiased' if debiased else 'biased'} CKA needs more samples, got {n}.")
    grams = torch.stack([centred(radial(x, fraction), debiased) for x in representations])
    hsic = torch.einsum("uij,vij->uv", grams, grams)
    scale = hsic.diagonal().sqrt()
    return hsic / torch.outer(scale, scale)


def radial(x: Tensor, fraction: float) -> Tensor:
    """The Gram matrix of the radial kernel, float64 `[N, N]`."""
    distance = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")
    above = distance[torch.triu_indices(len(x), len(x), 1).unbind()]
    return torch.exp(-0.5 * (distance / (fraction * above.median())).square())


def centred(gram: Tensor, debiased: bool) -> Tensor:
    """The centring after which HSIC is a sum of products: of U-statistics (Szekely and Rizzo, 2014), or plain."""
    n = len(gram)
    if not debiased:
        mean = gram.mean(0)
        return gram - mean - mean[:, None] + mean.mean()
    gram = gram - torch.diag(gram.diagonal())
    sums = gram.sum(0) / (n - 2)
    centred = gram - sums - sums[:, None] + gram.sum() / ((n - 1) * (n - 2))
    return centred - torch.diag(centred.diagonal())
