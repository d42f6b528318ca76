"""Q-Scores of a feature store as a CSV file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sslk.features.store import FeatureStore
from sslk.quality.score import QScores
from sslk.results.atomic import write_table


def write_scores(store: FeatureStore, scores: QScores, file: Path, image_name: Callable[[int], str] | None = None) -> None:
    """The scores as CSV, with the images' names where `image_name` gives them; the file appears only when it is whole."""
    write_table(file, _rows(store, scores, image_name))


def _rows(store: FeatureStore, scores: QScores, image_name: Callable[[int], str] | None) -> Iterator[tuple[Any, ...]]:
    header = ("index", "image" if image_name else "", "label" if store.has_labels else "", "qscore")
    yield tuple(filter(None, header))
    row = 0
    for shard in store.shards():
        part = scores.scores[row : row + len(shard.indices)].tolist()
        row += len(part)
        indices = shard.indices.tolist()
        names = None if image_name is None else [image_name(index) for index in indices]
        labels = None if shard.labels is None else shard.labels.tolist()
        columns = [column for column in (indices, names, labels, part) if column is not None]
        yield from zip(*columns, strict=True)
