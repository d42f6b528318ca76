"""`sslk masked`: images with parts removed."""

from __future__ import annotations

from typing import Annotated

from sslk.cli.console import FLAT, Output
from sslk.data.source import DataSource, OnCorrupt
from sslk.features.settings import ExtractSettings
from sslk.masked.settings import StudySettings
from sslk.models.source import ModelSource


def build(
    *,
    data: Annotated[DataSource, FLAT],
    out: str,
    segmenter: str = "grabcut",
    side: int | None = None,
    images: int | None = None,
    seed: int = 0,
    on_corrupt: OnCorrupt = "raise",
    device: str = "cpu",
    quiet: bool = False,
) -> None:
    """Find the foreground of every image of a data set and keep the masks; interrupted, the same command goes on.

    Examples:
        $ sslk masked build --data sample --segmenter grabcut --out runs/masks
        $ sslk masked build --data camvid:camvid_val.zip --split val --segmenter labels:car,pedestrian --out runs/masks

    Args:
        out: folder of the masks.
        segmenter: grabcut, grabcut:box, labels:CLASS,..., boxes, files:FOLDER, deeplab or sam; see docs/masked.md.
        side: shorter side in pixels to which larger images are reduced before they are segmented, 0 for none; 256 for
            grabcut, 520 for deeplab and 768 for sam by default.
        images: size of a random sample; all images by default.
        seed: seed of the sample.
        on_corrupt: an unreadable image ends the work, or is left out, counted and listed.
        device: device of segmenters that are networks.
        quiet: show no progress.
    """
    from sslk.distributed import require_device
    from sslk.features.unreadable import left_out_text
    from sslk.masked import build_masks, choose_images
    from sslk.masked import segmenter as by_name

    require_device(device)
    dataset = data.load()
    found, chosen = by_name(segmenter, device, side), choose_images(dataset, images, seed)
    with Output(quiet=quiet).progress() as update:
        masks = build_masks(dataset, found, out, indices=chosen, on_corrupt=on_corrupt, progress=update)
    print(f"{out}: {masks.summary()}")
    if len(masks.unreadable):
        print(left_out_text([dataset.image_name(number) for number in masks.unreadable.tolist()], len(chosen)))


def preview(
    masks: str, *, data: Annotated[DataSource, FLAT], out: str, count: int = 32, seed: int = 0, on_corrupt: OnCorrupt = "raise"
) -> None:
    """Draw a contact sheet of images with their masks.

    Examples:
        $ sslk masked preview runs/masks --data sample --out masks.png

    Args:
        masks: folder that `sslk masked build` filled.
        out: picture to write, .png or .svg.
        count: images on the sheet.
        seed: which images are drawn.
        on_corrupt: an unreadable image ends the work, or is left out, counted and listed.
    """
    from sslk.files.regular import require_file_name
    from sslk.masked import preview_masks

    require_file_name(out)
    print(preview_masks(masks, data.load(), out, count=count, seed=seed, on_corrupt=on_corrupt))


def study(
    models: list[str],
    *,
    data: Annotated[DataSource, FLAT],
    out: str,
    image_sizes: list[int] = [],  # noqa: B006 (never written to)
    settings: Annotated[StudySettings, FLAT] = StudySettings(),  # noqa: B008 (frozen)
    batch_size: int = 128,
    workers: int = 0,
    on_corrupt: OnCorrupt = "raise",
    device: str | None = None,
    output: Annotated[Output, FLAT] = Output(),  # noqa: B008
) -> None:
    """Compare the representations of images with parts removed; interrupted, the same command goes on.

    Examples:
        $ sslk masked study embedded cifar:compact@random --data sample --out runs/masked
        $ sslk masked study efficientnet-lite0 --data camvid:camvid_val.zip --split val --segmenter boxes --out runs/c

    Args:
        models: NAME or NAME@CHECKPOINT of every model; a name without weights is a random control.
        out: folder of the run: masks, features, results.json, figures.
        image_sizes: side of the images for every model in pixels, 0 for the model's own; all models' own by default.
        batch_size: images per forward pass.
        workers: loading processes.
        on_corrupt: an unreadable image ends the study, or is left out, counted and listed.
        device: where to compute; a GPU where there is one.
    """
    from sslk.masked import masked_study

    sources = ModelSource.several(models, image_sizes)
    extraction = ExtractSettings(batch_size, 1024, workers, device=device, on_corrupt=on_corrupt)
    with output.progress() as update:
        run = masked_study(sources, data, out, settings, extraction, progress=update)
    output.leave(run, out)
