"""Interpretations as studies: models, images and a set in, a `Run` out."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from sslk.data import Dataset
from sslk.data.source import OnCorrupt
from sslk.features import FeatureStore
from sslk.features.unreadable import left_out_of, readable_numbers, with_left_out
from sslk.interpret import galleries
from sslk.interpret.atlas import AtlasInputs, build_atlas
from sslk.interpret.comparison import misclassified_before
from sslk.interpret.heatmaps import feature_heatmaps
from sslk.interpret.overlay import overlay
from sslk.interpret.settings import AtlasSettings, Gallery, GallerySettings
from sslk.models import Backbone, as_backbone, evaluation_transform
from sslk.progress import Progress
from sslk.quality.belonging import check_set
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.results.atomic import write_atomically
from sslk.results.figure import Picture, picture
from sslk.results.provenance import provenance
from sslk.results.run import Run, RunTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sslk.concepts import ConceptTable


def heatmap_study(
    backbone: nn.Module,
    images: Dataset,
    found: DiscriminativeFeatures,
    chosen: Sequence[int] = (),
    features: Sequence[int] = (),
    *,
    device: str = "cpu",
    on_corrupt: OnCorrupt = "raise",
) -> Run:
    """What the discriminative features look at in some images: one picture, and the maps as numbers.

    Args:
        backbone: the model, a `Backbone` or a bare module.
        images: of any data set.
        found: the set S of this model.
        chosen: numbers of images in the data set; 12 spread over it by default.
        features: also single features, each in its own row.
        device: where the model runs.
        on_corrupt: an image that cannot be read ends the work, or is left out, counted and listed.

    Raises:
        ValueError: an image that the data set has not, or one that cannot be read.
    """
    backbone = as_backbone(backbone)
    asked = list(chosen) or np.unique(np.linspace(0, len(images) - 1, 12).astype(int)).tolist()
    if min(asked) < 0 or max(asked) >= len(images):
        raise ValueError(f"images must be from 0 to {len(images) - 1} in {images.name}, got {min(asked)} to {max(asked)}.")
    numbers, left_out = readable_numbers(images, asked, on_corrupt)
    batch, pixels = galleries.load_images(images, numbers, evaluation_transform(backbone))
    maps = feature_heatmaps(backbone, batch.to(device), list(features) or None, found)
    assert maps.combined is not None and maps.counts is not None
    counts = maps.counts.tolist()
    rows = [
        galleries.GalleryRow("image", pixels, [str(number) for number in numbers]),
        galleries.GalleryRow("combined", overlay(pixels, maps.combined.cpu().numpy()), [galleries.count_text(n) for n in counts]),
    ]
    tensors = {"combined": maps.combined.cpu(), "images": torch.tensor(numbers), "counts": maps.counts.cpu()}
    if features and maps.per_feature is not None:
        values = maps.representations[:, list(features)]
        rows += [
            galleries.GalleryRow(
                f"feature {feature}",
                overlay(pixels, maps.per_feature[:, k].cpu().numpy()),
                [f"{value:.3f}" for value in values[:, k].tolist()],
            )
            for k, feature in enumerate(features)
        ]
        tensors |= {"per_feature": maps.per_feature.cpu().contiguous(), "features": torch.tensor(list(features))}
    empty = sum(count == 0 for count in counts)
    figure = galleries.draw_gallery(rows, f"{backbone.name} on {images.name}: {maps.method} at {maps.layer}")
    title = "Heatmaps of the discriminative features"
    run = Run(
        "interpret",
        title,
        [f"{empty} of {len(numbers)} images have no active discriminative feature and no map."],
        _origin("heatmaps", backbone, images, eps=found.eps, chosen=numbers, features=list(features)),
        {"images": len(numbers), "without_map": empty, "method": maps.method, "layer": maps.layer},
        figures=[_photographs("heatmaps", title, figure)],
        files={"heatmaps.safetensors": lambda path: write_atomically(path, save(tensors))},
    )
    return with_left_out(run, left_out, len(asked))


def atlas_study(
    store: FeatureStore,
    backbone: nn.Module,
    images: Dataset,
    found: DiscriminativeFeatures,
    out: str | PathLike[str],
    settings: AtlasSettings = AtlasSettings(),  # noqa: B008
    *,
    concepts: ConceptTable | None = None,
    progress: Progress | None = None,
) -> Run:
    """A browsable page about every discriminative feature, see `build_atlas`.

    Args:
        store: the representations of the images under the model.
        backbone, images, found: the model, what the store was extracted from, the set S.
        out: folder of the page.
        settings: what it shows.
        concepts: which images have which concepts.
        progress: called with the features drawn and to draw.

    Raises:
        ValueError: set, images, concepts or weights do not belong to the store.
    """
    backbone = as_backbone(backbone)
    check_weights(store, backbone)
    inputs = AtlasInputs(store, backbone, images, found, evaluation_transform(backbone), concepts)
    built = build_atlas(inputs, out, settings, progress=progress)
    group = built.group[: len(built.features)]
    alone = int((group < 0).sum())
    rows = [
        [
            card["feature"],
            card["kind"],
            card["percent"],
            card["group"] + 1 or None,
            card["bars"][0]["name"] if card["bars"] else None,
            card["bars"][0]["share"] if card["bars"] else None,
            card["concepts"][0]["name"] if card["concepts"] else None,
        ]
        for card in built.cards
    ]
    columns = ["feature", "kind", "activation [%]", "group", "first class", "its share [%]", "nearest concept"]
    title = f"Feature atlas of {backbone.name}"
    figure = galleries.coactivation_figure(built.correlation, group)
    run = Run(
        "interpret",
        title,
        [
            f"{len(built.features)} discriminative features form {built.groups} groups that fire together; {alone} are alone.",
            f"The page is {built.page.name} in this folder.",
        ],
        _origin("atlas", backbone, images, eps=found.eps, **vars(settings)),
        {"features": len(built.cards), "groups": built.groups, "alone": alone},
        [RunTable("Features", columns, rows)],
        [_photographs("groups", title, figure)],
    )
    left_out = dict.fromkeys([*left_out_of(store, images), *built.left_out])
    return with_left_out(run, list(left_out), len(images))


def gallery_study(
    kind: Gallery,
    backbone: nn.Module,
    images: Dataset,
    found: DiscriminativeFeatures | None = None,
    settings: GallerySettings = GallerySettings(),  # noqa: B008
    *,
    store: FeatureStore | None = None,
    after: nn.Module | None = None,
) -> Run:
    """Galleries of heatmaps.

    Args:
        kind: samples (random ones of any data set), classes and pca (need store), compare (images misclassified before
            and right after; needs after).
        backbone, images: the model, and untransformed images.
        found: the set S; not needed for pca.
        settings: what is shown.
        store: the representations of these images under this model.
        after: the encoder trained further.

    Raises:
        ValueError: something that this kind needs is missing, or belongs to another model.
    """
    backbone, after = as_backbone(backbone), None if after is None else as_backbone(after)
    needed = {"samples": found, "classes": store, "pca": store, "compare": after}
    if needed[kind] is None or (kind != "pca" and found is None):
        names = {"samples": "discriminative", "classes": "store", "pca": "store", "compare": "after"}
        missing = names[kind] if needed[kind] is None else "discriminative"
        raise ValueError(f"the gallery of kind {kind!r} needs {missing}.")
    if store is not None:
        check_weights(store, backbone)
    transform, columns = evaluation_transform(backbone), settings.columns
    findings: list[str] = []
    figures: dict[str, Figure] = {}
    left_out: list[str] = []
    noted = left_out if settings.on_corrupt == "skip" else None
    if kind == "pca":
        assert store is not None
        figures["pca"] = galleries.pca_gallery(backbone, store, images, transform, columns=columns, left_out=noted)
    elif kind == "classes":
        assert store is not None and found is not None
        for label in settings.labels:
            figures[f"class-{label}"] = galleries.class_gallery(
                backbone, store, images, found, label, transform, columns=columns, left_out=noted
            )
    elif kind == "compare":
        assert after is not None and found is not None
        check_set(found, after, further_trained=True)
        numbers, left_out = readable_numbers(images, None, settings.on_corrupt)
        chosen, text = misclassified_before(backbone, after, images.subset(numbers), transform, columns, settings.seed)
        chosen, findings = [numbers[place] for place in chosen], [text]
        title = "Misclassified before, correct after regularisation"
        models: dict[str, nn.Module] = {"before": backbone, "after": after}
        figures["compare"] = galleries.sample_gallery(models, images, chosen, found, transform, title=title)
    else:
        assert found is not None
        draw = np.random.default_rng(settings.seed).choice(len(images), min(columns, len(images)), replace=False)
        numbers, left_out = readable_numbers(images, np.sort(draw), settings.on_corrupt)
        figures["samples"] = galleries.sample_gallery({"heatmap": backbone}, images, numbers, found, transform)
    title = f"Gallery of {backbone.name}: {kind}"
    if store is not None:
        left_out = [*left_out_of(store, images), *left_out]
    run = Run(
        "interpret",
        title,
        findings,
        _origin("gallery", backbone, images, kind=kind, **vars(settings)),
        {"pictures": len(figures)},
        figures=[_photographs(name, title, figure) for name, figure in figures.items()],
    )
    return with_left_out(run, list(dict.fromkeys(left_out)), len(images))


def check_weights(store: FeatureStore, backbone: Backbone) -> None:
    """Refuse a store that was extracted with other weights.

    Raises:
        ValueError: the weights differ, or are not known because the features were imported.
    """
    store.require_extracted()
    if backbone.weights_hash != store.spec.weights_hash:
        raise ValueError(
            f"{store.path} was extracted with other weights ({store.spec.model}) than {backbone.name} has here: give the "
            "same model and weights."
        )


def _origin(command: str, backbone: Backbone, images: Dataset, **settings: Any) -> dict[str, Any]:
    model = {"model": backbone.name, "weights": backbone.weights_hash[:12], "data": images.name}
    return provenance({"command": f"interpret {command}", **model, **settings})


def _photographs(name: str, title: str, figure: Figure) -> Picture:
    return picture(name, title, f"{title}: images and heatmaps", lambda: figure, kind="png", dpi=130)
