"""`sslk interpret`: what features look at."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from sslk.cli.console import FLAT, Output
from sslk.data.source import DataSource, OnCorrupt
from sslk.interpret.settings import AtlasSettings, Gallery, GallerySettings, MaskSettings, MiouSettings
from sslk.models.source import ModelSource


def heatmaps(
    *,
    model: Annotated[ModelSource, FLAT],
    data: Annotated[DataSource, FLAT],
    discriminative: str,
    out: str,
    images: list[int] = [],  # noqa: B006 (never written to)
    features: list[int] = [],  # noqa: B006
    further_trained: bool = False,
    on_corrupt: OnCorrupt = "raise",
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Draw what the discriminative features look at in some images: one picture and the maps as numbers.

    Examples:
        $ sslk interpret heatmaps --model embedded --data sample --discriminative set.safetensors --out heat --images 0 9

    Args:
        discriminative: file that `sslk qscore discover` wrote.
        out: folder for heatmaps.png, heatmaps.safetensors and results.json.
        images: numbers of images in the data set; 12 spread over it by default.
        features: also single features, each in its own row.
        further_trained: the encoder was trained further since the set was found, so that its weights are others.
        on_corrupt: an unreadable image ends the work, or is left out, counted and listed.
        device: where the model runs.
        json: print one JSON object.
    """
    from sslk.distributed import require_device
    from sslk.interpret import heatmap_study
    from sslk.quality import load_set

    require_device(device)
    backbone, dataset = model.load(device=device), data.load()
    found = load_set(discriminative, backbone, further_trained=further_trained)
    run = heatmap_study(backbone, dataset, found, images, features, device=device, on_corrupt=on_corrupt)
    Output(json).leave(run, out)


def miou(
    *,
    model: Annotated[ModelSource, FLAT],
    data: Annotated[DataSource, FLAT],
    discriminative: str,
    out: str,
    masks: Annotated[MaskSettings, FLAT] = MaskSettings(),  # noqa: B008 (frozen)
    settings: Annotated[MiouSettings, FLAT] = MiouSettings(),  # noqa: B008
    after: str | None = None,
    further_trained: bool = False,
    device: str = "cpu",
    output: Annotated[Output, FLAT] = Output(),  # noqa: B008
) -> None:
    """Measure how well heatmaps agree with core and spurious masks; killed, the same command goes on.

    Examples:
        $ sslk interpret miou --model embedded --data tiny-imagenet:tiny.zip --split val --discriminative S --correct folds --out D
        $ sslk interpret miou --model timm:resnet50@pretrained --data none --masks salient:masks --answers a.csv --discriminative S --out D

    Args:
        discriminative: file that `sslk qscore discover` wrote.
        out: folder for results.json, samples.csv and the figure.
        after: a second checkpoint of the same model, after regularisation, to compare with the same set.
        further_trained: the encoder was trained further since the set was found, so that its weights are others.
        device: where the model runs.
    """  # noqa: E501
    from sslk.distributed import require_device
    from sslk.interpret import data_and_masks, forget_parts, miou_study
    from sslk.quality import load_set

    require_device(device)
    settings.check(1 if after is None else 2)
    images, source = data_and_masks(data, masks)
    backbone = model.load(device=device)
    arms = {model.label: backbone}
    if after is not None:
        arms = {"before": backbone, "after": _later(model, after).load(device=device)}
    found = load_set(discriminative, backbone, further_trained=further_trained)
    with output.progress() as update:
        run = miou_study(arms, images, source, found, settings, out=out, further_trained=further_trained, progress=update)
    output.leave(run, out)
    forget_parts(out)


def atlas(
    store: str,
    *,
    model: Annotated[ModelSource, FLAT],
    data: Annotated[DataSource, FLAT],
    discriminative: str,
    out: str,
    settings: Annotated[AtlasSettings, FLAT] = AtlasSettings(),  # noqa: B008
    concepts: str | None = None,
    further_trained: bool = False,
    device: str = "cpu",
    output: Annotated[Output, FLAT] = Output(),  # noqa: B008
) -> None:
    """Write a browsable page about every discriminative feature: images, heatmaps, classes, concepts, groups.

    Examples:
        $ sslk interpret atlas runs/sample-test --model embedded --data sample --discriminative S --out D

    Args:
        store: folder of the feature store of this data set under this model.
        discriminative: file that `sslk qscore discover` wrote.
        out: folder for index.html, pictures and results.json.
        concepts: a table of `sslk concepts build`, or one made by hand: .npz (matrix, names) or .csv of 0 and 1.
        further_trained: the encoder was trained further since the set was found, so that its weights are others.
        device: where the model runs.
    """
    from sslk.concepts import read_concepts
    from sslk.distributed import require_device
    from sslk.features import FeatureStore
    from sslk.interpret import atlas_study
    from sslk.quality import load_set

    require_device(device)
    opened = FeatureStore(store).require_extracted()
    backbone = model.load(device=device)
    found = load_set(discriminative, backbone, further_trained=further_trained)
    table = None if concepts is None else read_concepts(concepts)
    with output.progress() as update:
        run = atlas_study(opened, backbone, data.load(), found, out, settings, concepts=table, progress=update)
    output.leave(run, out)


def gallery(
    *,
    kind: Gallery,
    model: Annotated[ModelSource, FLAT],
    data: Annotated[DataSource, FLAT],
    out: str,
    discriminative: str | None = None,
    store: str | None = None,
    settings: Annotated[GallerySettings, FLAT] = GallerySettings(),  # noqa: B008
    after: str | None = None,
    further_trained: bool = False,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Draw galleries of heatmaps: random samples, features of classes, principal directions, or before and after.

    Examples:
        $ sslk interpret gallery --kind samples --model embedded --data sample --discriminative S --out D
        $ sslk interpret gallery --kind classes --store runs/test --model embedded --data sample --discriminative S --out D

    Args:
        kind: samples (of any data set, seen or unseen), classes (needs --store), pca (needs --store), compare (images that
            are misclassified before and right after; needs --after).
        out: folder for the pictures and results.json.
        discriminative: file that `sslk qscore discover` wrote; not needed for pca.
        store: feature store of this data set under this model.
        after: a second checkpoint of the same model.
        further_trained: the encoder was trained further since the set was found, so that its weights are others.
        device: where the model runs.
        json: print one JSON object.
    """
    from sslk.distributed import require_device
    from sslk.features import FeatureStore
    from sslk.interpret import gallery_study
    from sslk.quality import load_set

    require_device(device)
    opened = FeatureStore(store).require_extracted() if store else None
    backbone = model.load(device=device)
    found = discriminative and load_set(discriminative, backbone, further_trained=further_trained)
    later = _later(model, after).load(device=device) if after else None
    run = gallery_study(kind, backbone, data.load(), found or None, settings, store=opened, after=later)
    Output(json).leave(run, out)


def _later(model: ModelSource, checkpoint: str) -> ModelSource:
    """The same network with another checkpoint: a packaged encoder's name stands for its own weights."""
    from sslk.models.project import same_network

    return replace(model, model=same_network(model.name), weights=checkpoint)
