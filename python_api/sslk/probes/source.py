"""Which model and data the features of a store come from, and whether two stores belong together."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from sslk.features.manifest import StoreError
from sslk.features.store import FeatureStore
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.usable import finite_rows

_DECISIVE = ("model", "weights_hash", "num_features")


def source_of(store: FeatureStore, probe: str) -> dict[str, str]:
    """What probe outputs record about their store."""
    spec = store.spec
    return {"probe": probe, "model": spec.model, "weights_hash": spec.weights_hash, "dataset": spec.dataset}


def check_same_model(train: FeatureStore, test: FeatureStore) -> None:
    """Refuse two stores whose features mean different things.

    Raises:
        StoreError: model, weights or D differ; the message names them.
    """
    for name in _DECISIVE:
        here, there = getattr(train.spec, name), getattr(test.spec, name)
        if here != there:
            raise StoreError(
                f"{test.path} is of another model than {train.path}: {name} is {str(there)[:40]!r} there and "
                f"{str(here)[:40]!r} here."
            )


def joined(train: FeatureStore, test: FeatureStore) -> FeatureStore:
    """The test store with its labels numbered as the training store numbers them, by class name.

    Warns, once, of classes that one of the two lacks.

    Raises:
        StoreError: model, weights or D differ.
    """
    check_same_model(train, test)
    for sentence in unlike_classes(train, test):
        warnings.warn(sentence, stacklevel=3)
    return test.with_classes_of(train)


def unlike_classes(train: FeatureStore, test: FeatureStore) -> list[str]:
    """One sentence where two stores name different classes: what each lacks."""
    ours, theirs = train.spec.classes, test.spec.classes
    if not (ours and theirs and set(ours) != set(theirs)):
        return []
    said = [
        f"{b.path} lacks {len(names)} of the classes of {a.path} ({', '.join(names[:5])}{', ...' if names[5:] else ''})"
        for a, b, have, other in ((train, test, ours, theirs), (test, train, theirs, ours))
        if (names := [name for name in have if name not in other])
    ]
    return [f"Labels are joined by class name; {'; '.join(said)}."]


def answered_rows(store: FeatureStore, outputs: ProbeOutputs) -> Tensor:
    """The rows of a store that probe outputs are about, int64: all, less those that are unlabelled or not finite.

    Raises:
        StoreError: the model or the samples differ; said which.
    """
    recorded = outputs.source.get("weights_hash")
    if recorded is not None and recorded != store.spec.weights_hash:
        raise StoreError(
            f"the probe outputs are of another model than {store.path}: weights {recorded[:12]} there and "
            f"{store.spec.weights_hash[:12]} here ({outputs.source.get('model')} and {store.spec.model})."
        )
    index = torch.cat([shard.indices for shard in store.require().shards()])
    answered = torch.isin(index, outputs.index)
    rows = answered.nonzero().squeeze(1)
    if not torch.equal(index[rows], outputs.index) or not _unusable(store, ~answered):
        raise StoreError(
            f"the probe outputs are of other samples than {store.path}: {len(outputs.index)} there "
            f"({outputs.source.get('dataset')}) and {len(index)} here ({store.spec.dataset})."
        )
    return rows


def _unusable(store: FeatureStore, rows: Tensor) -> bool:
    """Whether every one of these rows, bool `[N]`, is unlabelled or not finite."""
    if store.has_labels:
        rows = rows & (store.labels() >= 0)
    return not bool(rows.any()) or not bool((rows & store_finite(store)).any())


def store_finite(store: FeatureStore) -> Tensor:
    """Which rows of a store hold neither NaN nor infinity, bool `[N]`, in one pass."""
    return torch.cat([finite_rows(batch.features) for batch in store.batches(4096)])


def described(store: FeatureStore) -> dict[str, str | int]:
    """What the provenance of a run says about a store."""
    spec = store.spec
    return {
        "model": spec.model,
        "weights": spec.weights_hash[:12],
        "data": spec.dataset,
        "samples": len(store),
        "features": spec.num_features,
        **({"representation": spec.feature} if spec.feature else {}),
    }
