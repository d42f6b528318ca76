"""What a score is judged by: whether a classifier was right on a sample, or whether its nearest neighbour shares its class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sslk.features.store import FeatureStore
from sslk.probes.source import store_finite
from sslk.quality.failure_neighbors import nearest_rows


def as_answers(answers: Any, name: str = "answers") -> Tensor:
    """Whether each sample was classified correctly, bool `[N]`; from bool, or from 0 and 1.

    Raises:
        ValueError: other numbers, such as labels.

    >>> as_answers([1, 0, 1]).tolist()
    [True, False, True]
    """
    given = torch.as_tensor(answers).detach().cpu()
    if given.dtype != torch.bool and not bool(((given == 0) | (given == 1)).all()):
        odd = given[(given != 0) & (given != 1)].flatten()[0]
        raise ValueError(f"{name} must be bool, or 0 and 1 for wrong and right, got {odd.item():g}: labels are not answers.")
    return given.bool()


@dataclass(frozen=True, eq=False)
class NeighbourAnswers:
    """Whether each sample's nearest neighbour has its label.

    Attributes:
        rows: int64 `[n]`, the rows of the store that have an answer: labelled and finite.
        correct: bool `[n]`.
    """

    rows: Tensor
    correct: Tensor


def neighbour_answers(store: FeatureStore) -> NeighbourAnswers:
    """Answers that need labels and no probe: is the most similar other sample of the store of the same class?

    AUROC of a score under these answers is the R-AUROC of Kirchhof et al., "URL: A representation learning benchmark for
    transferable uncertainty estimates" (2023), the share of them that are right the recall at 1. Similarity is the cosine;
    a sample is never its own neighbour, though a copy of it may be. Rows that are unlabelled or not finite
    have no answer and are nobody's neighbour.

    Args:
        store: with labels, of any size: it is read tile by tile.

    Raises:
        StoreError: the store is incomplete or has no labels.
        ValueError: fewer than two rows are labelled and finite.

    >>> from sslk.features.store import FeatureStore
    >>> import tempfile, torch
    >>> from sslk.features import StoreSpec, StoreWriter
    >>> spec = StoreSpec("tiny", "0" * 64, "noise", "0" * 64, "none", samples=4, num_features=2)
    >>> folder = tempfile.mkdtemp() + "/s"
    >>> with StoreWriter(folder, spec) as writer:
    ...     x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    ...     writer.write(0, x, torch.tensor([3, 3, 3, 7]), torch.arange(4))
    >>> neighbour_answers(FeatureStore(folder)).correct.tolist()
    [True, True, False, False]
    """
    labels = store.require(labels=True).labels()
    usable = (labels >= 0) & store_finite(store)
    rows = usable.nonzero().squeeze(1)
    if len(rows) < 2:
        raise ValueError(f"{store.path} must have two rows that are labelled and finite, got {len(rows)} of {len(store)}.")
    _, nearest = nearest_rows(store, store, 1, usable=usable, exclude_itself=True)
    return NeighbourAnswers(rows, labels[nearest[rows, 0]] == labels[rows])
