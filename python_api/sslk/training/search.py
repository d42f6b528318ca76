"""Trains and judges one pair (lambda1, lambda2): what the two-stage search of `sslk ablation lambdas` calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sslk.data import Dataset
from sslk.models.backbone import Backbone
from sslk.quality.ablation import Train
from sslk.quality.discover import DiscriminativeFeatures
from sslk.training.config import TrainingConfig
from sslk.training.finetune import SET, finetune
from sslk.training.heads import Parts


def lambda_trainer(
    method: str,
    backbone: Backbone,
    parts: Parts | None,
    data: Dataset,
    out: Path,
    config: TrainingConfig,
    *,
    validation_share: float = 0.2,
    discriminative: DiscriminativeFeatures | None = None,
    options: Mapping[str, Any] | None = None,
    report: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Train:
    """The function that `search_lambdas` needs, from an encoder and labelled images.

    A share of the images is held out, the same for all pairs and seeds. A pair is the arm `qscore` of `finetune` on the
    rest, with these lambdas and this seed; it is judged by a linear probe trained on the rest and tested on the images
    held out. The set S is found once. Every pair has a folder below `out`, so that an interruption costs some steps.

    Args:
        method, backbone, parts, options: as for `finetune`.
        data: labelled images; no test images.
        out: folder.
        config: settings; its lambdas and seed are those of each call instead.
        validation_share: share of `data` held out.
        discriminative: the set S of `backbone`; found on the images that train by default.
        report: called with the stage, the steps done and all steps.

    Raises:
        ValueError: no labels, a share that leaves no images on one side, or as for `finetune`.
    """
    if data.labels is None:
        raise ValueError(f"data must have labels, by which the lambdas are judged; {data.name} has none.")
    held_out = round(validation_share * len(data))
    if not 0 < held_out < len(data):
        raise ValueError(f"validation_share must leave images on both sides, got {validation_share} of {len(data)}.")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    rest, validation = data.subset(order[held_out:].sort().values), data.subset(order[:held_out].sort().values)
    found = discriminative

    def train(lambda1: float, lambda2: float, seed: int) -> float:
        nonlocal found
        folder = out / f"{lambda1:g}-{lambda2:g}-{seed}"
        results = finetune(
            method, backbone, parts, rest, folder, replace(config, lambda1=lambda1, lambda2=lambda2, seed=seed),
            arms=("qscore",), test=validation, discriminative=found, options=options, evaluate_start=False,
            report=lambda stage, done, total: report(f"{lambda1:g}, {lambda2:g}, seed {seed}", done, total),
        )  # fmt: skip
        found = found or DiscriminativeFeatures.load(folder / SET)
        top1 = results["qscore"].top1
        assert top1 is not None  # both sides have labels
        return top1

    return train
