"""How far each row moves the numbers of the label-free panel: the intervals' first order.

Rows drawn with replacement would come twice, which entropies of spectra and mean kernels over pairs mistake for structure. All
these numbers are smooth functions of means over rows, so a resample moves them, to first order, by the mean of the drawn rows'
influences (`sslk.statistics.influence`). An eigenvalue `lambda_k` of `1/N sum x x'` has the influence
`(v_k' x)^2 - lambda_k`, and a function of the spectrum the sum of these, weighted by its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from sslk.metrics import FeatureSpectrum, LiDAR, SelfCluster, alpha_req, effective_rank, nesum, rankme
from sslk.metrics.spectrum import parts_of

Measure = Callable[[Tensor], Tensor]
"""A number of the eigenvalues, decreasing."""

CENTRED: Mapping[str, Measure] = {
    "effective rank": lambda values: effective_rank(values.sqrt()),
    "alpha-ReQ": alpha_req,
    "NESum": nesum,
}
NOT_CENTRED: Mapping[str, Measure] = {"RankMe": lambda values: rankme(values.sqrt())}
ENTROPIES = ("RankMe", "effective rank")
_BLOCK = 1024  # rows


def spectral_influences(spectrum: FeatureSpectrum, rows: Tensor) -> dict[str, Tensor]:
    """Influence of rows on RankMe, effective rank, alpha-ReQ and NESum, float64 `[n]` each.

    Args:
        spectrum: of all rows.
        rows: `[n, D]`, some of them.
    """
    n, mean, products = parts_of(spectrum.sums, spectrum.num_features)
    upper = products.triu() / n
    covariance = upper + upper.triu(1).T
    found = moment_influences(covariance, rows, mean, CENTRED)
    return found | moment_influences(covariance + torch.outer(mean, mean), rows, torch.zeros_like(mean), NOT_CENTRED)


def moment_influences(moment: Tensor, rows: Tensor, mean: Tensor, measures: Mapping[str, Measure]) -> dict[str, Tensor]:
    """Influence of rows on functions of the spectrum of a moment matrix `1/N sum (x - mean)(x - mean)'`, `[n]` by name.

    Args:
        moment: `[D, D]`, float64.
        rows: `[n, D]`.
        mean: `[D]`, subtracted from the rows.
        measures: by name; a function whose value is not finite has the influence 0.
    """
    values, vectors = torch.linalg.eigh(moment)
    kept = values > len(values) * torch.finfo(torch.float64).eps * values[-1]  # the others are rounding
    values, vectors = values[kept].flip(0), vectors[:, kept].flip(1)
    gradients = torch.stack([_gradient(measure, values) for measure in measures.values()], 1)
    moved = [((block.double() - mean) @ vectors).square() @ gradients for block in rows.split(_BLOCK)]
    return dict(zip(measures, (torch.cat(moved) - values @ gradients).T, strict=True))


def _gradient(measure: Measure, values: Tensor) -> Tensor:
    leaf = values.clone().requires_grad_()
    answer = measure(leaf)
    if not bool(answer.isfinite()) or not answer.requires_grad:
        return torch.zeros_like(values)
    return torch.autograd.grad(answer, leaf)[0]


def self_cluster_influences(metric: SelfCluster, rows: Tensor) -> Tensor:
    """Influence of rows on SelfCluster, float64 `[n]`: `D / (D - 1) 2 (u' S u - ||S||_F^2)` with `S` the mean of `u u'`.

    Rows of zeros, which have no direction, have none.
    """
    width = metric.num_features
    upper = metric.products.triu() / (metric.rows - metric.zero_rows).clamp(min=1)
    mean = upper + upper.triu(1).T
    total = mean.square().sum()
    moved = []
    for block in rows.split(_BLOCK):
        unit = F.normalize(block.double(), dim=1)
        part = 2 * (((unit @ mean) * unit).sum(1) - total) * (width / max(width - 1, 1))
        moved.append(torch.where(unit.any(1), part, 0.0))
    return torch.cat(moved)


def uniformity_influences(rows: Tensor, t: float = 2.0) -> Tensor:
    """Influence of rows on uniformity, the logarithm of a mean over pairs, float64 `[n]`: `2 (k_i - k) / k`.

    `k_i` is the mean of `exp(-t ||x_i - x_j||^2)` over the other rows, and k their mean (the Hajek projection).

    Args:
        rows: `[n, D]`, all that uniformity is computed on, n at least 2.
        t: as for uniformity.
    """
    unit = F.normalize(rows.float(), dim=1)
    lengths = unit.square().sum(1)  # 0 for a row of zeros
    sums = []
    for block, own in zip(unit.split(_BLOCK), lengths.split(_BLOCK), strict=True):
        distances = (own[:, None] + lengths - 2 * (block @ unit.T)).clamp_(min=0)
        sums.append(distances.mul_(-t).exp_().sum(1, dtype=torch.float64) - 1)  # less the row itself
    means = torch.cat(sums) / (len(rows) - 1)
    return 2 * (means - means.mean()) / means.mean()


def lidar_influences(metric: LiDAR, views: Tensor) -> Tensor:
    """Influence of images on LiDAR, float64 `[n]`.

    With `u_k` the discriminant directions, `u_k' S_w u_k = 1`, image i moves `lambda_k` by
    `(u_k'(m_i - m))^2 - lambda_k mean_v (u_k'(h_iv - m_i))^2 - lambda_k delta |u_k|^2`.

    Args:
        metric: of all images.
        views: `[n, q, D]`, the same images.
    """
    n, mean, products = parts_of(metric.between, metric.num_features)
    within, between = (upper.triu() + upper.triu(1).T for upper in (metric.within / n, products / n))
    spread, axes = torch.linalg.eigh(within)
    whitening = axes / (spread.clamp(min=0) + metric.delta).sqrt()
    values, turned = torch.linalg.eigh(whitening.T @ between @ whitening)
    values, directions = values.clamp(min=0).flip(0), whitening @ turned.flip(1)
    gradient = _gradient(lambda v: rankme(v, metric.eps), values)
    shift = values * metric.delta * directions.square().sum(0)
    moved = []
    for block in views.split(max(1, _BLOCK // views.shape[1])):
        rows = block.double()
        centre = rows.mean(1)
        apart = ((centre - mean) @ directions).square()
        near = ((rows - centre[:, None]) @ directions).square().mean(1)
        moved.append((apart - values * near - shift) @ gradient)
    return torch.cat(moved)


def alignment_per_image(views: Tensor) -> Tensor:
    """Mean of `||x - y||^2` over the pairs of views of every image, of rows divided by their length, float64 `[n]`.

    Args:
        views: `[n, q, D]`, q at least 2.
    """
    q = views.shape[1]
    parts = []
    for block in views.split(max(1, _BLOCK // q)):
        unit = F.normalize(block.double(), dim=2)
        # sum over pairs of ||x - y||^2 = q sum ||x||^2 - ||sum x||^2
        parts.append((q * unit.square().sum((1, 2)) - unit.sum(1).square().sum(1)) / (q * (q - 1) / 2))
    return torch.cat(parts)
