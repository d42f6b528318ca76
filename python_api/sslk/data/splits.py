"""Which splits of a data set train and test."""

from __future__ import annotations

# Where the published splits are not called train and test; labels of held-out ImageNet are published for val only.
SPLITS = {
    "fgvc-aircraft": ("trainval", "test"),
    "imagenet": ("train", "val"),
    "imagenet-100": ("train", "val"),
    "tiny-imagenet": ("train", "val"),
    "places365": ("train", "val"),
}


def splits_of(data: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """The (name, split) of training and test data of a data set.

    `NAME` takes its published splits; `TRAIN+TEST` names two data sets, for sets without splits (`npz:`, `folder:`).

    >>> splits_of("fgvc-aircraft")
    (('fgvc-aircraft', 'trainval'), ('fgvc-aircraft', 'test'))
    >>> splits_of("npz:a.npz+npz:b.npz")
    (('npz:a.npz', 'train'), ('npz:b.npz', 'test'))
    """
    first, plus, second = data.partition("+")
    if plus:
        return (first, SPLITS.get(first, ("train",))[0]), (second, "test")
    if data.startswith("npz:"):
        raise ValueError(f"the data set {data!r} has no splits: name two files, {data}+npz:TEST.npz.")
    train, test = SPLITS.get(data.partition(":")[0], ("train", "test"))
    return (data, train), (data, test)
