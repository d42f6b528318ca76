"""Whether a discriminative set belongs to the model at hand; a set of another model gives scores without a meaning."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sslk.features.manifest import StoreError, imported_weights
from sslk.features.store import FeatureStore
from sslk.quality.discriminative import DiscriminativeFeatures

if TYPE_CHECKING:
    from torch import nn


def check_set(discriminative: DiscriminativeFeatures, owner: nn.Module | FeatureStore, *, further_trained: bool = False) -> None:
    """Refuse a set that was found on another model than `owner`, or than the one `owner`'s features come from.

    What is compared is D and the hash of the weights; the name of the model is only said, since one network may go by
    several (`embedded`, and `cifar:compact` with its weights). A set without a hash, found on a tensor or saved by an
    early version, is of an unknown model: its D alone is compared.

    Args:
        discriminative: the set S.
        owner: the encoder, a `Backbone` or a bare module, or a feature store of it.
        further_trained: the encoder was trained further since S was found. S is found once and then kept fixed, so
            other weights are right then: D alone is compared.

    Raises:
        ValueError: D or the weights differ, for a backbone; StoreError for a store.

    >>> import torch
    >>> from dataclasses import replace
    >>> from sslk.models import load_backbone
    >>> found = DiscriminativeFeatures.from_counts(torch.arange(256), 300, eps=2.0)
    >>> found = replace(found, model="embedded", weights_hash="3f5a" * 16)
    >>> check_set(found, load_backbone("embedded"))   # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ValueError: discriminative was found on 'embedded' with weights 3f5a3f5a3f5a but 'embedded' has ...
    >>> check_set(found, load_backbone("embedded"), further_trained=True)
    """
    if isinstance(owner, FeatureStore):
        here, weights = f"{owner.path} ({owner.spec.model!r})", owner.spec.weights_hash
    else:
        from sslk.models import as_backbone

        owner = as_backbone(owner)
        here, weights = repr(owner.name), owner.weights_hash
    refusal = StoreError if isinstance(owner, FeatureStore) else ValueError
    imported = discriminative.weights_hash == imported_weights(discriminative.model or "")
    if imported and not isinstance(owner, FeatureStore) and not further_trained:
        raise ValueError(
            f"discriminative was found on the imported features of {discriminative.model!r}, without images or weights: find one "
            f"on features of `sslk store extract` for {here}, or say further_trained if the features are this encoder's."
        )
    if discriminative.num_features != owner.num_features:
        raise refusal(
            f"discriminative was found for D={discriminative.num_features} features but {here} has "
            f"D={owner.num_features}: it belongs to another model."
        )
    stated = discriminative.weights_hash
    if stated is not None and stated != weights and not further_trained:
        model = "an unknown model" if discriminative.model is None else repr(discriminative.model)
        raise refusal(
            f"discriminative was found on {model} with weights {stated[:12]} but {here} has {weights[:12]}: it belongs "
            "to another model; find a set with `sslk qscore discover`, or say further_trained if this encoder was trained "
            "further from that one."
        )


def load_set(
    path: str | os.PathLike[str], owner: nn.Module | FeatureStore, *, further_trained: bool = False
) -> DiscriminativeFeatures:
    """Read a set and refuse it where it belongs to another model than `owner`; arguments and errors of `check_set`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds something else, or belongs to another model.
    """
    found = DiscriminativeFeatures.load(path)
    check_set(found, owner, further_trained=further_trained)
    return found
