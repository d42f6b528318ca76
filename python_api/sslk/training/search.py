"""Trains and judges one pair (lambda1, lambda2): what the two-stage search of `sslk train lambdas` calls."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import torch

from sslk.data import Dataset
from sslk.probes.logreg_draws import held_out
from sslk.progress import Progress, renamed
from sslk.quality.ablation import Train
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.training.config import TrainingConfig
from sslk.training.finetune import finetune
from sslk.training.prepare import SET
from sslk.training.start import TrainingStart


def lambda_trainer(
    start: TrainingStart, out: Path, config: TrainingConfig, *, validation_share: float = 0.2, progress: Progress | None = None
) -> Train:
    """The function that `search_lambdas` needs, from an encoder and labelled images.

    A share of every class is held out, the same for all pairs and seeds. A pair is the arm `qscore` of `finetune` on the
    rest, with these lambdas and this seed; it is judged by a linear probe trained on the rest and tested on the images
    held out. The set S is found once. Every pair has a folder below `out`, so that an interruption costs some steps.

    Args:
        start: encoder, method and labelled images, none of them test images; the set S is found on those that train by
            default.
        out: folder.
        config: settings; its lambdas and seed are those of each call instead.
        validation_share: share of the images held out.
        progress: called with the steps done, all steps, and which training it is.

    Raises:
        ValueError: no labels, a share that leaves no images on one side, or as for `finetune`.
    """
    rest, validation = held_out_images(start.images, validation_share)
    found = start.discriminative

    def train(lambda1: float, lambda2: float, seed: int) -> float:
        nonlocal found
        folder = out / f"{lambda1:g}-{lambda2:g}-{seed}"
        pair = replace(config, lambda1=lambda1, lambda2=lambda2, seed=seed)
        results = finetune(
            replace(start, images=rest, discriminative=found),
            folder,
            pair,
            arms=("qscore",),
            test=validation,
            evaluate_start=False,
            progress=renamed(progress, f"{lambda1:g}, {lambda2:g}, seed {seed}"),
        )
        found = found or DiscriminativeFeatures.load(folder / SET)
        top1 = results["qscore"].top1
        assert top1 is not None  # both sides have labels
        return top1

    return train


def held_out_images(data: Dataset, share: float, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Labelled images in two parts: those that train, and a share of every class that judges.

    Raises:
        ValueError: no labels, or a share that leaves no images on one side.

    >>> from sslk.data import load_dataset
    >>> [len(part) for part in held_out_images(load_dataset("sample", "train"), 0.2)]
    [1600, 400]
    """
    if data.labels is None:
        raise ValueError(f"data must have labels, by which trainings are judged; {data.name} has none.")
    _, targets = torch.unique(torch.as_tensor(data.labels), return_inverse=True)
    held = held_out(targets, share, seed) if 0 < share < 1 else torch.zeros(0)
    if not 0 < int(held.sum()) < len(data):
        raise ValueError(f"validation_share must leave images on both sides, got {share} of {len(data)}.")
    return data.subset((~held).nonzero().squeeze(1)), data.subset(held.nonzero().squeeze(1))


def train_function(target: str) -> Train:
    """One's own function from its name, `MODULE:FUNCTION`; modules in the working directory are found.

    Raises:
        ValueError: it cannot be imported, or is no function.
    """
    module, _, name = target.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a module in the working directory, as `python -m` finds it
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"train must be MODULE:FUNCTION, {target!r} cannot be imported: {error}.") from error
    if not callable(function):
        raise ValueError(f"train must name a function, {target!r} is a {type(function).__name__}.")
    return function
