"""The settings of the masked-input study; importing them loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class StudySettings:
    """What the study computes and how.

    Attributes:
        segmenter: finds the foreground: grabcut, grabcut:box, labels:CLASS,..., boxes, files:FOLDER, deeplab or sam; see
            docs/masked.md.
        segment_side: shorter side in pixels to which larger images are reduced before they are segmented, 0 for none; 256
            for grabcut, 520 for deeplab and 768 for sam by default.
        variants: names, of the paper's five and of `sslk.masked.variants.OCCLUDERS`.
        radius: radius of the disc, as a share of the shorter side; where disc and rest have equal areas by default.
        images: sample of the data set, without replacement; all by default.
        on_bad_mask: images whose mask is empty or full in the centre crop, or came in another size, are kept or dropped.
        folds: folds of the cross-validation; fewer where a class has fewer samples, 0 leaves it out.
        k: nearest neighbours that are looked at.
        neighbor_metric: metric in which they are near.
        neighbor_images: at most so many images are pooled for the neighbours.
        umap_share: share of the images for UMAP; 0 leaves it out.
        resamples: resamples of the bootstrap; 0 leaves the intervals out.
        ridge: added to the covariances of the canonical correlations.
        rbf_fraction: bandwidth of radial-kernel CKA as a share of the median distance; left out by default.
        rbf_images: at most so many images for it.
        seed: seed of the sample, folds, bootstrap, UMAP and random weights.
    """

    segmenter: str = "grabcut"
    segment_side: int | None = None
    variants: tuple[str, ...] = ("original", "foreground", "background", "center", "border")
    radius: float | None = None
    images: int | None = None
    on_bad_mask: Literal["keep", "drop"] = "keep"
    folds: int = 5
    k: int = 10
    neighbor_metric: Literal["cosine", "euclidean"] = "cosine"
    neighbor_images: int = 5000
    umap_share: float = 0.1
    resamples: int = 1000
    ridge: float = 0.0
    rbf_fraction: float | None = None
    rbf_images: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.umap_share <= 1:
            raise ValueError(f"umap_share must lie in [0, 1], got {self.umap_share}.")
        if self.folds == 1 or self.folds < 0:
            raise ValueError(f"folds must be 0 or at least 2, got {self.folds}.")
        for name in ("k", "neighbor_images", "rbf_images"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.resamples < 0:
            raise ValueError(f"resamples must be 0 or more, got {self.resamples}.")
