"""Q-Scores of a feature store as a CSV file."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from sslk.features.store import FeatureStore
from sslk.quality.score import QScores


def write_scores(store: FeatureStore, scores: QScores, file: Path) -> None:
    """The scores as CSV; the file appears only when it is whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        with temporary.open("w", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(["index", "label", "qscore"] if store.has_labels else ["index", "qscore"])
            row = 0
            for shard in store.shards():
                part = scores.scores[row : row + len(shard.indices)].tolist()
                row += len(part)
                columns = [shard.indices.tolist(), *([] if shard.labels is None else [shard.labels.tolist()]), part]
                table.writerows(zip(*columns, strict=True))
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
