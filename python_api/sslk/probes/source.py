"""Which model and data the features of a store come from, and whether two stores belong together."""

from __future__ import annotations

from sslk.features.manifest import StoreError
from sslk.features.store import FeatureStore

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
