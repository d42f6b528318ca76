"""Galleries of heatmaps: samples before and after (figures 5 and A.2), features of a class (A.11 to A.14), PCA (A.6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from sslk.data import Dataset, UnreadableImageError
from sslk.features import FeatureStore
from sslk.features.unreadable import refusal
from sslk.interpret.heatmaps import HeatmapSettings, feature_heatmaps
from sslk.interpret.overlay import overlay
from sslk.interpret.pca import principal_directions
from sslk.models import EvaluationTransform
from sslk.quality.discriminative import DiscriminativeFeatures


@dataclass(frozen=True, eq=False)
class GalleryRow:
    """A row of pictures: a label at its left, uint8 images `[K, H, W, 3]` and a caption above each."""

    label: str
    images: np.ndarray
    captions: Sequence[str]


def draw_gallery(rows: Sequence[GalleryRow], title: str) -> Figure:
    """One figure of all rows; rows may differ in length."""
    columns = max(len(row.images) for row in rows)
    aspect = rows[0].images.shape[2] / rows[0].images.shape[1]
    width = 1.3 * aspect**0.5  # inches of a cell, so that wide and high images cover about the same area
    figure, axes = plt.subplots(
        len(rows),
        columns,
        figsize=(width * columns + 0.8, (width / aspect + 0.3) * len(rows) + 0.4),
        squeeze=False,
        layout="constrained",
    )
    for line, row in zip(axes, rows, strict=True):
        for ax, image, caption in zip(line, row.images, row.captions, strict=False):
            ax.imshow(image, interpolation="nearest")
            ax.set_title(caption, fontsize=6.5)
        for ax in line:
            ax.set_xticks([])
            ax.set_yticks([])
            ax.spines[:].set_visible(False)
            ax.set_visible(bool(ax.images))
        line[0].set_ylabel(row.label, fontsize=7)
    figure.suptitle(title, fontsize=9)
    return figure


def load_images(dataset: Dataset, indices: Sequence[int], transform: EvaluationTransform) -> tuple[Tensor, np.ndarray]:
    """The model's input `[K, 3, H, W]` and the same crops to look at, uint8 `[K, H, W, 3]`."""
    batch = torch.stack([transform(dataset[index][0]) for index in indices])
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (transform.mean, transform.std))
    pixels = ((batch * std + mean).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return batch, pixels


def count_text(count: int) -> str:
    """How many features a combined map holds, in words."""
    return {0: "no feature", 1: "1 feature"}.get(count, f"{count} features")


def sample_gallery(
    models: dict[str, nn.Module],
    dataset: Dataset,
    indices: Sequence[int],
    discriminative: DiscriminativeFeatures,
    transform: EvaluationTransform,
    *,
    captions: dict[str, Sequence[str]] | None = None,
    title: str = "Heatmaps of the discriminative features",
) -> Figure:
    """Images in the first row and the combined heatmaps of each model below, such as before and after regularisation.

    Args:
        models: models that share the set, by name.
        dataset: of untransformed images, seen or unseen.
        indices: which images.
        discriminative: the set S.
        transform: into the models' input.
        captions: for `image` and each model's name, one text per image; class and number of features by default.
        title: of the figure.
    """
    batch, pixels = load_images(dataset, indices, transform)
    given = captions or {}
    labels = [_class_name(dataset, index) for index in indices]
    rows = [GalleryRow("image", pixels, given.get("image", labels))]
    for name, model in models.items():
        found = feature_heatmaps(model, batch.to(next(model.parameters()).device), discriminative=discriminative)
        assert found.combined is not None and found.counts is not None
        counts = [count_text(count) for count in found.counts.tolist()]
        rows.append(GalleryRow(name, overlay(pixels, found.combined.cpu().numpy()), given.get(name, counts)))
    return draw_gallery(rows, title)


def class_gallery(
    model: nn.Module,
    store: FeatureStore,
    dataset: Dataset,
    discriminative: DiscriminativeFeatures,
    label: int,
    transform: EvaluationTransform,
    *,
    features: int = 3,
    columns: int = 6,
    left_out: list[str] | None = None,
) -> Figure:
    """One class: the discriminative features with the largest class mean, and lowly activating ones for contrast.

    Of each feature the images of the class with the largest values are shown with its heatmap. Lowly activating are the
    features with the smallest class mean among those that are above zero in some image of the class. An image that cannot
    be read is an error, or, with a list `left_out`, noted there by name and the next one drawn.

    Raises:
        ValueError: the store has no image of the class, or an image cannot be read.
    """
    store.require(labels=True)
    if label < 0:
        raise ValueError(f"label must be the number of a class, got {label}, which means unlabelled.")
    rows, indices = _rows_of_class(store, label)
    mean = rows.mean(0)
    inside = torch.where(discriminative.mask, mean, -torch.inf)
    alive = (rows > 0).any(0) & ~discriminative.mask
    outside = torch.where(alive, mean, torch.inf)
    best = inside.topk(min(features, discriminative.num_discriminative)).indices.tolist()
    least = outside.topk(min(features, int(alive.sum())), largest=False).indices.tolist()
    name = store.spec.classes[label] if label < len(store.spec.classes) else str(label)
    lines = [(f"discriminative {j}", j) for j in best] + [(f"low {j}", j) for j in least]
    source = model, dataset, transform, left_out
    drawn = [_top_images(source, rows[:, j], indices, (j, None), text, columns) for text, j in lines]
    return draw_gallery(drawn, f"{name}: discriminative and lowly activating features")


def pca_gallery(
    model: nn.Module,
    store: FeatureStore,
    dataset: Dataset,
    transform: EvaluationTransform,
    *,
    components: int = 6,
    columns: int = 6,
    left_out: list[str] | None = None,
) -> Figure:
    """Principal directions of the representations: the images furthest along each, with the direction's heatmap.

    What becomes of an image that cannot be read is as for `class_gallery`.
    """
    found = principal_directions(store, components)
    coordinates, indices = [], []
    for batch in store.batches(4096):
        coordinates.append(found.transform(batch.features).float())
        indices.append(batch.indices)
    values, numbers = torch.cat(coordinates), torch.cat(indices)
    head = found.head().to(next(model.parameters()).device)
    source = model, dataset, transform, left_out
    drawn = [
        _top_images(
            source,
            values[:, k],
            numbers,
            (k, head),
            f"direction {k + 1}\n{100 * float(found.explained[k]):.1f} % of variance",
            columns,
        )
        for k in range(components)
    ]
    return draw_gallery(drawn, "Principal directions of the representations")


def _rows_of_class(store: FeatureStore, label: int) -> tuple[Tensor, Tensor]:
    """Normalised features and indices into the data set of one class."""
    rows, indices = [], []
    for batch in store.batches(4096):
        assert batch.labels is not None
        chosen = (batch.labels == label) & batch.features.isfinite().all(1)
        rows.append(F.normalize(batch.features[chosen].float()))
        indices.append(batch.indices[chosen])
    if not sum(map(len, rows)):
        raise ValueError(f"label {label} has no image in {store.path}, it has {sorted(set(store.labels().tolist()))}.")
    return torch.cat(rows), torch.cat(indices)


def _top_images(
    source: tuple[nn.Module, Dataset, EvaluationTransform, list[str] | None],
    values: Tensor,
    indices: Tensor,
    output: tuple[int, nn.Module | None],
    label: str,
    columns: int,
) -> GalleryRow:
    """The images with the largest values, and beside each what the output (of a head, if any) looks at."""
    (model, dataset, transform, left_out), (column, head) = source, output
    order = values.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)
    best = order[_first_readable(dataset, indices[order].tolist(), columns, left_out)]
    chosen = indices[best].tolist()
    batch, pixels = load_images(dataset, chosen, transform)
    found = feature_heatmaps(model, batch.to(next(model.parameters()).device), [column], settings=HeatmapSettings(head=head))
    assert found.per_feature is not None
    shown = overlay(pixels, found.per_feature[:, 0].cpu().numpy())
    captions = [
        f"{_class_name(dataset, index)} {value:.3f}".strip() for index, value in zip(chosen, values[best].tolist(), strict=True)
    ]
    # Image and heatmap side by side, so that neither hides the other.
    return GalleryRow(label, np.concatenate([pixels, shown], axis=2), captions)


def _first_readable(dataset: Dataset, numbers: list[int], count: int, left_out: list[str] | None) -> list[int]:
    """Places among the numbers of the first so many images that can be read; the others are noted, or an error."""
    kept: list[int] = []
    for place, number in enumerate(numbers):
        if len(kept) == count:
            break
        try:
            dataset.image(number)
        except UnreadableImageError as error:
            if left_out is None:
                raise refusal(error) from error
            left_out.append(error.image_name)
            continue
        kept.append(place)
    if not kept:
        raise ValueError(f"none of the {len(numbers)} images to be drawn from {dataset.name} can be read.")
    return kept


def _class_name(dataset: Dataset, index: int) -> str:
    labels = dataset.labels
    if labels is None or labels[index] < 0:
        return ""
    name = dataset.classes[labels[index]] if labels[index] < len(dataset.classes) else str(labels[index])
    return name.split(",")[0][:18]


def coactivation_figure(correlation: np.ndarray, group: np.ndarray) -> Figure:
    """Correlation of the activations of all pairs of features, ordered by group, groups outlined (figure A.4).

    Args:
        correlation: `[F, F]`, phi coefficients.
        group: int64 `[F]`, -1 for features that are alone.
    """
    order = np.lexsort((np.arange(len(group)), np.where(group < 0, len(group), group)))
    figure, ax = plt.subplots(figsize=(5.6, 4.8), layout="constrained")
    image = ax.imshow(correlation[np.ix_(order, order)], cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    start = 0
    for number in range(int(group.max()) + 1 if len(group) else 0):
        size = int((group == number).sum())
        square = plt.Rectangle((start - 0.5, start - 0.5), size, size, fill=False, edgecolor="black", linewidth=0.8)
        ax.add_patch(square)
        start += size
    ax.set(xlabel="discriminative features, by group", ylabel="discriminative features, by group")
    ax.set_title("Features that fire together", fontsize=10)
    figure.colorbar(image, ax=ax, label="correlation of activations (phi)")
    return figure
