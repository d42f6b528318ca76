"""Interpretability from the command line: heatmaps, and their agreement with masks."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import torch

from sslk.commands.console import print_fields, progress_bar
from sslk.data import Dataset, load_dataset
from sslk.interpret import galleries
from sslk.interpret.by_name import data_and_masks, limited
from sslk.interpret.correctness import out_of_fold_correct, read_correct
from sslk.interpret.miou import MaskAgreement, mask_agreement
from sslk.interpret.study import agreement_run, save_pictures
from sslk.models import evaluation_transform, load_backbone
from sslk.quality.belonging import load_set
from sslk.results.provenance import provenance


def heatmaps(
    model: str,
    data: str,
    discriminative: str,
    out: str,
    split: str = "test",
    images: list[int] | None = None,
    features: list[int] | None = None,
    weights: str | None = None,
    further_trained: bool = False,
    root: str | None = None,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Draw what the discriminative features look at in some images: one picture and the maps as numbers.

    Examples:
        $ sslk interpret heatmaps --model embedded --data sample --discriminative set.safetensors --out heat --images 0 9

    Args:
        model: as for `sslk extract`.
        data: as for `sslk extract`.
        discriminative: file that `sslk discover` wrote.
        out: folder for heatmaps.png, heatmaps.safetensors and results.json.
        split: of the data set.
        images: numbers of images in the data set; 12 spread over it by default.
        features: also single features, each in its own row.
        weights: checkpoint of the model.
        further_trained: the encoder was trained further since the set was found, so that its weights are others.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        device: where the model runs.
        json: print one JSON object.
    """
    from safetensors.torch import save_file

    from sslk.interpret.heatmaps import feature_heatmaps
    from sslk.interpret.overlay import overlay

    backbone, dataset, folder = (
        load_backbone(model, weights, device=device),
        load_dataset(data, split, root=root),
        Path(out),
    )
    found_set = load_set(discriminative, backbone, further_trained=further_trained)
    chosen = images or np.unique(np.linspace(0, len(dataset) - 1, 12).astype(int)).tolist()
    if min(chosen) < 0 or max(chosen) >= len(dataset):
        raise ValueError(
            f"images must be from 0 to {len(dataset) - 1} in {dataset.name}, got {min(chosen)} to {max(chosen)}."
        )
    transform = evaluation_transform(backbone)
    batch, pixels = galleries.load_images(dataset, chosen, transform)
    found = feature_heatmaps(backbone, batch.to(device), features, found_set)
    assert found.combined is not None and found.counts is not None
    counts = found.counts.tolist()
    rows = [
        galleries.GalleryRow("image", pixels, [str(number) for number in chosen]),
        galleries.GalleryRow(
            "combined", overlay(pixels, found.combined.cpu().numpy()), [galleries.count_text(n) for n in counts]
        ),
    ]
    tensors = {"combined": found.combined.cpu(), "images": torch.tensor(chosen), "counts": found.counts.cpu()}
    if features and found.per_feature is not None:
        values = found.representations[:, features]
        rows += [
            galleries.GalleryRow(
                f"feature {feature}", overlay(pixels, found.per_feature[:, k].cpu().numpy()),
                [f"{value:.3f}" for value in values[:, k].tolist()],
            )
            for k, feature in enumerate(features)
        ]  # fmt: skip
        tensors |= {"per_feature": found.per_feature.cpu().contiguous(), "features": torch.tensor(features)}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "heatmaps.safetensors")
    figure = galleries.draw_gallery(rows, f"{model} on {dataset.name}: {found.method} at {found.layer}")
    empty = sum(count == 0 for count in counts)
    config = {"model": model, "data": data, "split": split, "weights": weights}
    save_pictures(
        folder, "Heatmaps of the discriminative features", {"heatmaps.png": figure},
        [f"{empty} of {len(chosen)} images have no active discriminative feature and no map."],
        {"images": len(chosen), "without_map": empty, "method": found.method}, config,
    )  # fmt: skip
    print_fields({"file": str(folder / "heatmaps.png"), "images": len(chosen), "without_map": empty,
                  "method": found.method, "layer": found.layer}, json)  # fmt: skip


def miou(
    model: str,
    data: str,
    discriminative: str,
    out: str,
    masks: str = "annotation",
    split: str = "test",
    core: list[str] | None = None,
    void: list[str] | None = None,
    answers: str | None = None,
    images: str | None = None,
    correct: str | None = None,
    correct_after: str | None = None,
    weights: str | None = None,
    after: str | None = None,
    further_trained: bool = False,
    threshold: float = 0.0,
    limit: int | None = None,
    root: str | None = None,
    batch_size: int = 64,
    workers: int = 0,
    device: str = "cpu",
    seed: int = 0,
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Measure how well heatmaps agree with core and spurious masks; killed, the same command goes on.

    Examples:
        $ sslk interpret miou --model embedded --data tiny-imagenet:tiny.zip --discriminative S --correct folds --out D
        $ sslk interpret miou --model timm:resnet50 --data none --masks salient:masks --answers a.csv --discriminative S --out D

    Args:
        model: as for `sslk extract`.
        data: as for `sslk extract`; ignored with salient: masks, which bring their images.
        discriminative: file that `sslk discover` wrote.
        out: folder for results.json, samples.csv and the figure.
        masks: annotation (the data set's boxes, or its classes per pixel with --core), folder:PATH (a masks.csv, or what
            `sslk masks build` wrote, foreground as core), or salient:PATH (Salient ImageNet).
        split: of the data set.
        core: classes whose pixels are core, for data sets with a class per pixel.
        void: classes that are neither core nor spurious.
        answers: Salient ImageNet's table of the workers' answers.
        images: ImageNet's training folder, where the masks of Salient ImageNet come without images.
        correct: folds (out-of-fold linear probes on the same images) or a CSV file with the columns index and correct.
        correct_after: such a file about the second checkpoint, needed where --correct is one.
        weights: checkpoint of the model.
        after: a second checkpoint of the same model, after regularisation, to compare with the same set.
        further_trained: the encoder was trained further since the set was found, so that its weights are others.
        threshold: heat above which a pixel belongs to the map's region.
        limit: only so many images, evenly spread over the data set.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        batch_size: images per forward pass.
        workers: loading processes.
        device: where the model runs.
        seed: of the random features and the folds.
        json: print one JSON object.
        quiet: no progress bar.
    """
    if after and correct not in (None, "folds") and correct_after is None:
        raise ValueError(
            f"correct={correct} says which images the first checkpoint classifies correctly; give --correct-after with "
            "those of the second, or --correct folds."
        )
    dataset, source = data_and_masks(data, split, root, masks, core, void, answers, images)
    dataset, source, numbers = limited(dataset, source, limit)
    arms: dict[str, MaskAgreement] = {}
    for name, path in {"before": weights, **({"after": after} if after else {})}.items():
        backbone = load_backbone(model, path, device=device)
        found_set = load_set(discriminative, backbone, further_trained=further_trained or name == "after")
        with progress_bar(f"heatmaps {name}" if after else "heatmaps", quiet) as update:
            found = mask_agreement(
                backbone, dataset, source, found_set, evaluation_transform(backbone), threshold=threshold, seed=seed,
                keep_representations=correct == "folds", batch_size=batch_size, workers=workers,
                parts=Path(out) / ".parts" / name, progress=update,
            )  # fmt: skip
        told = correct_after if name == "after" and correct_after else correct
        arms[name if after else model] = dataclasses.replace(
            found, correct=_correct(told, found, dataset, numbers, seed), representations=None
        )
    title = f"Heatmaps of {model} and masks of {dataset.name}"
    config = {"model": model, "data": data, "split": split, "masks": masks, "core": core, "void": void, "seed": seed,
              "weights": weights, "after": after, "threshold": threshold, "limit": limit, "correct": correct,
              "eps": found_set.eps, "two_sided": found_set.two_sided, "|S|": found_set.num_discriminative}  # fmt: skip
    if dataset.classes and correct is not None:
        for name, arm in arms.items():
            assert arm.correct is not None
            config[f"accuracy {name}"] = float(arm.correct.mean())
    run = agreement_run(arms, Path(out), title, provenance({"command": "sslk interpret miou", **config}))
    shutil.rmtree(Path(out) / ".parts", ignore_errors=True)
    if json:
        print_fields({"file": str(Path(out) / "results.json"), **run.summary}, True)
        return
    for line in run.findings:
        print(line)
    print(Path(out) / "results.json")


def _correct(
    correct: str | None, found: MaskAgreement, dataset: Dataset, numbers: list[int], seed: int
) -> np.ndarray | None:
    if correct is None:
        return None
    if correct != "folds":
        return read_correct(correct, numbers)
    if dataset.labels is None or found.representations is None:
        raise ValueError(f"correct=folds needs labels, which {dataset.name} has not; give a CSV file instead.")
    return out_of_fold_correct(found.representations, torch.from_numpy(dataset.labels), seed=seed).numpy()
