"""A supervised encoder's own classifier as the probe: logits from stored features, without the images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sslk.features.store import FeatureStore
from sslk.probes.labelled import labelled, origin_of, scored
from sslk.probes.outputs import ProbeOutputs


def head_outputs(
    store: FeatureStore, classifier: nn.Linear, columns: Tensor | None = None, restrict: bool = False
) -> ProbeOutputs:
    """What a trained linear head says about every row of a labelled store that is labelled and finite.

    Args:
        store: features of the encoder the head was trained with.
        classifier: the head, `[D] -> [K]`.
        columns: int64 `[C]`, the head's output that stands for each label 0 ... C - 1; labels are outputs by default.
        restrict: choose among the outputs in `columns` only; otherwise predicting another one is wrong.

    Raises:
        StoreError: the store is incomplete or has no labels.
        ValueError: the head takes another D, or a label has no column.
    """
    if classifier.in_features != store.require(labels=True).num_features:
        raise ValueError(
            f"classifier takes {classifier.in_features} features but {store.path} holds {store.num_features}: "
            "it belongs to another model."
        )
    rows = labelled(store)
    known = classifier.out_features if columns is None else len(columns)
    if int(rows.labels.max()) >= known:
        raise ValueError(f"labels must lie between 0 and {known - 1}, got {int(rows.labels.min())} to {int(rows.labels.max())}.")
    with torch.inference_mode():
        rows, logits = scored(rows, classifier)
    labels = rows.labels
    if restrict and columns is not None:
        chosen = torch.arange(len(columns))
        return ProbeOutputs.from_logits(logits[:, columns], chosen, labels, *origin_of(rows, "head, restricted"))
    wanted = labels if columns is None else columns[labels]
    # Labels of the outputs are the head's own columns: predictions of classes the data set lacks stay visible.
    return ProbeOutputs.from_logits(logits, torch.arange(logits.shape[1]), wanted, *origin_of(rows, "head"))


def imagenet_columns(classes: Sequence[str]) -> Tensor:
    """The output of an ImageNet-1K classifier for every class name, int64 `[C]`: WordNet ids or their full names.

    "crane" is a bird and a machine. Outputs and the classes of ImageNet's relatives are both sorted by WordNet id, so
    the one that keeps the columns ascending is meant.

    Raises:
        ValueError: a name is no ImageNet class, or stands for two.

    >>> imagenet_columns(["goldfish, Carassius auratus", "crane", "n02423022"]).tolist()
    [1, 134, 353]
    """
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    places: dict[str, list[int]] = {}
    for column in range(info.num_classes()):
        for name in (info.index_to_label_name(column), info.index_to_description(column)):
            places.setdefault(name.lower(), []).append(column)
    known = [places.get(name.lower(), []) for name in classes]
    columns: list[int] = []
    for number, (name, candidates) in enumerate(zip(classes, known, strict=True)):
        before = max(columns, default=-1)
        after = min((c[0] for c in known[number + 1 :] if len(c) == 1), default=info.num_classes())
        fitting = candidates if len(candidates) == 1 else [c for c in candidates if before < c < after]
        if len(fitting) != 1:
            raise ValueError(f"classes must be WordNet ids or full names of ImageNet-1K, {name!r} is not one of them.")
        columns.append(fitting[0])
    return torch.tensor(columns)
