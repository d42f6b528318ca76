"""Settings of comparisons between representations; importing them loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

MeasureName = Literal[
    "cka_debiased", "cka_biased", "cca", "svcca", "pwcca", "procrustes", "angular", "mutual_knn", "rsa", "cka_rbf"
]
Dissimilarity = Literal["correlation", "euclidean"]
Correlation = Literal["spearman", "pearson", "cosine"]

#: Measures by name, as tables name them.
MEASURES: dict[MeasureName, str] = {
    "cka_debiased": "linear CKA, debiased",
    "cka_biased": "linear CKA, biased",
    "cca": "CCA, mean squared correlation",
    "svcca": "SVCCA, mean correlation",
    "pwcca": "PWCCA",
    "procrustes": "orthogonal Procrustes distance",
    "angular": "angular shape distance",
    "mutual_knn": "mutual k-NN",
    "rsa": "RSA",
    "cka_rbf": "RBF CKA, debiased",
}
#: Of all samples, from sums of products.
STREAMED: tuple[MeasureName, ...] = ("cka_debiased", "cka_biased", "cca", "svcca", "pwcca", "procrustes", "angular")
#: Of pairs of samples, on a sample of the rows.
SAMPLED: tuple[MeasureName, ...] = ("mutual_knn", "rsa", "cka_rbf")
#: 0 where two representations are alike, and larger where they are not.
DISTANCES: tuple[MeasureName, ...] = ("procrustes", "angular")
#: Inner products of two N x N matrices, which a permutation of samples only reorders.
PERMUTED: tuple[MeasureName, ...] = ("cka_debiased", "cca", "mutual_knn", "rsa", "cka_rbf")
USUAL: tuple[MeasureName, ...] = ("cka_debiased", "cka_biased", "cca", "svcca", "pwcca", "procrustes", "mutual_knn", "rsa")


@dataclass(frozen=True)
class SimilaritySettings:
    """What is measured between representations, on which rows, and how sure it is.

    Attributes:
        measures: which; angular and cka_rbf are left out by default.
        k: neighbours of mutual k-NN.
        dissimilarity: of two samples in RSA: 1 - Pearson's correlation of their features, or the Euclidean distance.
        correlation: between the dissimilarities of two representations in RSA.
        rbf_fraction: bandwidth of RBF CKA, as a fraction of the median distance.
        ridge: of the canonical correlations, in units of the mean variance of the features.
        sample: rows drawn for mutual k-NN, RSA, RBF CKA and the permutation test; all where there are fewer.
        permutations: of the samples, for the p-values; 0 leaves them out.
        resamples: of the bootstrap; 0 leaves the intervals out.
        seed: of the sample, the resamples and the permutations.
    """

    measures: tuple[MeasureName, ...] = USUAL
    k: int = 10
    dissimilarity: Dissimilarity = "correlation"
    correlation: Correlation = "spearman"
    rbf_fraction: float = 1.0
    ridge: float = 0.0
    sample: int = 2000
    permutations: int = 199
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for measure in self.measures:
            if measure not in MEASURES:
                raise ValueError(f"measures must be of {', '.join(MEASURES)}, got {measure!r}.")
        if not self.measures or len(set(self.measures)) < len(self.measures):
            raise ValueError(f"measures must name at least one, each once, got {list(self.measures)}.")
        for option, value, known in (
            ("dissimilarity", self.dissimilarity, get_args(Dissimilarity)),
            ("correlation", self.correlation, get_args(Correlation)),
        ):
            if value not in known:
                raise ValueError(f"{option} must be {' or '.join(known)}, got {value!r}.")
        for name, least in (("k", 1), ("sample", 4), ("permutations", 0), ("resamples", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}.")
        if self.resamples == 1:
            raise ValueError("resamples must be 0, for no intervals, or at least 2, got 1.")
        if self.ridge < 0 or not self.rbf_fraction > 0:
            raise ValueError(
                f"ridge must be zero or positive and rbf_fraction positive, got {self.ridge} and {self.rbf_fraction}."
            )
