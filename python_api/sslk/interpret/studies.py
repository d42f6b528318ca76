"""Interpretations as studies: models, images and a set in, a `Run` out."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from sslk.data import Dataset
from sslk.features import FeatureStore
from sslk.interpret import galleries
from sslk.interpret.agreement_run import agreement_run
from sslk.interpret.atlas import AtlasInputs, build_atlas
from sslk.interpret.by_name import limited
from sslk.interpret.comparison import misclassified_before
from sslk.interpret.correctness import out_of_fold_correct, read_correct
from sslk.interpret.heatmaps import feature_heatmaps
from sslk.interpret.masks import MaskSource
from sslk.interpret.miou import AgreementSettings, MaskAgreement, mask_agreement
from sslk.interpret.overlay import overlay
from sslk.interpret.settings import AtlasSettings, Gallery, GallerySettings, MiouSettings
from sslk.models import Backbone, evaluation_transform
from sslk.progress import Progress, renamed
from sslk.quality.belonging import check_set
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.results.atomic import write_atomically
from sslk.results.figure import Picture, picture
from sslk.results.provenance import provenance
from sslk.results.run import Run, RunTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sslk.concepts import ConceptTable

PARTS = ".parts"  # of finished batches, in the folder of an unfinished mIoU


def heatmap_study(
    backbone: Backbone,
    images: Dataset,
    found: DiscriminativeFeatures,
    chosen: Sequence[int] = (),
    features: Sequence[int] = (),
    *,
    device: str = "cpu",
) -> Run:
    """What the discriminative features look at in some images: one picture, and the maps as numbers.

    Args:
        backbone: the model.
        images: of any data set.
        found: the set S of this model.
        chosen: numbers of images in the data set; 12 spread over it by default.
        features: also single features, each in its own row.
        device: where the model runs.

    Raises:
        ValueError: an image that the data set has not.
    """
    numbers = list(chosen) or np.unique(np.linspace(0, len(images) - 1, 12).astype(int)).tolist()
    if min(numbers) < 0 or max(numbers) >= len(images):
        raise ValueError(f"images must be from 0 to {len(images) - 1} in {images.name}, got {min(numbers)} to {max(numbers)}.")
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
    return Run(
        "interpret",
        title,
        [f"{empty} of {len(numbers)} images have no active discriminative feature and no map."],
        _origin("heatmaps", backbone, images, eps=found.eps, chosen=numbers, features=list(features)),
        {"images": len(numbers), "without_map": empty, "method": maps.method, "layer": maps.layer},
        figures=[_photographs("heatmaps", title, figure)],
        files={"heatmaps.safetensors": lambda path: write_atomically(path, save(tensors))},
    )


def miou_study(
    arms: Mapping[str, Backbone],
    images: Dataset,
    masks: MaskSource,
    found: DiscriminativeFeatures,
    settings: MiouSettings = MiouSettings(),  # noqa: B008 (frozen)
    *,
    out: str | PathLike[str] | None = None,
    further_trained: bool = False,
    progress: Progress | None = None,
) -> Run:
    """How well heatmaps agree with core and spurious masks (Kalibhat et al., figure 7), before and after regularisation.

    Args:
        arms: one model, or two of which the second was trained further, by name.
        images, masks: as `data_and_masks` gives them.
        found: the set S of the first model.
        settings: how the agreement is measured.
        out: folder in which finished batches are kept (under `PARTS`), so that the same call goes on.
        further_trained: the first encoder was trained further since the set was found, too.
        progress: called with the images done and to do.

    Raises:
        ValueError: the set belongs to another model, or correctness is asked for and cannot be told.
    """
    settings.check(len(arms))
    name, split, total, regions = images.name, len(arms) > 1, len(images), repr(masks)
    images, masks, numbers = limited(images, masks, settings.limit)
    measured: dict[str, MaskAgreement] = {}
    for place, (arm, backbone) in enumerate(arms.items()):
        check_set(found, backbone, further_trained=further_trained or place > 0)
        asked = AgreementSettings(
            threshold=settings.threshold,
            keep_representations=settings.correct == "folds",
            batch_size=settings.batch_size,
            workers=settings.workers,
            seed=settings.seed,
        )
        agreement = mask_agreement(
            backbone,
            images,
            masks,
            found,
            evaluation_transform(backbone),
            asked,
            parts=None if out is None else Path(out) / PARTS / arm,
            progress=renamed(progress, f"heatmaps {arm}" if split else "heatmaps"),
        )
        told = settings.correct_after if place and settings.correct_after else settings.correct
        correct = _correct(told, agreement, images, numbers, settings.seed)
        measured[arm] = dataclasses.replace(agreement.with_correct(correct), representations=None)
    first = next(iter(arms.values()))
    origin: dict[str, Any] = {
        "command": "interpret miou",
        "model": first.name,
        "data": name,
        "images": total,
        "masks": regions,
        "weights": {arm: backbone.weights_hash[:12] for arm, backbone in arms.items()},
        **vars(settings),
        "eps": found.eps,
        "two_sided": found.two_sided,
        "|S|": found.num_discriminative,
    }
    if images.classes:
        origin |= {f"accuracy {arm}": float(m.correct.mean()) for arm, m in measured.items() if m.correct is not None}
    return agreement_run(measured, f"Heatmaps of {first.name} and masks of {images.name}", provenance(origin))


def atlas_study(
    store: FeatureStore,
    backbone: Backbone,
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
    return Run(
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


def gallery_study(
    kind: Gallery,
    backbone: Backbone,
    images: Dataset,
    found: DiscriminativeFeatures | None = None,
    settings: GallerySettings = GallerySettings(),  # noqa: B008
    *,
    store: FeatureStore | None = None,
    after: Backbone | None = None,
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
    if kind == "pca":
        assert store is not None
        figures["pca"] = galleries.pca_gallery(backbone, store, images, transform, columns=columns)
    elif kind == "classes":
        assert store is not None and found is not None
        for label in settings.labels:
            figures[f"class-{label}"] = galleries.class_gallery(backbone, store, images, found, label, transform, columns=columns)
    elif kind == "compare":
        assert after is not None and found is not None
        check_set(found, after, further_trained=True)
        chosen, text = misclassified_before(backbone, after, images, transform, columns, settings.seed)
        findings = [text]
        title = "Misclassified before, correct after regularisation"
        models: dict[str, nn.Module] = {"before": backbone, "after": after}
        figures["compare"] = galleries.sample_gallery(models, images, chosen, found, transform, title=title)
    else:
        assert found is not None
        draw = np.random.default_rng(settings.seed).choice(len(images), min(columns, len(images)), replace=False)
        figures["samples"] = galleries.sample_gallery({"heatmap": backbone}, images, np.sort(draw).tolist(), found, transform)
    title = f"Gallery of {backbone.name}: {kind}"
    return Run(
        "interpret",
        title,
        findings,
        _origin("gallery", backbone, images, kind=kind, **vars(settings)),
        {"pictures": len(figures)},
        figures=[_photographs(name, title, figure) for name, figure in figures.items()],
    )


def check_weights(store: FeatureStore, backbone: Backbone) -> None:
    """Refuse a store that was extracted with other weights.

    Raises:
        ValueError: the weights differ.
    """
    if backbone.weights_hash != store.spec.weights_hash:
        raise ValueError(
            f"{store.path} was extracted with other weights ({store.spec.model}) than {backbone.name} has here: give the "
            "same model and weights."
        )


def forget_parts(out: str | PathLike[str]) -> None:
    """Remove what an unfinished `miou_study` kept in its folder, once its run is saved."""
    shutil.rmtree(Path(out) / PARTS, ignore_errors=True)


def _origin(command: str, backbone: Backbone, images: Dataset, **settings: Any) -> dict[str, Any]:
    model = {"model": backbone.name, "weights": backbone.weights_hash[:12], "data": images.name}
    return provenance({"command": f"interpret {command}", **model, **settings})


def _photographs(name: str, title: str, figure: Figure) -> Picture:
    return picture(name, title, f"{title}: images and heatmaps", lambda: figure, kind="png", dpi=130)


def _correct(correct: str | None, found: MaskAgreement, images: Dataset, numbers: list[int], seed: int) -> np.ndarray | None:
    if correct is None:
        return None
    if correct != "folds":
        return read_correct(correct, numbers)
    if images.labels is None or found.representations is None:
        raise ValueError(f"correct=folds needs labels, which {images.name} has not; give a CSV file instead.")
    return out_of_fold_correct(found.representations, torch.from_numpy(images.labels), seed=seed).numpy()
