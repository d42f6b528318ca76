"""Settings of the interpretations; importing them loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sslk.data.source import OnCorrupt


@dataclass(frozen=True)
class MaskSettings:
    """Which regions heatmaps are compared with.

    Attributes:
        masks: annotation (the data set's boxes, or its classes per pixel with core), folder:PATH (a masks.csv, or what
            `sslk masked build` wrote, foreground as core), or salient:PATH (Salient ImageNet, which brings its images).
        core: classes whose pixels are core, for data sets with a class per pixel.
        void: classes that are neither core nor spurious.
        answers: Salient ImageNet's table of the workers' answers.
        images: ImageNet's training folder, where the masks of Salient ImageNet come without images.
    """

    masks: str = "annotation"
    core: tuple[str, ...] = ()
    void: tuple[str, ...] = ()
    answers: str | None = None
    images: str | None = None


@dataclass(frozen=True)
class MiouSettings:
    """How the agreement of heatmaps with masks is measured.

    Attributes:
        correct: folds (out-of-fold linear probes on the same images) or a CSV file with the columns index and correct.
        correct_after: such a file about the second checkpoint, needed where correct is one.
        threshold: heat above which a pixel belongs to the map's region.
        limit: only so many images, evenly spread over the data set; all by default.
        batch_size: images per forward pass.
        workers: loading processes.
        seed: seed of the random features and the folds.
        on_corrupt: an unreadable image ends the work, or is left out, counted and listed.
    """

    correct: str | None = None
    correct_after: str | None = None
    threshold: float = 0.0
    limit: int | None = None
    batch_size: int = 64
    workers: int = 0
    seed: int = 0
    on_corrupt: OnCorrupt = "raise"

    def check(self, arms: int) -> None:
        """Refuse what cannot be told of a second checkpoint.

        Raises:
            ValueError: a file says which images the first one classifies correctly, and none does for the second.
        """
        if arms > 1 and self.correct not in (None, "folds") and self.correct_after is None:
            raise ValueError(
                f"correct={self.correct} says which images the first checkpoint classifies correctly; give correct_after "
                "with those of the second, or correct=folds."
            )


@dataclass(frozen=True)
class AtlasSettings:
    """What the feature atlas shows.

    Attributes:
        top: images per feature.
        tail_features: features of each tail, for contrast, evenly spread over their activation percentages.
        min_correlation: least correlation of features that form a group.
        on_corrupt: an unreadable image ends the work, or its place stays empty, and it is counted and listed.
    """

    top: int = 8
    tail_features: int = 8
    min_correlation: float = 0.3
    on_corrupt: OnCorrupt = "raise"


Gallery = Literal["samples", "classes", "pca", "compare"]


@dataclass(frozen=True)
class GallerySettings:
    """What a gallery shows.

    Attributes:
        labels: classes to draw; the first three by default.
        columns: images per row.
        seed: seed of the random samples and the folds.
        on_corrupt: an unreadable image ends the work, or is left out, counted and listed.
    """

    labels: tuple[int, ...] = (0, 1, 2)
    columns: int = 8
    seed: int = 0
    on_corrupt: OnCorrupt = "raise"
