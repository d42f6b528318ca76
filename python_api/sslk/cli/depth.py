"""`sslk depth`: one network, layer by layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from sslk.cli.console import FLAT, Output
from sslk.evaluation.settings import DepthSettings
from sslk.features.settings import ExtractSettings
from sslk.models.source import ModelSource


def depth(
    *,
    model: Annotated[ModelSource, FLAT],
    data: str,
    out: str,
    concepts: str | None = None,
    root: str | None = None,
    settings: Annotated[DepthSettings, FLAT] = DepthSettings(),  # noqa: B008 (frozen)
    extraction: ExtractSettings = ExtractSettings(),  # noqa: B008
    output: Annotated[Output, FLAT] = Output(),  # noqa: B008
) -> None:
    """Measure a network layer by layer: Q-Score, probes, CKA between layers, reverse probing, with a figure over depth.

    All layers are extracted in one forward pass, into a store each below OUT, which every other command takes. Interrupted,
    the same command goes on.

    Examples:
        $ sslk depth --model embedded --data sample --out runs/depth
        $ sslk depth --model timm:vit_small_patch16_224@dino.pth --layer 2 5 8 11 --token cls mean --data cifar10 --out runs/d

    Args:
        data: name of a data set with a training and a test split, or TRAIN+TEST.
        out: folder of the stores and the run.
        concepts: table of the training images, for reverse probing.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        extraction: batches, precision, device.
    """
    from sslk.concepts import read_concepts
    from sslk.evaluation import depth_study
    from sslk.features.by_layer import extract_pairs

    model = model if model.layer else replace(model, layer=("all",))
    table = None if concepts is None else read_concepts(concepts)
    with output.progress() as update:
        stores = extract_pairs(model, data, Path(out) / "features", extraction, root=root, progress=update)
        run = depth_study(stores, settings, concepts=table, device=extraction.device, out=out, progress=update)
    output.leave(run, out)
