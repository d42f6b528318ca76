"""The masked-input study: foregrounds once for all encoders, then a run per encoder."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from sslk.data.source import DataSource
from sslk.masked import StudySettings, build_masks, masked_study
from sslk.masked.images import choose_images
from sslk.masked.segmenters import segmenter
from sslk.models.source import ModelSource
from sslk.progress import Progress

SEGMENTER = "grabcut"


def foregrounds(data: str, out: str, images: int, seed: int, progress: Progress | None = None) -> None:
    """GrabCut's foreground of the images that every encoder's study is of; killed, the same call goes on.

    Args:
        data: name of the data set.
        out: folder of the masks.
        images: how many, drawn by the seed.
        seed: of the draw, as in `masked`.
        progress: called with the images segmented and to segment.
    """
    dataset = DataSource(data).load()
    build_masks(dataset, segmenter(SEGMENTER), out, indices=choose_images(dataset, images, seed), progress=progress)


def masked(
    model: str, data: str, masks: str, out: str, images: int, resamples: int, seed: int, progress: Progress | None = None
) -> None:
    """The masked-input study of one encoder; its features are removed when its run is written.

    Args:
        model: as `ModelSource` writes it.
        data, images, seed: those of `foregrounds`.
        masks: folder that it wrote.
        out: folder of the run.
        resamples: of the bootstrap over images.
        progress: called with what is done and to do.
    """
    folder = Path(out)
    shutil.copytree(masks, folder / "masks", dirs_exist_ok=True)
    settings = StudySettings(SEGMENTER, images=images, umap_share=0.0, resamples=resamples, seed=seed)
    run = masked_study([ModelSource(model)], DataSource(data), out, settings, progress=progress)
    replace(run, figures=[]).save(out)  # the page draws its own
    for part in ("masks", "features"):
        shutil.rmtree(folder / part, ignore_errors=True)
