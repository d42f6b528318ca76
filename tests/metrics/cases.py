"""Every metric with its arguments, one data set, and the float64 answer written from the equation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

import ssl_kernels
from sslk import metrics

N, D1, D2 = 61, 24, 17
S = torch.arange(D1) % 3 != 0


class Case(NamedTuple):
    """A metric, the rows it is fed, and its answer for all of them."""

    make: Callable[[], Any]
    rows: tuple[Tensor, ...]
    oracle: Callable[..., dict[str, Tensor]]


def hsic1(k: Tensor, other: Tensor) -> Tensor:
    """Song et al. 2012, on N x N matrices."""
    n = len(k)
    k, other = k - k.diag().diag(), other - other.diag().diag()
    one = torch.ones(n, dtype=torch.float64)
    total = (one @ k @ one) * (one @ other @ one) / ((n - 1) * (n - 2))
    return ((k @ other).trace() + total - 2 / (n - 2) * (one @ k @ other @ one)) / (n * (n - 3))


def biased_hsic(k: Tensor, other: Tensor) -> Tensor:
    n = len(k)
    centre = torch.eye(n, dtype=torch.float64) - 1 / n
    return (centre @ k @ centre @ other).trace()


def cka_oracle(*xs: Tensor) -> dict[str, Tensor]:
    # Both criteria are those of the centred data; without, the products of the means cost the oracle half of its digits.
    grams = [x @ x.T for x in (x.double() - x.double().mean(0) for x in xs)]

    def matrix(hsic: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        return torch.stack([torch.stack([hsic(k, m) / (hsic(k, k) * hsic(m, m)).sqrt() for m in grams]) for k in grams])

    return {"debiased": matrix(hsic1), "biased": matrix(biased_hsic)}


def cca_oracle(*xs: Tensor) -> dict[str, Tensor]:
    """Orthonormal bases by SVD of the centred data, not of covariances."""
    bases = []
    for x in xs:
        u, s, _ = torch.linalg.svd(x.double() - x.double().mean(0), full_matrices=False)
        bases.append(u[:, s > 1e-6 * s[0]])
    r2 = [[(p.T @ q).square().sum() / min(p.shape[1], q.shape[1]) for q in bases] for p in bases]
    return {"r2": torch.tensor(r2, dtype=torch.float64), "ranks": torch.tensor([q.shape[1] for q in bases])}


def similarity_oracle(*xs: Tensor) -> dict[str, Tensor]:
    return {**cka_oracle(*xs), **cca_oracle(*xs)}


def rate_oracle(h: Tensor) -> dict[str, Tensor]:
    h = h.double()
    active = h > h.mean(1, keepdim=True) + 1.5 * h.std(1, correction=0, keepdim=True)
    return {
        "activation_percent": 100 * active.double().mean(0),
        "counts": active.sum(0),
        "mean_active": active.sum(1).double().mean(),
        "rows": torch.tensor(len(h)),
    }


def qscore_oracle(h: Tensor) -> dict[str, Tensor]:
    h = torch.nn.functional.normalize(h.double())
    mu, sigma = h.mean(1, keepdim=True), h.std(1, correction=0, keepdim=True)
    chosen = (h > mu + 1.5 * sigma) & S
    scores = torch.where(chosen, h - mu, 0).sum(1) / chosen.sum(1).clamp(min=1)
    return {
        "mean": scores.mean(),
        "std": scores.std(correction=0),
        "min": scores.min(),
        "max": scores.max(),
        "empty_share": (chosen.sum(1) == 0).double().mean(),
        "rows": torch.tensor(len(h)),
        "nonfinite_rows": torch.tensor(0),
    }


def moments_oracle(h: Tensor) -> dict[str, Tensor]:
    h = h.double()
    return {"mean": h.mean(0), "std": h.std(0, correction=0), "rows": torch.tensor(len(h))}


def l1_oracle(h: Tensor) -> dict[str, Tensor]:
    return {"": torch.nn.functional.normalize(h.double()).abs().sum(0)}


def auroc_oracle(scores: Tensor, correct: Tensor) -> dict[str, Tensor]:
    return {"": torch.tensor(roc_auc_score(correct.numpy(), scores.numpy()), dtype=torch.float64)}


def auprc_oracle(scores: Tensor, correct: Tensor) -> dict[str, Tensor]:
    return {"": torch.tensor(average_precision_score(correct.numpy(), scores.numpy()), dtype=torch.float64)}


def spectrum_oracle(h: Tensor) -> dict[str, Tensor]:
    """By SVD of the whole matrix, not by eigenvalues of products."""
    h = h.double()
    centred = h - h.mean(0)
    return {
        "rows": torch.tensor(len(h)),
        "mean": h.mean(0),
        "variance": h.var(0, correction=0),
        "eigenvalues": torch.linalg.svdvals(centred).square() / len(h),
        "singular_values": torch.linalg.svdvals(h),
    }


def self_cluster_oracle(h: Tensor) -> dict[str, Tensor]:
    """Pair by pair: the mean squared cosine of two different rows, between what is expected of chance (1/D) and 1."""
    unit = h.double() / h.double().norm(dim=1, keepdim=True)
    unit, d = unit[h.norm(dim=1) > 0], h.shape[1]
    cosines = [float(unit[i] @ unit[j]) ** 2 for i in range(len(unit)) for j in range(i)]
    value = (sum(cosines) / len(cosines) - 1 / d) / (1 - 1 / d)
    zero = int((h.norm(dim=1) == 0).sum())
    return {
        "self_cluster": torch.tensor(value, dtype=torch.float64),
        "rows": torch.tensor(len(h)),
        "zero_rows": torch.tensor(zero),
    }


def lidar_oracle(views: Tensor) -> dict[str, Tensor]:
    """From the equation, image by image, with the square root of a matrix by scipy."""
    h = views.double().numpy()
    n, q, d = h.shape
    means = h.mean(1)
    within = sum(np.outer(h[i, v] - means[i], h[i, v] - means[i]) for i in range(n) for v in range(q)) / (n * q)
    between = sum(np.outer(m - means.mean(0), m - means.mean(0)) for m in means) / n
    root = np.linalg.inv(scipy.linalg.sqrtm(within + 1e-4 * np.eye(d)).real)
    values = np.linalg.eigvalsh(root @ between @ root)[::-1].clip(0)
    shares = values / values.sum() + 1e-7
    return {
        "lidar": torch.tensor(np.exp(-(shares * np.log(shares)).sum())),
        "eigenvalues": torch.from_numpy(values.copy()),
        "images": torch.tensor(n),
    }


def _data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    # A mean far from zero: uncentred sums would cancel.
    x = torch.randn(N, D1, generator=g) + 30
    y = x[:, :D2] * torch.rand(D2, generator=g) + torch.randn(N, D2, generator=g) - 20
    scores = (torch.randn(N, generator=g) * 4).round() / 4  # with ties
    correct = scores + torch.randn(N, generator=g) > 0
    return x, y, scores, correct


x, y, scores, correct = _data()
dead = torch.cat([x[:, :6], x[:, :3], torch.zeros(N, 4)], 1)  # duplicated and constant columns

views = y[:, None] + 5 * torch.randn(N, 4, D2, generator=torch.Generator().manual_seed(8))

CASES = {
    "activation": Case(lambda: metrics.ActivationRate(D1, eps=1.5), (x,), rate_oracle),
    "qscore": Case(lambda: metrics.QScoreSummary(S, eps=1.5), (x,), qscore_oracle),
    "auroc": Case(metrics.FailureAUROC, (scores, correct), auroc_oracle),
    "auprc": Case(metrics.FailureAUPRC, (scores, correct), auprc_oracle),
    "cka": Case(lambda: metrics.LinearCKA([D1, D2]), (x, y), cka_oracle),
    "cka3": Case(lambda: metrics.LinearCKA([D1, D2, 13]), (x, y, dead), cka_oracle),
    "cca": Case(lambda: metrics.CCA([D1, D2]), (x, y), cca_oracle),
    "cca_rank": Case(lambda: metrics.CCA([13, D2]), (dead, y), cca_oracle),
    "cca_wide": Case(lambda: metrics.CCA([D1, D2]), (x[:11], y[:11]), cca_oracle),
    "similarity": Case(lambda: metrics.Similarity([D1, D2, 13]), (x, y, dead), similarity_oracle),
    "moments": Case(lambda: metrics.FeatureMoments(D1), (x,), moments_oracle),
    "column_l1": Case(lambda: metrics.ColumnL1(D1), (x,), l1_oracle),
    "spectrum": Case(lambda: metrics.FeatureSpectrum(D1), (x,), spectrum_oracle),
    "spectrum_rank": Case(lambda: metrics.FeatureSpectrum(13), (dead,), spectrum_oracle),
    "spectrum_wide": Case(lambda: metrics.FeatureSpectrum(D1), (x[:11],), spectrum_oracle),
    "self_cluster": Case(
        lambda: metrics.SelfCluster(D2), (torch.cat([y[:40] - 20, y[:1] * 0, y[40:] + 20]),), self_cluster_oracle
    ),
    "lidar": Case(lambda: metrics.LiDAR(D2), (views,), lidar_oracle),
}


def answers(value: Any) -> dict[str, Tensor]:
    """A metric's answer as a dictionary, whatever its form."""
    return value if isinstance(value, dict) else {"": value}


def assert_answer(value: Any, expected: dict[str, Tensor], tolerance: float = 1e-9) -> None:
    """Equal names; integers equal exactly, the rest within the tolerance."""
    found = answers(value)
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        exact = not wanted.is_floating_point()
        np.testing.assert_allclose(
            found[name].numpy(), wanted.numpy(), rtol=0 if exact else tolerance, atol=0 if exact else tolerance, err_msg=name
        )


assert ssl_kernels  # registers the ops before a spawned rank unpickles a case


def iou_oracle(heat: Tensor, mask: Tensor) -> dict[str, Tensor]:
    has_map, has_mask = heat.flatten(1).sum(1) > 0, mask.flatten(1).any(1)
    region = (heat.double() > 0.2, mask)
    inside = (heat.double() * (region[0] & region[1])).sum((1, 2))
    around = (heat.double() * (region[0] | region[1])).sum((1, 2))
    kept = has_map & has_mask
    return {
        "miou": (inside[kept] / around[kept]).mean(),
        "images": kept.sum(),
        "without_map": (~has_map).sum(),
        "without_mask": (~has_mask).sum(),
    }


_heat = torch.rand(N, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
_heat[3::10] = 0
_mask = torch.rand(N, 3, 5, generator=torch.Generator().manual_seed(6)) > 0.6
_mask[4::9] = False
CASES["heatmap_iou"] = Case(lambda: metrics.HeatmapIoU(0.2), (_heat, _mask), iou_oracle)
