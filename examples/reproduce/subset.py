"""A class-balanced part of a large .npz data set, drawn by a seed and written as .npz of its own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from sslk.progress import Progress

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def write_subset(source: str, out: str, count: int, seed: int, skip: int = 0, progress: Progress | None = None) -> None:
    """Write `count` images of an .npz (`images` uint8 `[N, H, W, 3]`, `labels` `[N]`), as many of each class.

    Args:
        source: the .npz.
        out: the .npz to write; it appears only when it is whole.
        count: images; a multiple of the number of classes.
        seed: of the draw.
        skip: images that are drawn before and left out, so that the subset of the first `skip` shares none with this one.
        progress: called when it is written.

    Raises:
        ValueError: a class has too few images, or count or skip is no multiple of the number of classes.
    """
    with np.load(source, allow_pickle=False) as arrays:
        images, labels = arrays["images"], arrays["labels"]
        classes = arrays.get("classes")
    number = int(labels.max()) + 1
    if classes is None:
        classes = np.array(CIFAR10_CLASSES if number == 10 else [str(label) for label in range(number)])
    if count % number or skip % number or count < number:
        raise ValueError(f"count and skip must be multiples of the {number} classes, got {count} and {skip}.")
    first, last = skip // number, (skip + count) // number
    rng = np.random.default_rng(seed)
    rows = []
    for label in range(number):
        found = np.flatnonzero(labels == label)
        if len(found) < last:
            raise ValueError(f"{source} has {len(found)} images of class {label}, {last} are needed.")
        rows.append(rng.permutation(found)[first:last])
    chosen = np.sort(np.concatenate(rows))
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.tmp.npz")
    np.savez(temporary, images=images[chosen], labels=labels[chosen], classes=classes, source_index=chosen)
    os.replace(temporary, path)
    if progress is not None:
        progress(count, count, "drawing images")
