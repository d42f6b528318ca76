"""Reader of Salient ImageNet (Singla and Feizi, ICLR 2022): masks per image and feature, workers' answers in a table.

Both published layouts are read, W being a WordNet id and j a feature of the authors' robust ResNet-50:

* `W/feature_j/NAME.JPEG` holds the masks, the images are ImageNet's training images;
* `W/feature_j/images/NAME.jpeg` and `W/feature_j/cams/NAME.jpeg` hold images and masks.

The table `discover_spurious_features.csv` has one row per worker: `Input.wordnet_id`, `Input.class_index`,
`Input.feature_index` and `Answer.main`, which is `main_object`, `separate_object` or `background`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from sslk.data import Dataset
from sslk.data.archives import Archive
from sslk.data.sources import FileSource
from sslk.files.tables import read_records
from sslk.interpret.masks import join_masks

_MASK = re.compile(r"(?:^|.*/)(n\d{8})/feature_(\d+)/(?:cams/)?([^/]+)\.jpe?g", re.IGNORECASE)
_SPURIOUS = ("separate_object", "background")


class SalientMasks:
    """`core` and `spurious` masks of Salient ImageNet: the union over an image's core and over its spurious features."""

    kinds: tuple[str, ...] = ("core", "spurious")

    def __init__(self, archive: Archive, files: list[dict[str, list[str]]]) -> None:
        self._archive, self._files = archive, files

    def __call__(self, index: int, height: int, width: int) -> dict[str, np.ndarray]:
        found = self._files[index]
        return {kind: join_masks([self._archive.image(file) for file in files]) for kind, files in found.items()}

    def __repr__(self) -> str:
        return f"SalientMasks({str(self._archive.path)!r}, {self._files})"


def read_answers(path: str | Path) -> dict[tuple[str, int], str]:
    """`core` or `spurious` by (WordNet id, feature): spurious where more than half of the workers said so.

    A worker says so by answering that the feature is a separate object or the background; the authors ask five workers
    and need three.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, or there are no rows.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no table of answers {path}; Salient ImageNet publishes it as discover_spurious_features.csv"
        )
    needed = ("Input.wordnet_id", "Input.feature_index", "Answer.main")
    votes: dict[tuple[str, int], list[bool]] = defaultdict(list)
    for row in read_records(path, "the table of answers", needed):
        try:
            feature = int(float(row["Input.feature_index"]))
        except (ValueError, OverflowError):
            got = row["Input.feature_index"][:80]
            raise ValueError(f"Input.feature_index in {path} must be a whole number, got {got!r}") from None
        votes[row["Input.wordnet_id"], feature].append(row["Answer.main"] in _SPURIOUS)
    if not votes:
        raise ValueError(f"{path} holds no answers")
    return {key: "spurious" if 2 * sum(said) > len(said) else "core" for key, said in votes.items()}


def salient_imagenet(root: str | Path, answers: str | Path, images: str | Path | None = None) -> tuple[Dataset, SalientMasks]:
    """The images that have a mask of an annotated feature, labelled by WordNet id, and their masks.

    Args:
        root: folder or zip of the masks.
        answers: table of the workers' answers.
        images: ImageNet's training folder (`W/NAME.JPEG`), for the layout that holds masks only.

    Returns:
        The data set, one row per image and class, and the masks. Masks have the images' size, or are already cropped to
        the model's input.

    Raises:
        FileNotFoundError: root, answers or images are not there.
        ValueError: root holds no mask of an annotated feature, or some image of a mask is missing.
    """
    archive = Archive(root)
    kind_of = read_answers(answers)
    found: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    beside: dict[tuple[str, str], str] = {}
    for file in archive.names:
        match = _MASK.fullmatch(file)
        if match is None:
            continue
        wnid, feature, name = match[1], int(match[2]), match[3]
        if (wnid, feature) in kind_of:
            found[wnid, name][kind_of[wnid, feature]].append(file)
            beside.setdefault((wnid, name), file.replace("/cams/", "/images/"))
    if not found:
        raise ValueError(f"{root} holds no <WordNet id>/feature_<number>/<image>.JPEG of a feature in {answers}")
    keys = sorted(found)
    classes = sorted({wnid for wnid, _ in keys})
    if images is None:
        names, present = [beside[key] for key in keys], set(archive.names)
        source = FileSource(archive, names)
        lost = [name for name in names if "/images/" not in name or name not in present]
    else:
        pictures = Archive(images)
        by_stem = {tuple(file.rpartition(".")[0].split("/")[-2:]): file for file in pictures.names}
        lost = ["/".join(key) for key in keys if key not in by_stem]
        names = [by_stem.get(key, "") for key in keys]
        source = FileSource(pictures, names)
    if lost:
        hint = "" if images is not None else "; masks only: give images=FOLDER, ImageNet's training images"
        raise ValueError(f"{len(lost)} of {len(keys)} images of {root} are missing, the first is {lost[0]}{hint}")
    labels = np.array([classes.index(wnid) for wnid, _ in keys])
    dataset = Dataset(f"salient-imagenet:{root}", source.read, names, labels, classes)
    return dataset, SalientMasks(archive, [dict(found[key]) for key in keys])
