"""The masked-input study: from images to matrices in one call, resumable, everything in one folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from sslk.data import Dataset
from sslk.data.source import DataSource
from sslk.distributed import require_device
from sslk.features import FeatureStore
from sslk.features.settings import ExtractSettings
from sslk.features.unreadable import left_out_of, require_readable, with_left_out
from sslk.masked.evaluation import folds_of
from sslk.masked.extract import extract_variants
from sslk.masked.images import MaskedImages, choose_images
from sslk.masked.masks import Masks, build_masks
from sslk.masked.run_parts import StudyNumbers
from sslk.masked.segmenters import segmenter as segmenter_by_name
from sslk.masked.settings import StudySettings
from sslk.masked.study_run import study_run
from sslk.masked.variants import VariantRenderer
from sslk.models import evaluation_transform
from sslk.models.source import ModelSource
from sslk.progress import Progress, renamed
from sslk.results.provenance import provenance
from sslk.results.run import Run


def masked_study(
    models: Sequence[ModelSource],
    data: DataSource,
    out: str | os.PathLike[str],
    settings: StudySettings = StudySettings(),  # noqa: B008 (frozen)
    extraction: ExtractSettings = ExtractSettings(batch_size=128, shard_rows=1024, workers=0),  # noqa: B008
    *,
    progress: Progress | None = None,
) -> Run:
    """Find masks, extract every variant under every model, and compare them.

    Interrupted, the same call goes on: masks and features are kept in `out/masks` and `out/features`.

    Args:
        models: a name without weights is a random control.
        data: the images.
        out: folder for masks and features.
        settings: the segmenter, used where a variant needs the foreground, and what to compute.
        extraction: batches and device, a GPU where there is one; and whether an unreadable image ends the study, or is left
            out of masks and features alike, counted and listed.
        progress: called with what is done, what is to do, and the name of the step.

    Returns:
        The run, with all figures and their numbers; save it where you like.

    Raises:
        ValueError: two models would share a folder, a class has one sample, or what
            `load_dataset`, `load_backbone` and `build_masks` raise.

    >>> import tempfile
    >>> tiny = StudySettings(variants=("original", "center"), images=60, umap_share=0, resamples=20, folds=2)
    >>> run = masked_study([ModelSource("embedded")], DataSource("sample"), tempfile.mkdtemp(), tiny)
    >>> run.kind, run.summary["images"]
    ('masked', 60)
    """
    device = str(require_device(extraction.device))
    extraction = replace(extraction, device=device)
    _check_names(models)
    folder = Path(out)
    dataset = data.load()
    needs_masks = VariantRenderer(settings.variants, radius=settings.radius).needs_foreground
    chosen = choose_images(dataset, settings.images, settings.seed)
    masks: Masks | None = None
    if extraction.on_corrupt == "raise" and not needs_masks:  # the masks look for themselves
        require_readable(dataset, chosen)
    if needs_masks:
        found = segmenter_by_name(settings.segmenter, device, settings.segment_side)
        masks = build_masks(dataset, found, folder / "masks", indices=chosen, on_corrupt=extraction.on_corrupt, progress=progress)
    _check_labels(dataset, masks, chosen, settings)
    stores: dict[str, FeatureStore] = {}
    shown: MaskedImages | None = None
    normalization: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
    upsampled: dict[str, int] = {}
    for entry in models:
        backbone = entry.load()
        transform = evaluation_transform(backbone, image_size=entry.image_size)
        images = MaskedImages(dataset, transform, masks, indices=chosen, on_bad_mask=settings.on_bad_mask)
        upsampled[entry.label] = images.upsampled
        if shown is None or transform.size > shown.geometry.size:  # the sheet of variants shows the largest images
            shown, normalization = images, (backbone.mean, backbone.std)

        stores[entry.label] = extract_variants(
            backbone,
            images,
            folder / "features" / entry.folder,
            VariantRenderer(settings.variants, backbone.mean, backbone.std, settings.radius),
            extraction,
            progress=renamed(progress, f"features of {entry.label}"),
        )
    assert shown is not None
    first = next(iter(stores.values()))
    left_out = [] if masks is None else [dataset.image_name(number) for number in masks.unreadable.tolist()]
    left_out += left_out_of(first, dataset, shown.indices)
    numbers = StudyNumbers(
        dataset=dataset.name,
        settings=settings,
        segmenter=None if masks is None else masks.settings,
        images=shown,
        normalization=normalization,
        random_models=tuple(entry.label for entry in models if entry.random),
        upsampled=upsampled,
        stores=stores,
        device=device,
    )
    origin: dict[str, Any] = {
        "command": "masked study",
        "models": [entry.model for entry in models],
        "seed": settings.seed,
        "config": asdict(settings),
        "data": f"{dataset.name}, {len(first)} of {len(dataset)} images",
        "weights": {label: store.spec.weights_hash for label, store in stores.items()},
    }
    run = study_run(numbers, provenance(origin), progress or (lambda done, total, stage: None))
    return with_left_out(run, left_out, len(chosen))


def _check_names(models: Sequence[ModelSource]) -> None:
    if not models:
        raise ValueError("models must name at least one model, got none.")
    folders = [entry.folder for entry in models]
    for folder in folders:
        if folders.count(folder) > 1:
            raise ValueError(f"models must differ in name or checkpoint file, but two are called {folder!r}.")


def _check_labels(dataset: Dataset, masks: Masks | None, chosen: Any, settings: StudySettings) -> None:
    """Refuse before long work what cross-validation would refuse after it."""
    if dataset.labels is None or not settings.folds:
        return
    kept = chosen if masks is None else masks.indices
    if masks is not None and settings.on_bad_mask == "drop":
        kept = masks.indices[~(masks.empty | masks.full | masks.resized)]
    labels = torch.from_numpy(dataset.labels[kept])
    if bool((labels >= 0).any()):
        folds_of(labels[labels >= 0], settings.folds)
