"""Q-Scores of a feature store as a CSV file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from sslk.features.store import FeatureStore
from sslk.files.tables import write_rows
from sslk.quality.score import QScores


def write_scores(
    store: FeatureStore, scores: QScores, file: Path, image_name: Callable[[int], str] | None = None
) -> None:
    """The scores as CSV, with the images' names where `image_name` gives them; the file appears only when it is whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        with temporary.open("w", newline="", encoding="utf-8") as stream:
            header = ["index", "image" if image_name else "", "label" if store.has_labels else "", "qscore"]
            write_rows(stream, [filter(None, header)])
            row = 0
            for shard in store.shards():
                part = scores.scores[row : row + len(shard.indices)].tolist()
                row += len(part)
                indices = shard.indices.tolist()
                names = None if image_name is None else [image_name(index) for index in indices]
                labels = None if shard.labels is None else shard.labels.tolist()
                columns = [column for column in (indices, names, labels, part) if column is not None]
                write_rows(stream, zip(*columns, strict=True))
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
