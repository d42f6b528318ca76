"""What CIFAR-10 cannot show: transfer to two other data sets (table A.2) and heatmaps on objects (figure 7).

Two sets are at hand as zips, see docs/data.md: 10,000 images of Tiny-ImageNet in 200 classes, with a box around each object,
and 101 street scenes of CamVid with a class for every pixel. Neither comes with splits for classification: of
Tiny-ImageNet a fifth of every class is tested; of CamVid, one drive in order, the last third of the scenes, and a crop's class
is that of most of its pixels.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sslk.data import load_dataset
from sslk.data.source import DataSource
from sslk.interpret import data_and_masks, forget_parts, miou_study
from sslk.interpret.settings import MaskSettings, MiouSettings
from sslk.models.source import ModelSource
from sslk.progress import Progress
from sslk.quality import load_set
from sslk.quality.settings import TransferTable
from sslk.quality.studies.transfer import transfer_study

TINY, CAMVID = "tiny-imagenet", "camvid"
FILES = {TINY: "tiny_imagenet_val.zip", CAMVID: "camvid_val.zip"}
TEST_SHARE = 0.2  # of every class of Tiny-ImageNet
CROP = 60  # pixels: 8 x 6 crops a scene of 480 x 360
LEAST_SHARE = 0.5  # of a crop's pixels that its class covers
LEAST_CROPS = 20  # of a class in either split


@dataclass(frozen=True)
class Labelled:
    """Images uint8 `[N, H, W, 3]`, labels `[N]` and the names of the classes."""

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]


def present(folder: Path | None) -> dict[str, Path]:
    """The zips of `FILES` that a folder holds, by data set; none without a folder.

    >>> present(None)
    {}
    """
    return {} if folder is None else {name: folder / file for name, file in FILES.items() if (folder / file).is_file()}


def write_splits(name: str, source: str, out: str, seed: int, progress: Progress | None = None) -> None:
    """Write `OUT-train.npz` and `OUT-test.npz` of one of the two sets.

    Args:
        name: `tiny-imagenet` or `camvid`.
        source: its zip.
        out: path of both files without `-train.npz` and `-test.npz`; the second to appear is the test's.
        seed: of the split of Tiny-ImageNet; CamVid's is by time.
        progress: called with the images read and to read.
    """
    splits = _tiny(source, seed, progress) if name == TINY else _camvid(source, progress)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    for role, found in zip(("train", "test"), splits, strict=True):
        temporary = Path(f"{out}-{role}.tmp.npz")
        np.savez(temporary, images=found.images, labels=found.labels, classes=np.array(found.classes))
        os.replace(temporary, f"{out}-{role}.npz")


def _tiny(source: str, seed: int, progress: Progress | None) -> tuple[Labelled, Labelled]:
    data = load_dataset(f"{TINY}:{source}", "val")
    images = []
    for index in range(len(data)):
        images.append(np.asarray(data[index][0]))
        if progress is not None and not index % 500:
            progress(index, len(data), "reading images")
    labels, rng = np.asarray(data.labels), np.random.default_rng(seed)
    test = np.zeros(len(labels), dtype=bool)
    for label in range(len(data.classes)):
        rows = rng.permutation(np.flatnonzero(labels == label))
        test[rows[: round(TEST_SHARE * len(rows))]] = True
    stacked, classes = np.stack(images), tuple(data.classes)
    return Labelled(stacked[~test], labels[~test], classes), Labelled(stacked[test], labels[test], classes)


def _camvid(source: str, progress: Progress | None) -> tuple[Labelled, Labelled]:
    data = load_dataset(f"{CAMVID}:{source}", "val")
    order = sorted(range(len(data)), key=data.image_name)
    first_test = round(2 * len(order) / 3)
    crops: list[np.ndarray] = []
    found: list[tuple[int, bool]] = []
    for place, index in enumerate(order):
        if progress is not None:
            progress(place, len(order), "cutting crops")
        image, mask = np.asarray(data[index][0]), data.annotation(index).mask
        assert mask is not None
        for top in range(0, image.shape[0] - CROP + 1, CROP):
            for left in range(0, image.shape[1] - CROP + 1, CROP):
                part = mask[top : top + CROP, left : left + CROP]
                counts = np.bincount(part.ravel(), minlength=256)
                if counts.max() < LEAST_SHARE * part.size or counts.argmax() >= len(data.classes):
                    continue
                crops.append(image[top : top + CROP, left : left + CROP])
                found.append((int(counts.argmax()), place >= first_test))
    labels, test = np.array([label for label, _ in found]), np.array([late for _, late in found])
    enough = [
        label
        for label, name in enumerate(data.classes)
        if name not in ("void", "unlabelled")
        and min((labels[test] == label).sum(), (labels[~test] == label).sum()) >= LEAST_CROPS
    ]
    kept, images = np.isin(labels, enough), np.stack(crops)
    compact = np.searchsorted(enough, labels)
    classes = tuple(data.classes[label] for label in enough)
    train, test = kept & ~test, kept & test
    return Labelled(images[train], compact[train], classes), Labelled(images[test], compact[test], classes)


def transfer(model: str, label: str, splits: dict[str, str], out: str, seed: int, progress: Progress | None = None) -> None:
    """Linear probes of an encoder on the other data sets.

    Args:
        model: as `ModelSource` writes it.
        label: of the encoder in the table.
        splits: what `write_splits` wrote, by data set.
        out: folder of the run; the stores of features stay below it.
        seed: of the probes.
        progress: called with what is done and to do.
    """
    from sslk.features.settings import ExtractSettings
    from sslk.probes.settings import LinearSettings

    names = [f"npz:{path}-train.npz+npz:{path}-test.npz" for path in splits.values()]
    probe, extraction = LinearSettings(epochs=30, seed=seed), ExtractSettings(workers=0)
    transfer_study(ModelSource(model), names, out, probe, extraction, TransferTable(label), progress=progress).save(out)


def agreement(model: str, source: str, discriminative: str, out: str, seed: int, progress: Progress | None = None) -> None:
    """mIoU of an encoder's heatmaps with the boxes of Tiny-ImageNet, of images that probes get right and wrong.

    Args:
        model: as `ModelSource` writes it.
        source: the zip.
        discriminative: the encoder's set S, found on CIFAR-10.
        out: folder of the run.
        seed: of folds and random features.
        progress: called with the images done and to do.
    """
    backbone = ModelSource(model).load()
    images, masks = data_and_masks(DataSource(f"{TINY}:{source}", "val"), MaskSettings())
    settings = MiouSettings(correct="folds", seed=seed)
    miou_study({model: backbone}, images, masks, load_set(discriminative, backbone), settings, out=out, progress=progress).save(
        out
    )
    forget_parts(out)
