"""Which splits of a data set train and test."""

from __future__ import annotations

import re
from pathlib import Path

# Where the published splits are not called train and test; labels of held-out ImageNet are published for val only.
SPLITS = {
    "fgvc-aircraft": ("trainval", "test"),
    "imagenet": ("train", "val"),
    "imagenet-100": ("train", "val"),
    "tiny-imagenet": ("train", "val"),
    "places365": ("train", "val"),
}

_PLUS = re.compile(r"\+(?=[a-z0-9-]+(?::|$))")  # in front of NAME or PREFIX:


def splits_of(data: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """The (name, split) of training and test data of a data set.

    `NAME` takes its published splits, or those that a `manifest:` calls train and test; `TRAIN+TEST` names two data sets, for
    sets without splits (`npz:`, `folder:`). A plus in the name of a file does no harm unless `NAME` or `PREFIX:` could follow.

    Raises:
        ValueError: an .npz, or a manifest without a column of splits, without a second set.

    >>> splits_of("fgvc-aircraft")
    (('fgvc-aircraft', 'trainval'), ('fgvc-aircraft', 'test'))
    >>> splits_of("npz:a.npz+npz:b.npz")
    (('npz:a.npz', 'train'), ('npz:b.npz', 'test'))
    >>> splits_of("manifest:a+b.csv")
    (('manifest:a+b.csv', 'train'), ('manifest:a+b.csv', 'test'))
    """
    first, *rest = _PLUS.split(data, maxsplit=1)
    if rest:
        second = rest[0]
        return (first, SPLITS.get(first, ("train",))[0]), (second, "test")
    if data.startswith("npz:"):
        raise ValueError(f"the data set {data!r} has no splits: name two files, {data}+npz:TEST.npz.")
    if data.startswith("manifest:"):
        from sslk.data.manifests import require_splits

        require_splits(Path(data.removeprefix("manifest:")))
    train, test = SPLITS.get(data.partition(":")[0], ("train", "test"))
    return (data, train), (data, test)
