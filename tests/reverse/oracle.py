"""Slow, dense, float64 implementations of reverse probing, written from the paper's equations and scikit-learn."""

import numpy as np
import torch
from sklearn.metrics import (
    adjusted_mutual_info_score,
    average_precision_score,
    normalized_mutual_info_score,
    top_k_accuracy_score,
)


def metrics(logits: torch.Tensor, clusters: torch.Tensor) -> dict[str, float]:
    scores, true = logits.double().numpy(), clusters.numpy()
    softmax = np.exp(scores - scores.max(1, keepdims=True))
    softmax /= softmax.sum(1, keepdims=True)
    predicted = scores.argmax(1)
    share = np.bincount(true) / len(true)
    entropy = -sum(p * np.log(p) for p in share if p > 0)
    cross_entropy = -np.mean([np.log(softmax[i, c]) for i, c in enumerate(true)])
    present = np.unique(true)
    return {
        "nmi": normalized_mutual_info_score(true, predicted),
        "ami": adjusted_mutual_info_score(true, predicted),
        "top1": float(np.mean(predicted == true)),
        "top5": top_k_accuracy_score(true, scores, k=5, labels=range(scores.shape[1])),
        "map": float(np.mean([average_precision_score(true == c, softmax[:, c]) for c in present])),
        "entropy": entropy,
        "cross_entropy": cross_entropy,
        "information": entropy - cross_entropy,
        "normalized_information": (entropy - cross_entropy) / entropy,
        "absent": scores.shape[1] - len(present),
    }


def lloyd(x: torch.Tensor, start: torch.Tensor, iterations: int) -> tuple[torch.Tensor, float]:
    points, centroids = x.double().numpy(), start.double().numpy().copy()
    for _ in range(iterations):
        squared = ((points[:, None] - centroids[None]) ** 2).sum(2)
        nearest = squared.argmin(1)
        for k in range(len(centroids)):
            if (nearest == k).any():
                centroids[k] = points[nearest == k].mean(0)
    squared = ((points[:, None] - centroids[None]) ** 2).sum(2)
    return torch.from_numpy(centroids), float(squared.min(1).sum())


def sgd(bits: torch.Tensor, clusters: torch.Tensor, orders: list, num_clusters: int, settings) -> torch.nn.Linear:
    """The paper's predictor as everyone would write it: nn.Linear, cross_entropy, torch.optim.SGD, float64."""
    linear = torch.nn.Linear(bits.shape[1], num_clusters, dtype=torch.float64)
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    optimiser = torch.optim.SGD(
        linear.parameters(), lr=settings.learning_rate, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimiser, [round(0.6 * settings.epochs), round(0.8 * settings.epochs)], 0.1)
    for order in orders:
        for rows in order.split(settings.batch_size):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(linear(bits[rows].double()), clusters[rows]).backward()
            optimiser.step()
        scheduler.step()
    return linear
