"""Masked inputs from the command line: masks build, masks preview, masked."""

from __future__ import annotations

from pathlib import Path

from sslk.commands.console import progress_bar
from sslk.files.regular import require_file_name
from sslk.masked.settings import StudySettings


def build(
    data: str,
    out: str,
    segmenter: str = "grabcut",
    split: str = "test",
    root: str | None = None,
    images: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    quiet: bool = False,
) -> None:
    """Find the foreground of every image of a data set and keep the masks; interrupted, the same command goes on.

    Examples:
        $ sslk masks build --data sample --segmenter grabcut --out runs/masks
        $ sslk masks build --data camvid:camvid_val.zip --split val --segmenter labels:car,pedestrian --out runs/masks

    Args:
        data: name of a published data set, folder:PATH, npz:PATH, camvid:PATH, tiny-imagenet:PATH or sample.
        out: folder of the masks.
        segmenter: grabcut, grabcut:box, labels:CLASS,..., boxes, files:FOLDER, deeplab or sam; see docs/masked.md.
        split: of the data set.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        images: size of a random sample; all images by default.
        seed: of the sample.
        device: of segmenters that are networks.
        quiet: no progress bar.
    """
    from sslk.data import load_dataset
    from sslk.masked import build_masks, choose_images
    from sslk.masked import segmenter as by_name

    dataset = load_dataset(data, split, root=root)
    with progress_bar("masks", quiet) as update:
        masks = build_masks(
            dataset, by_name(segmenter, device), out, indices=choose_images(dataset, images, seed), progress=update
        )  # fmt: skip
    print(
        f"{out}: {len(masks)} masks by {masks.settings}, foreground {masks.share.mean():.1%} of the centre square; "
        f"{masks.empty.sum()} empty, {masks.full.sum()} full, {masks.resized.sum()} of another size"
    )


def preview(
    masks: str,
    data: str,
    out: str,
    split: str = "test",
    root: str | None = None,
    count: int = 32,
    seed: int = 0,
) -> None:
    """Draw a contact sheet of images with their masks.

    Examples:
        $ sslk masks preview runs/masks --data sample --out masks.png

    Args:
        masks: folder that `sslk masks build` filled.
        data: the data set they are of.
        out: picture to write, .png or .svg.
        split: of the data set.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        count: images on the sheet.
        seed: which images are drawn.
    """
    import numpy as np
    from matplotlib import pyplot as plt

    from sslk.data import load_dataset
    from sslk.masked import Masks
    from sslk.masked.figures import contact_sheet

    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}.")
    require_file_name(out)
    found, dataset = Masks(masks), load_dataset(data, split, root=root)
    if found.dataset != dataset.name:
        raise ValueError(f"{masks} holds masks of {found.dataset}, not of {dataset.name}.")
    rows = np.sort(np.random.default_rng(seed).permutation(len(found))[:count]).tolist()
    figure = contact_sheet(
        [np.array(dataset.image(int(found.indices[row]))) for row in rows],
        [found[row] for row in rows],
        [f"{int(found.indices[row])}: {found.share[row]:.0%}" for row in rows],
    )
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)
    plt.close(figure)
    print(f"{out}: {len(rows)} of {len(found)} masks by {found.settings}")


def masked(
    models: list[str],
    data: str,
    out: str,
    split: str = "test",
    segmenter: str = "grabcut",
    image_sizes: list[int] | None = None,
    root: str | None = None,
    study: StudySettings = StudySettings(),  # noqa: B008 (frozen)
    batch_size: int = 128,
    workers: int = 0,
    device: str | None = None,
    quiet: bool = False,
) -> None:
    """Compare the representations of images with parts removed; interrupted, the same command goes on.

    Examples:
        $ sslk masked --models embedded cifar:compact --data sample --out runs/masked
        $ sslk masked --models efficientnet-lite0 --data camvid:camvid_val.zip --split val --segmenter boxes --out runs/c

    Args:
        models: NAME or NAME@CHECKPOINT of every model; a name without weights is a random control.
        data: name of a published data set, folder:PATH, npz:PATH, camvid:PATH, tiny-imagenet:PATH or sample.
        out: folder of the run: masks, features, results.json, figures.
        split: of the data set.
        segmenter: grabcut, grabcut:box, labels:CLASS,..., boxes, files:FOLDER, deeplab or sam; see docs/masked.md.
        image_sizes: side of the images for every model, 0 for the model's own.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        study: what to compute.
        batch_size: images per forward pass.
        workers: loading processes.
        device: where to compute; a GPU where there is one.
        quiet: no progress bar.
    """
    from sslk.masked.study import masked_study

    with progress_bar("masked inputs", quiet) as update:
        run = masked_study(
            models, data, out, split=split, segmenter=segmenter, image_sizes=image_sizes or (), root=root,
            settings=study, batch_size=batch_size, workers=workers, device=device,
            progress=lambda step, done, total: update(done, total),
        )  # fmt: skip
    print(run.title)
    for finding in run.findings:
        print(f"* {finding}")
    print(f"{out}/results.json, {len(run.figures)} figures")
