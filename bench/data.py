"""How long it takes to list what users bring: a folder of many classes, and a manifest of many rows.

    python bench/data.py folders --classes 5000 --images 10
    python bench/data.py manifest --rows 1000000

Processor seconds of one reading, beside wall seconds; every part ends with one line of JSON.
"""

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sslk.data import load_dataset
from sslk.data.manifests import read_manifest


def timed(read: Callable[[], Any]) -> dict[str, float]:
    """Processor and wall seconds of a call."""
    processor, wall = time.process_time(), time.perf_counter()
    read()
    return {"processor_s": time.process_time() - processor, "wall_s": time.perf_counter() - wall}


def bench_folders(classes: int, images: int) -> dict[str, float]:
    """Empty files by their names: nothing is decoded when a data set is opened."""
    with tempfile.TemporaryDirectory() as folder:
        for label in range(classes):
            place = Path(folder) / f"class{label}"
            place.mkdir()
            for number in range(images):
                (place / f"{number}.jpg").touch()
        return timed(lambda: load_dataset(f"folder:{folder}"))


def bench_manifest(rows: int) -> dict[str, float]:
    """A CSV of file, label and split; the files are not looked up."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photos.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "label", "split"])
            writer.writerows(
                [f"photos/{row}.jpg", f"class {row % 1000}", "test" if row % 10 == 0 else "train"] for row in range(rows)
            )
        return timed(lambda: read_manifest(path))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    one = verbs.add_parser("folders")
    one.set_defaults(run=bench_folders)
    one.add_argument("--classes", type=int, default=5000)
    one.add_argument("--images", type=int, default=10)
    two = verbs.add_parser("manifest")
    two.set_defaults(run=bench_manifest)
    two.add_argument("--rows", type=int, default=1_000_000)
    options = vars(parser.parse_args())
    print(json.dumps(options.pop("run")(**options)))
