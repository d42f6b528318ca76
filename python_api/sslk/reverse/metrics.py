"""Metrics of reverse probing: how well a linear predictor on concepts finds the cluster."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class ReverseMetrics:
    """Results on the rows of one part; information in nats.

    Attributes:
        nmi: normalised mutual information of predicted and true clusters, divided by the arithmetic mean of the two
            entropies: scikit-learn's default.
        ami: the same, adjusted for chance; arithmetic mean too.
        top1, top5: accuracy of the cluster; None for top5 of five clusters or fewer, which is right whatever is predicted.
        map: mean over the clusters that occur of the average precision of their softmax column.
        entropy: H, of the clusters of these rows.
        cross_entropy: CE of the predictor.
        information: `I = H - CE`, a lower bound of the mutual information of concepts and clusters in expectation.
        normalized_information: `I / H`.
        absent: clusters without a row here, left out of map.
    """

    nmi: float
    ami: float
    top1: float
    top5: float | None
    map: float
    entropy: float
    cross_entropy: float
    information: float
    normalized_information: float
    absent: int


TOP = 5  # of top-5
METRICS = tuple(item.name for item in fields(ReverseMetrics) if item.name != "absent")


def reverse_metrics(logits: Tensor, clusters: Tensor) -> ReverseMetrics:
    """All metrics of the predictor's outputs.

    Args:
        logits: floating point `[n, K]`.
        clusters: integers `[n]` in [0, K).

    Raises:
        ValueError: shapes do not match.

    >>> found = reverse_metrics(8 * torch.eye(3)[torch.tensor([0, 1, 2, 2])], torch.tensor([0, 1, 2, 2]))
    >>> found.nmi, found.top1, found.map, round(found.entropy, 4)
    (1.0, 1.0, 1.0, 1.0397)
    """
    from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

    if logits.ndim != 2 or clusters.shape != logits.shape[:1] or not len(clusters):
        raise ValueError(f"logits must be [n, K] with clusters [n], got {list(logits.shape)} and {list(clusters.shape)}.")
    target = clusters.long()
    scores = F.log_softmax(logits.double() if logits.dtype == torch.float64 else logits.float(), dim=1)
    predicted = scores.argmax(1)
    true, found = target.numpy(), predicted.numpy()
    top5 = None
    if scores.shape[1] > TOP:
        top5 = float((scores.topk(TOP, dim=1).indices == target[:, None]).any(1).double().mean())
    counts = torch.bincount(target, minlength=scores.shape[1])
    entropy = cluster_entropy(counts)
    cross_entropy = float(-scores.gather(1, target[:, None]).double().mean())
    information = entropy - cross_entropy
    return ReverseMetrics(
        nmi=float(normalized_mutual_info_score(true, found)),
        ami=float(adjusted_mutual_info_score(true, found)),
        top1=float((predicted == target).double().mean()),
        top5=top5,
        map=float(average_precision(scores, target)[counts > 0].mean()),
        entropy=entropy,
        cross_entropy=cross_entropy,
        information=information,
        normalized_information=information / entropy if entropy > 0 else float("nan"),
        absent=int((counts == 0).sum()),
    )


def value_of(found: ReverseMetrics, metric: str) -> float:
    """A metric by name; NaN where it is absent."""
    value = getattr(found, metric)
    return float("nan") if value is None else float(value)


def cluster_entropy(counts: Tensor) -> float:
    """Entropy of a distribution given by counts `[K]`, in nats."""
    share = counts.double() / counts.sum()
    return float(-torch.xlogy(share, share).sum())


def average_precision(scores: Tensor, target: Tensor) -> Tensor:
    """Average precision of each column as a ranking of the rows of its class, float64 `[K]`; NaN without any.

    `AP = sum_t (R_t - R_{t-1}) P_t` over the thresholds t, one per different score: images of equal concepts have equal
    scores, and no order among them is pretended. Equals scikit-learn's `average_precision_score`.
    """
    n = len(scores)
    rank = torch.arange(1, n + 1, dtype=torch.float64)[:, None]
    parts = []
    for columns in torch.arange(scores.shape[1]).split(max(1, 4_000_000 // n)):
        ordered, order = scores[:, columns].sort(dim=0, descending=True)
        positive = target[order] == columns
        hits = positive.cumsum(0)
        last = torch.ones_like(positive)  # the last row of a run of equal scores
        last[:-1] = ordered[:-1] != ordered[1:]
        end = torch.where(last, torch.arange(n)[:, None], n - 1).flip(0).cummin(0).values.flip(0)
        precision = (hits / rank).gather(0, end)
        parts.append((precision * positive).sum(0) / hits[-1])
    return torch.cat(parts)
