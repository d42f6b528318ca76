"""A small training to be monitored, and the float64 oracle of the monitor's values, importable by spawned processes too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.ops import oracle

FEATURES, CLASSES, BATCH = 24, 3, 16


def encoder(seed: int = 0) -> nn.Module:
    """With batch norm and dropout: modes, buffers and random numbers are at stake."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(12, FEATURES), nn.BatchNorm1d(FEATURES), nn.ReLU(), nn.Dropout(0.1))


def batches(count: int, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    """Inputs `[16, 12]` whose labels can be told from them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, BATCH, 12, generator=generator)
    return [(part, part[:, :CLASSES].argmax(1)) for part in x]


def views(x: Tensor) -> list[Tensor]:
    return [x + 0.1 * torch.randn_like(x) for _ in range(2)]


def train(
    net: nn.Module, data: list[tuple[Tensor, Tensor]], after: Callable[[list[Tensor], Tensor], Any] = lambda h, y: None
) -> list[Any]:
    """Two views, one by one, pulled together and apart from the others; what `after` returns for each batch."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    seen = []
    for x, y in data:
        h = [net(view) for view in views(x)]
        loss = (h[0] - h[1]).square().mean() + (torch.cat(h).std(0) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(after([part.detach().clone() for part in h], y))
    return seen


def expected(h: np.ndarray, eps: float, lower: float = 50, upper: float = 95) -> dict[str, float]:
    """Every label-free value of rows `[N, D]`, float64, from the definitions."""
    n = len(h)
    s = np.linalg.svd(h, compute_uv=False)
    p = s / s.sum()
    unit = h / np.maximum(np.linalg.norm(h, axis=1, keepdims=True), 1e-12)
    pairs = [np.exp(-2 * ((unit[i] - unit[j]) ** 2).sum()) for i in range(n) for j in range(i)]
    active = h > h.mean(1, keepdims=True) + eps * h.std(1, keepdims=True)
    rate = 100 * active.mean(0)
    low, high = np.percentile(rate, [lower, upper])
    chosen = torch.from_numpy((rate >= low) & (rate <= high) & (rate > 0))
    scores = oracle.scores(torch.from_numpy(h), chosen, eps).numpy()
    return {
        "rankme": np.exp(-((p + 1e-7) * np.log(p + 1e-7)).sum()),
        "effective_rank": np.exp(-(p[p > 0] * np.log(p[p > 0])).sum()),
        "uniformity": np.log(np.mean(pairs)),
        "feature_std": unit.std(0, ddof=1).mean(),
        "dead_share": float((h == h[0]).all(0).mean()),
        "mean_qscore": scores.mean(),
        "mean_active": active.sum() / n,
        "empty_share": float((scores == 0).mean()),
    }


def expected_alignment(a: np.ndarray, b: np.ndarray) -> float:
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (a, b))
    return float(((a - b) ** 2).sum(1).mean())


def expected_knn(bank: np.ndarray, y: np.ndarray, queries: np.ndarray, wanted: np.ndarray, k: int, temperature: float) -> float:
    right = []
    for query, label in zip(queries, wanted, strict=True):
        similarity = bank @ query / np.maximum(np.linalg.norm(bank, axis=1) * np.linalg.norm(query), 1e-12)
        votes = np.zeros(CLASSES)
        for place in np.argsort(-similarity)[:k]:
            votes[y[place]] += np.exp(similarity[place] / temperature)
        right.append(votes.argmax() == label)
    return float(np.mean(right))


def probe_rows(h: np.ndarray) -> np.ndarray:
    """Rows of length sqrt(D), and a one for the bias."""
    return np.concatenate([h * np.sqrt(FEATURES) / np.linalg.norm(h, axis=1, keepdims=True), np.ones((len(h), 1))], 1)


def expected_probe(steps: list[tuple[np.ndarray, np.ndarray]], rate: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """Weights `[C, D + 1]` of softmax regression by Adam, and whether each row was answered right before it was learnt."""
    weight = np.zeros((CLASSES, FEATURES + 1))
    first, second, hits = np.zeros_like(weight), np.zeros_like(weight), []
    for t, (h, y) in enumerate(steps, 1):
        x = probe_rows(h)
        logits = x @ weight.T
        hits.append(logits.argmax(1) == y)
        share = np.exp(logits - logits.max(1, keepdims=True))
        share /= share.sum(1, keepdims=True)
        gradient = (share - np.eye(CLASSES)[y]).T @ x / len(x)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        weight -= rate * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
    return weight, hits
