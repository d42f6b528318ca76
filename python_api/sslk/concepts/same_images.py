"""Whether a concept table and a feature store are about the same images: they meet by number, and classes tell."""

from __future__ import annotations

import torch

from sslk.concepts.labels import ClassLabels
from sslk.concepts.table import ConceptError, ConceptTable
from sslk.features.store import FeatureStore


def require_same_classes(store: FeatureStore, table: ConceptTable, group: str = "labels") -> None:
    """Refuse a table that names other classes for the images of a store than the store does.

    Image numbers are positions in a data set: with one folder more, all that follow are others'. Only classes that both
    know are compared.

    Args:
        store: with labels and class names; another is not compared.
        table: with the group that `ClassLabels` writes; another is not compared.
        group: name of that group.

    Raises:
        ConceptError: the classes of an image differ; counted, and the first one named.
    """
    if group not in table.groups or not store.has_labels or not store.spec.classes:
        return
    shards = [*store.shards()]  # mapped: the features are not read
    chosen = table.join(torch.cat([shard.indices for shard in shards])).select([group])
    labels = torch.cat([shard.labels for shard in shards if shard.labels is not None]).tolist()
    names = ClassLabels(store.spec.classes).names
    pairs = [
        (row, chosen.names[column], names[labels[row]])
        for row, (start, stop) in enumerate(zip(chosen.offsets[:-1].tolist(), chosen.offsets[1:].tolist(), strict=True))
        if stop - start == 1 and 0 <= labels[row] < len(names)
        for column in [int(chosen.columns[start])]
        if chosen.names[column] in names
    ]
    if different := [pair for pair in pairs if pair[1] != pair[2]]:
        row, there, here = different[0]
        raise ConceptError(
            f"{len(different)} of {len(pairs)} images have another class in the concept table than in {store.path}: image "
            f"{int(chosen.samples[row])} is {there!r} there and {here!r} here; build the table from the data set that the "
            "features were extracted from."
        )
