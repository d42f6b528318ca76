"""Failure prediction in plain float64: `confidence` is high where a sample is trusted, `wrong` is 1 where it failed.

Ties are where implementations part. Each function says what the paper or its authors' code does with them.
"""

from __future__ import annotations

import numpy as np


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Share of (positive, negative) pairs that the score orders rightly, a tie counting one half (Mann and Whitney 1947)."""
    high, low = score[positive == 1], score[positive == 0]
    if not len(high) or not len(low):
        return float("nan")
    return float(np.mean([[1.0 if a > b else 0.5 if a == b else 0.0 for b in low] for a in high]))


def auprc(score: np.ndarray, positive: np.ndarray) -> float:
    """Average precision: sum of (R_n - R_n-1) P_n over distinct thresholds, no interpolation. Tied samples enter together."""
    total = int((positive == 1).sum())
    if not total:
        return float("nan")
    area, recall = 0.0, 0.0
    for threshold in sorted(set(score.tolist()), reverse=True):
        taken = positive[score >= threshold]
        area += (taken.sum() / total - recall) * taken.mean()
        recall = taken.sum() / total
    return float(area)


def fpr_at_tpr(score: np.ndarray, positive: np.ndarray, tpr: float = 0.95) -> float:
    """The least false positive rate of a threshold whose true positive rate is at least `tpr`; tied samples enter together.

    Which class is positive is a convention of its own: Hendrycks and Gimpel (2017) and fd-shifts take the correct ones. The
    curve is not interpolated. fd-shifts asks for 0.9495, Sun et al. (2022) for the threshold at rank round(0.05 n).
    """
    if not (positive == 1).any() or not (positive == 0).any():
        return float("nan")
    reached = [t for t in set(score.tolist()) if (score[positive == 1] >= t).mean() >= tpr]
    return float(min((score[positive == 0] >= t).mean() for t in reached))


def risk_coverage_curve(confidence: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coverage and selective risk at every distinct threshold, coverage rising (El-Yaniv and Wiener 2010)."""
    points = []
    for threshold in sorted(set(confidence.tolist()), reverse=True):
        kept = wrong[confidence >= threshold]
        points.append((len(kept) / len(wrong), kept.mean()))
    coverage, risk = np.array(points).T
    return coverage, risk


def aurc(confidence: np.ndarray, wrong: np.ndarray) -> float:
    """AURC (Geifman, Uziel and El-Yaniv 2019): mean over the samples' own confidences as thresholds.

    So each sample of a tie counts the risk of the whole tie. The authors' code (uncertainty_ICLR) instead breaks ties by
    argsort's order, and divides the errors of k samples by k + 1 for k < n, so that it is too small.
    """
    return float(np.mean([wrong[confidence >= threshold].mean() for threshold in confidence]))


def aurc_expected(confidence: np.ndarray, wrong: np.ndarray) -> float:
    """AURC when ties are broken at random, in expectation: errors rise linearly within a tie; mean of risk at k = 1 to n."""
    n, risks = len(wrong), []
    for k in range(1, n + 1):
        threshold = np.sort(confidence)[::-1][k - 1]
        above, tied = wrong[confidence > threshold], wrong[confidence == threshold]
        risks.append((above.sum() + (k - len(above)) * tied.mean()) / k)
    return float(np.mean(risks))


def aurc_trapezoid(confidence: np.ndarray, wrong: np.ndarray) -> float:
    """AURC as fd-shifts has it: trapezoids between distinct thresholds, the first risk held down to coverage 0."""
    coverage, risk = risk_coverage_curve(confidence, wrong)
    return float(np.trapezoid(np.r_[risk[0], risk], np.r_[0.0, coverage]))


def optimal_aurc(wrong: np.ndarray) -> float:
    """AURC of a confidence that ranks every correct sample above every wrong one, on this very sample."""
    n, errors = len(wrong), int(wrong.sum())
    return float(np.mean([max(0, k - (n - errors)) / k for k in range(1, n + 1)]))


def eaurc(confidence: np.ndarray, wrong: np.ndarray, limit: bool = False) -> float:
    """E-AURC (Geifman, Uziel and El-Yaniv 2019): AURC less that of the best ranking in hindsight.

    With `limit`, the paper's closed form for large n, r + (1 - r) ln(1 - r); at small n it lies below the finite optimum, so
    that even a perfect ranking then has an excess.
    """
    rate = float(wrong.mean())
    best = optimal_aurc(wrong) if not limit else rate + ((1 - rate) * np.log(1 - rate) if rate < 1 else 0.0)
    return aurc(confidence, wrong) - best


def augrc(confidence: np.ndarray, wrong: np.ndarray) -> float:
    """AUGRC (Traub et al. 2024): area under P(wrong and kept) over coverage, trapezoids from (0, 0).

    Linear within ties, as the authors' fd-shifts: the expectation over random orders. Equals (1 - AUROC) a (1 - a) +
    (1 - a)^2 / 2 with the accuracy a, from 0 to 1/2.
    """
    coverage, risk = risk_coverage_curve(confidence, wrong)
    return float(np.trapezoid(np.r_[0.0, risk * coverage], np.r_[0.0, coverage]))


def distances(queries: np.ndarray, references: np.ndarray) -> np.ndarray:
    """[Q, R] Euclidean distances from differences: no expanded square, which loses near neighbours."""
    q, r = np.asarray(queries, dtype=np.float64), np.asarray(references, dtype=np.float64)
    return np.array([[np.sqrt(((a - b) ** 2).sum()) for b in r] for a in q])


def unit_rows(z: np.ndarray) -> np.ndarray:
    """Rows of length one."""
    z = np.asarray(z, dtype=np.float64)
    return z / np.sqrt((z * z).sum(axis=1, keepdims=True))


def nearest_is_same(z: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """1 where the nearest other row by cosine has the same class (Recall@1). Equally near rows: the first.

    The authors' code takes the second of the two best, trusting the row itself to be the first, which copies of a row break.
    """
    cosine = unit_rows(z) @ unit_rows(z).T
    np.fill_diagonal(cosine, -np.inf)
    return np.array([labels[int(np.argmax(row))] == label for row, label in zip(cosine, labels, strict=True)]).astype(int)


def r_auroc(confidence: np.ndarray, z: np.ndarray, labels: np.ndarray) -> float:
    """R-AUROC (Kirchhof et al. 2023): AUROC of the confidence for the nearest neighbour being of the same class."""
    return auroc(confidence, nearest_is_same(z, labels))


def neighbourhood_consistency(queries: list[np.ndarray], references: list[np.ndarray], k: int, cosine: bool = True) -> np.ndarray:
    """NC_k (Park et al. 2024): Jaccard similarity of the k nearest reference points between models, [Q].

    One matrix a model, the same samples in the same order. The paper divides the sum over i < j by M^2; the authors' code
    takes the mean over the pairs, as here: one constant apart. Equally far references: argsort's order, unspecified.
    """
    sets = []
    for q, r in zip(queries, references, strict=True):
        d = distances(unit_rows(q), unit_rows(r)) if cosine else distances(q, r)
        sets.append([set(np.argsort(row, kind="stable")[:k].tolist()) for row in d])
    pairs = [(i, j) for i in range(len(sets)) for j in range(i + 1, len(sets))]
    return np.array(
        [np.mean([len(sets[i][x] & sets[j][x]) / len(sets[i][x] | sets[j][x]) for i, j in pairs]) for x in range(len(queries[0]))]
    )


def knn_distance(queries: np.ndarray, references: np.ndarray, k: int) -> np.ndarray:
    """Distance to the k-th nearest reference row, both of length one (Sun et al. 2022); faiss squares it there.

    Far is untrusted. A query that is itself a reference is its own first neighbour: the paper queries other rows.
    """
    return np.sort(distances(unit_rows(queries), unit_rows(references)), axis=1)[:, k - 1]


def mahalanobis(queries: np.ndarray, references: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """Squared Mahalanobis distance to the nearest class mean under one shared covariance (Lee et al. 2018).

    Without labels, to the mean of all. The covariance is over N (Lee's equation); scale leaves the order alone. A singular
    one gets the pseudo-inverse, so that directions the references lack count nothing; the paper is silent on that.
    """
    q, r = np.asarray(queries, dtype=np.float64), np.asarray(references, dtype=np.float64)
    labels = np.zeros(len(r), dtype=int) if labels is None else labels
    means = {c: r[labels == c].mean(axis=0) for c in np.unique(labels)}
    total = np.zeros((r.shape[1], r.shape[1]))
    for row, label in zip(r, labels, strict=True):
        total += np.outer(row - means[label], row - means[label])
    precision = np.linalg.pinv(total / len(r), hermitian=True)
    return np.array([min((x - m) @ precision @ (x - m) for m in means.values()) for x in q])
