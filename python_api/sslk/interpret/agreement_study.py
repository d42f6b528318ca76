"""The mIoU protocol as a study: models, images and masks in, a `Run` out; killed, the same call goes on."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sslk.data import Dataset
from sslk.features.unreadable import with_left_out
from sslk.interpret.agreement_run import agreement_run
from sslk.interpret.by_name import limited
from sslk.interpret.correctness import out_of_fold_correct, read_correct
from sslk.interpret.masks import MaskSource
from sslk.interpret.miou import AgreementSettings, MaskAgreement, mask_agreement
from sslk.interpret.settings import MiouSettings
from sslk.models import as_backbone, evaluation_transform
from sslk.progress import Progress, renamed
from sslk.quality.belonging import check_set
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.results.provenance import provenance
from sslk.results.run import Run

PARTS = ".parts"  # of finished batches, in the folder of an unfinished mIoU


def miou_study(
    arms: Mapping[str, nn.Module],
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
        arms: one model, a `Backbone` or a bare module, or two of which the second was trained further, by name.
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
    backbones = {arm: as_backbone(model) for arm, model in arms.items()}
    name, split, total, regions = images.name, len(arms) > 1, len(images), repr(masks)
    chosen = limited(images, masks, settings.limit, settings.on_corrupt)
    images, masks, numbers = chosen.images, chosen.masks, chosen.numbers
    measured: dict[str, MaskAgreement] = {}
    for place, (arm, backbone) in enumerate(backbones.items()):
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
    first = next(iter(backbones.values()))
    origin: dict[str, Any] = {
        "command": "interpret miou",
        "model": first.name,
        "data": name,
        "images": total,
        "masks": regions,
        "weights": {arm: backbone.weights_hash[:12] for arm, backbone in backbones.items()},
        **vars(settings),
        "eps": found.eps,
        "two_sided": found.two_sided,
        "|S|": found.num_discriminative,
    }
    if images.classes:
        origin |= {f"accuracy {arm}": float(m.correct.mean()) for arm, m in measured.items() if m.correct is not None}
    run = agreement_run(measured, f"Heatmaps of {first.name} and masks of {images.name}", provenance(origin), numbers)
    return with_left_out(run, chosen.left_out, len(numbers) + len(chosen.left_out))


def forget_parts(out: str | PathLike[str]) -> None:
    """Remove what an unfinished `miou_study` kept in its folder, once its run is saved."""
    shutil.rmtree(Path(out) / PARTS, ignore_errors=True)


def _correct(correct: str | None, found: MaskAgreement, images: Dataset, numbers: list[int], seed: int) -> np.ndarray | None:
    if correct is None:
        return None
    if correct != "folds":
        return read_correct(correct, numbers)
    if images.labels is None or found.representations is None:
        raise ValueError(f"correct=folds needs labels, which {images.name} has not; give a CSV file instead.")
    return out_of_fold_correct(found.representations, torch.from_numpy(images.labels), seed=seed).numpy()
