"""Builds the feature atlas: statistics, pictures, nearest concepts, groups, and the page that shows them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, PackageLoader
from torch import Tensor, nn
from torch.nn import functional as F

from sslk.concepts import ConceptTable
from sslk.data import Dataset
from sslk.data.source import OnCorrupt
from sslk.features import FeatureStore
from sslk.features.unreadable import check_on_corrupt, readable_numbers, require_readable
from sslk.interpret.atlas.statistics import AtlasStatistics, coactivation_groups, collect
from sslk.interpret.atlas.thumbnails import SIDE, write_pictures
from sslk.interpret.concept_scores import concept_scores
from sslk.interpret.maps import map_method
from sslk.interpret.settings import AtlasSettings
from sslk.models import EvaluationTransform
from sslk.progress import Progress
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.results.atomic import write_atomically

PAGE = "index.html"
_BARS = 8  # classes shown per feature
_CONCEPTS = 5  # concepts shown per feature
_BLOCK_BYTES = 256 << 20  # features whose values over all rows are in memory at a time


@dataclass(frozen=True, eq=False)
class Atlas:
    """What was written.

    Attributes:
        page: the HTML file.
        cards: one dictionary per feature, what the page shows.
        groups: number of groups of at least two discriminative features.
        group: int64 `[F]`, group of each card's feature, -1 for those that are alone or in a tail.
        correlation: `[S, S]`, phi coefficients among the discriminative features, in the order of `features`.
        features: int64 `[S]`.
        left_out: names of images that cannot be read, whose places are empty.
    """

    page: Path
    cards: list[dict[str, Any]]
    groups: int
    group: np.ndarray
    correlation: np.ndarray
    features: Tensor
    left_out: list[str]


@dataclass(frozen=True, eq=False)
class AtlasInputs:
    """What an atlas is about; its parts must belong together.

    Attributes:
        store: the representations of the data set under the model.
        model: as for `feature_heatmaps`.
        dataset: of untransformed images, the one the store was extracted from.
        discriminative: the set S; features are active at its eps.
        transform: into the model's input.
        concepts: which images have which concepts.

    Raises:
        ValueError: the set, the data set or the concepts do not belong to the store.
        StoreError: the store is incomplete or damaged.
    """

    store: FeatureStore
    model: nn.Module
    dataset: Dataset
    discriminative: DiscriminativeFeatures
    transform: EvaluationTransform
    concepts: ConceptTable | None = None

    def __post_init__(self) -> None:
        _check(self.store.require(), self.dataset, self.discriminative, self.concepts)


def build_atlas(
    inputs: AtlasInputs,
    out: str | os.PathLike[str],
    settings: AtlasSettings = AtlasSettings(),  # noqa: B008 (frozen)
    *,
    progress: Progress | None = None,
) -> Atlas:
    """Write a page about every discriminative feature of a model on a data set, and some of both tails for contrast.

    For each feature: its activation percentage, the classes in which it is active, the most activating images with its
    heatmap, the nearest concepts, and the group of features it fires together with. The page is one HTML file that loads
    pictures as they come into view; it needs no server and no network.

    Args:
        inputs: store, model, images, set and concepts.
        out: folder; `index.html` and `pictures/` are written into it.
        settings: what it shows.
        progress: called with the features drawn and to draw.

    Raises:
        ValueError: no image is to be shown, or one cannot be read.
    """
    store, model, dataset, transform = inputs.store, inputs.model, inputs.dataset, inputs.transform
    discriminative, concepts, top = inputs.discriminative, inputs.concepts, settings.top
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}.")
    inside = discriminative.mask.nonzero().squeeze(1)
    tails = {
        "lower tail": _spread(discriminative, discriminative.lower_tail, settings.tail_features),
        "upper tail": _spread(discriminative, discriminative.upper_tail, settings.tail_features),
    }
    features = torch.cat([inside, *tails.values()])
    kinds = ["discriminative"] * len(inside) + [name for name, part in tails.items() for _ in part]
    statistics, left_out = _drawable(collect(store, discriminative, features, top=top), dataset, settings.on_corrupt)
    group, phi = coactivation_groups(statistics.together[: len(inside), : len(inside)], statistics.rows, settings.min_correlation)
    sizes = np.bincount(group)
    group = np.where(sizes[group] > 1, group, -1)
    group = np.concatenate([group, np.full(len(features) - len(inside), -1)])

    folder = Path(out)
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    method = map_method(model, (3, *transform.size))
    files = write_pictures(
        method, dataset, transform, features, statistics.top_rows, pictures, two_sided=discriminative.two_sided, progress=progress
    )
    near = _nearest(store, features, discriminative.two_sided, concepts)
    cards = [
        _card(statistics, number, kinds[number], int(group[number]), files[number], near[number], store, dataset)
        for number in range(len(features))
    ]
    environment = Environment(loader=PackageLoader("sslk.interpret.atlas"), autoescape=True)
    html = environment.get_template("atlas.html").render(
        model=store.spec.model,
        data=store.spec.dataset,
        cards=cards,
        found=discriminative,
        rows=statistics.rows,
        groups=[(number, int(size)) for number, size in enumerate(sizes) if size > 1],
        method=method.name,
        layer=method.layer,
        side=SIDE,
        top=min(top, statistics.rows),
        min_correlation=settings.min_correlation,
        labelled=store.has_labels,
        concepts=concepts is not None,
    )
    write_atomically(folder / PAGE, html.encode("utf-8", "backslashreplace"))
    return Atlas(folder / PAGE, cards, int((sizes > 1).sum()), group, phi, inside, left_out)


def _drawable(statistics: AtlasStatistics, dataset: Dataset, on_corrupt: OnCorrupt) -> tuple[AtlasStatistics, list[str]]:
    """The statistics with -1 for the top images that cannot be read, and their names."""
    check_on_corrupt(on_corrupt)
    asked = statistics.top_rows.unique()
    if on_corrupt == "raise":
        require_readable(dataset, asked.tolist())
        return statistics, []
    readable, left_out = readable_numbers(dataset, asked.tolist())
    known = torch.isin(statistics.top_rows, torch.tensor(readable))
    return replace(statistics, top_rows=torch.where(known, statistics.top_rows, -1)), left_out


def _card(
    statistics: AtlasStatistics,
    number: int,
    kind: str,
    group: int,
    picture: str,
    near: list[dict[str, Any]],
    store: FeatureStore,
    dataset: Dataset,
) -> dict[str, Any]:
    names = store.spec.classes

    def class_name(label: int) -> str:
        return "" if label < 0 else names[label] if label < len(names) else str(label)

    active, by_class = int(statistics.active[number]), statistics.by_class[number]
    order = by_class.argsort(descending=True, stable=True)[:_BARS].tolist()
    bars = [
        {
            "name": class_name(label),
            "count": int(by_class[label]),
            "share": 100 * float(by_class[label]) / max(active, 1),
            "of_class": 100 * float(by_class[label]) / max(int(statistics.class_sizes[label]), 1),
        }
        for label in order
        if by_class[label] > 0
    ]
    top = [
        {"image": dataset.image_name(row), "row": row, "label": class_name(label), "value": value}
        for row, label, value in zip(
            statistics.top_rows[number].tolist(),
            statistics.top_labels[number].tolist(),
            statistics.top_values[number].tolist(),
            strict=True,
        )
        if row >= 0
    ]
    p = by_class.double() / max(active, 1)
    entropy = float(-(p[p > 0] * p[p > 0].log()).sum())
    return {
        "feature": int(statistics.features[number]),
        "kind": kind,
        "percent": 100 * active / statistics.rows,
        "bars": bars,
        "classes": float(np.exp(entropy)) if active and len(p) else None,
        "concepts": near,
        "group": group,
        "picture": f"pictures/{picture}",
        "top": top,
    }


def _nearest(store: FeatureStore, features: Tensor, two_sided: bool, concepts: ConceptTable | None) -> list[list[dict[str, Any]]]:
    """The concepts with the largest correlation with each feature."""
    if concepts is None:
        return [[] for _ in features]
    near: list[list[dict[str, Any]]] = []
    finite = torch.cat([batch.features.isfinite().all(1) for batch in store.batches(4096)])
    indices = torch.cat([shard.indices for shard in store.shards()])[finite]
    matrix = concepts.join(indices).dense().numpy()
    for part in features.split(max(1, _BLOCK_BYTES // (8 * len(store)))):
        columns = []
        for batch in store.batches(4096):
            unit = F.normalize(batch.features.float())
            columns.append(((unit - unit.mean(1, keepdim=True)).abs() if two_sided else unit)[:, part])
        correlation, auroc = concept_scores(torch.cat(columns)[finite].numpy(), matrix)
        for r, a in zip(correlation, auroc, strict=True):
            order = [m for m in np.argsort(-np.nan_to_num(r, nan=-2.0), kind="stable")[:_CONCEPTS] if not np.isnan(r[m])]
            near.append([{"name": concepts.names[m], "r": float(r[m]), "auroc": float(a[m])} for m in order])
    return near


def _spread(found: DiscriminativeFeatures, mask: Tensor, count: int) -> Tensor:
    """Up to `count` features of a tail that activate at all, evenly spread over their activation percentages."""
    rows = (mask & (found.activation_percent > 0)).nonzero().squeeze(1)
    rows = rows[found.activation_percent[rows].argsort(stable=True)]
    if len(rows) <= count:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, count).round().long()] if count else rows[:0]


def _check(store: FeatureStore, dataset: Dataset, found: DiscriminativeFeatures, concepts: ConceptTable | None) -> None:
    if found.num_features != store.num_features:
        raise ValueError(
            f"discriminative was found for D={found.num_features} features but the store has D={store.num_features}: "
            "it belongs to another model."
        )
    if len(dataset) != store.spec.samples:
        raise ValueError(
            f"dataset must be the one the store was extracted from, {store.spec.dataset} with {store.spec.samples} "
            f"images; {dataset.name} has {len(dataset)}."
        )
    if dataset.transform is not None:
        raise ValueError("dataset must give untransformed images here, its transform must be None.")
    if concepts is not None:
        numbers = torch.cat([shard.indices for shard in store.shards()])
        if not bool(torch.isin(numbers, concepts.samples).all()) or int(concepts.samples.max()) >= len(dataset):
            raise ValueError(f"concepts must have one row per image, got {len(concepts)} for {len(store)} of {dataset.name}.")
