"""Pages and pictures of features from the command line: the feature atlas and galleries of heatmaps."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch

from sslk.commands.console import print_fields, progress_bar
from sslk.data import load_dataset
from sslk.features.store import FeatureStore
from sslk.interpret import galleries
from sslk.interpret.study import save_pictures
from sslk.models import Backbone, evaluation_transform, load_backbone
from sslk.quality.belonging import check_set, load_set
from sslk.results.run import RunTable


def atlas(
    store: str,
    model: str,
    data: str,
    discriminative: str,
    out: str,
    split: str = "test",
    weights: str | None = None,
    further_trained: bool = False,
    concepts: str | None = None,
    top: int = 8,
    tail_features: int = 8,
    root: str | None = None,
    device: str = "cpu",
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Write a browsable page about every discriminative feature: images, heatmaps, classes, concepts, groups.

    Examples:
        $ sslk interpret atlas runs/sample-test --model embedded --data sample --discriminative S --out D

    Args:
        store: folder of the feature store of this data set under this model.
        model: as for `sslk extract`.
        data: the data set the store was extracted from.
        discriminative: file that `sslk discover` wrote.
        out: folder for index.html, pictures and results.json.
        split: of the data set.
        weights: checkpoint of the model.
        further_trained: the encoder was trained further since the set was found, so that its weights are others.
        concepts: table of concepts, .npz (matrix, names) or .csv of 0 and 1.
        top: images per feature.
        tail_features: features of each tail, for contrast.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        device: where the model runs.
        json: print one JSON object.
        quiet: no progress bar.
    """
    from sslk.interpret.atlas import build_atlas
    from sslk.interpret.concepts import ConceptTable

    opened, folder = FeatureStore(store), Path(out)
    backbone, dataset = _loaded(opened, model, weights, device), load_dataset(data, split, root=root)
    found_set = load_set(discriminative, backbone, further_trained=further_trained)
    table = None if concepts is None else ConceptTable.load(concepts)
    with progress_bar("drawing features", quiet) as update:
        built = build_atlas(
            opened, backbone, dataset, found_set, folder, evaluation_transform(backbone), concepts=table, top=top,
            tail_features=tail_features, progress=update,
        )  # fmt: skip
    figure = galleries.coactivation_figure(built.correlation, built.group[: len(built.features)])
    alone = int((built.group[: len(built.features)] < 0).sum())
    rows = [[card["feature"], card["kind"], card["percent"], card["group"] + 1 or None,
             card["bars"][0]["name"] if card["bars"] else None, card["bars"][0]["share"] if card["bars"] else None,
             card["concepts"][0]["name"] if card["concepts"] else None] for card in built.cards]  # fmt: skip
    columns = ["feature", "kind", "activation [%]", "group", "first class", "its share [%]", "nearest concept"]
    save_pictures(
        folder, f"Feature atlas of {model}", {"groups.png": figure},
        [f"{len(built.features)} discriminative features form {built.groups} groups that fire together; {alone} are alone.",
         f"The page is {built.page.name} in this folder."],
        {"features": len(built.cards), "groups": built.groups, "alone": alone},
        {"model": model, "data": data, "split": split, "weights": weights}, [RunTable("Features", columns, rows)],
    )  # fmt: skip
    print_fields({"page": str(built.page), "features": len(built.cards), "groups": built.groups}, json)


def gallery(
    kind: Literal["samples", "classes", "pca", "compare"],
    model: str,
    data: str,
    out: str,
    discriminative: str | None = None,
    store: str | None = None,
    split: str = "test",
    labels: list[int] | None = None,
    weights: str | None = None,
    further_trained: bool = False,
    after: str | None = None,
    columns: int = 8,
    root: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    json: bool = False,
) -> None:
    """Draw galleries of heatmaps: random samples, features of classes, principal directions, or before and after.

    Examples:
        $ sslk interpret gallery --kind samples --model embedded --data sample --discriminative S --out D
        $ sslk interpret gallery --kind classes --store runs/test --model embedded --data sample --discriminative S --out D

    Args:
        kind: samples (of any data set, seen or unseen), classes (needs --store), pca (needs --store), compare (images that
            are misclassified before and right after; needs --after).
        model: as for `sslk extract`.
        data: as for `sslk extract`.
        out: folder for the pictures and results.json.
        discriminative: file that `sslk discover` wrote; not needed for pca.
        store: feature store of this data set under this model.
        split: of the data set.
        labels: classes to draw; the first three by default.
        weights: checkpoint of the model.
        further_trained: the encoder was trained further since the set was found, so that its weights are others.
        after: a second checkpoint of the same model.
        columns: images per row.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        device: where the model runs.
        seed: of the random samples and the folds.
        json: print one JSON object.
    """
    from sslk.interpret.comparison import misclassified_before

    needed = {"samples": "discriminative", "classes": "store", "pca": "store", "compare": "after"}[kind]
    if {"discriminative": discriminative, "store": store, "after": after}[needed] is None:
        raise ValueError(f"the gallery of kind {kind!r} needs --{needed}.")
    if kind != "pca" and discriminative is None:
        raise ValueError(f"the gallery of kind {kind!r} needs --discriminative.")
    opened = None if store is None else FeatureStore(store)
    backbone = (
        load_backbone(model, weights, device=device) if opened is None else _loaded(opened, model, weights, device)
    )
    dataset, folder, transform = load_dataset(data, split, root=root), Path(out), evaluation_transform(backbone)
    found = None if discriminative is None else load_set(discriminative, backbone, further_trained=further_trained)
    findings: list[str] = []
    if kind == "pca" and opened is not None:
        figures = {"pca.png": galleries.pca_gallery(backbone, opened, dataset, transform, columns=columns)}
    elif kind == "classes" and opened is not None and found is not None:
        figures = {
            f"class-{label}.png": galleries.class_gallery(
                backbone, opened, dataset, found, label, transform, columns=columns
            )
            for label in (labels or [0, 1, 2])
        }
    elif kind == "compare" and after is not None and found is not None:
        later = load_backbone(model, after, device=device)
        check_set(found, later, further_trained=True)
        chosen, text = misclassified_before(backbone, later, dataset, transform, columns, seed)
        findings = [text]
        models: dict[str, torch.nn.Module] = {"before": backbone, "after": later}
        figures = {"compare.png": galleries.sample_gallery(
            models, dataset, chosen, found, transform, title="Misclassified before, correct after regularisation"
        )}  # fmt: skip
    else:
        assert found is not None
        draw = np.random.default_rng(seed).choice(len(dataset), min(columns, len(dataset)), replace=False)
        shown: dict[str, torch.nn.Module] = {"heatmap": backbone}
        figures = {"samples.png": galleries.sample_gallery(shown, dataset, np.sort(draw).tolist(), found, transform)}
    files = list(figures)
    save_pictures(folder, f"Gallery of {model}: {kind}", figures, findings, {"pictures": len(files)},
              {"model": model, "data": data, "split": split, "weights": weights})  # fmt: skip
    print_fields({"files": ", ".join(str(folder / file) for file in files)}, json)


def _loaded(store: FeatureStore | None, model: str, weights: str | None, device: str) -> Backbone:
    """The model, refused if the store was extracted with other weights."""
    backbone = load_backbone(model, weights, device=device)
    if store is not None and backbone.weights_hash != store.spec.weights_hash:
        raise ValueError(
            f"{store.path} was extracted with other weights ({store.spec.model}) than {model} has here: give the same "
            "--model and --weights."
        )
    return backbone
