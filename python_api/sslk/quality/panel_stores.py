"""What the label-free panel is asked about: stores with names, extracted first where models are named, and probes on them."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from sslk.features.by_name import extract_pair
from sslk.features.settings import ExtractSettings
from sslk.features.store import FeatureStore
from sslk.models.source import ModelSource
from sslk.probes.linear import linear_probe
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.settings import LinearSettings
from sslk.probes.source import joined
from sslk.progress import Progress, renamed

Named = tuple[str, FeatureStore]
"""The name of a model, and its store."""


def probe_answers(
    stores: Sequence[Named], tests: Sequence[FeatureStore], *, device: str | None = None, progress: Progress | None = None
) -> list[ProbeOutputs]:
    """A linear probe trained on each store and asked about the test store of the same model, with the usual settings.

    Raises:
        StoreError: a store has no labels.
        ValueError: a test store is of none of the models.
    """
    found = []
    for test in tests:
        train = next((s for _, s in stores if s.spec.weights_hash == test.spec.weights_hash), None)
        if train is None:
            raise ValueError(f"test stores must be of the models measured, {test.path} is of {test.spec.model}, other weights.")
        test = joined(train, test)
        probe = linear_probe(
            train.require(labels=True),
            test.require(labels=True),
            LinearSettings(),
            device=device or "cpu",
            progress=renamed(progress, f"probing {train.path.name}"),
        )
        found.append(probe.outputs)
    return found


def extracted_pairs(
    models: Sequence[ModelSource],
    data: str,
    out: str | PathLike[str],
    *,
    root: str | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> tuple[list[Named], list[FeatureStore]]:
    """Training and test stores of models, below `out/features`; what is there is not extracted again.

    Raises:
        StoreError, ValueError, OSError: as for `sslk.features.by_name.extract_pair`.
    """
    named, tests = [], []
    for model in models:
        settings = ExtractSettings(device=device)
        train, test = extract_pair(model, data, Path(out) / "features" / model.folder, settings, root=root, progress=progress)
        named.append((model.label, train))
        tests.append(test)
    return named, tests


def named_stores(texts: Sequence[str]) -> list[Named]:
    """Stores from texts NAME=FOLDER or FOLDER, which is named after its model and, where it has one, its representation.

    Raises:
        StoreError: a folder is no complete store.
    """
    named = []
    for text in texts:
        name, equals, folder = text.partition("=")
        store = FeatureStore(folder if equals else text).require()
        feature = f" ({store.spec.feature})" if store.spec.feature else ""
        named.append((name if equals else store.spec.model + feature, store))
    return named
