"""Jobs that go on after a kill, beside extraction and training: each says in a log how far it is, as slowly as asked."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sslk.concepts import ClassLabels, build_concepts
from sslk.data import load_dataset
from sslk.evaluation.plan import Step
from sslk.evaluation.run import Evaluation
from sslk.features import writer
from sslk.features.maintain import store_merge
from sslk.features.settings import ExtractSettings
from sslk.masked import masks as mask_module
from sslk.models.source import ModelSource
from sslk.probes.settings import LinearSettings
from sslk.quality.ablation import search_lambdas
from sslk.quality.linear_evaluation import transfer as run_transfer
from sslk.reverse.settings import KMeansSettings
from sslk.reverse.study import cluster_stores, named_stores
from tests.features.small import store_bytes
from tests.probes.stores import features, write_store

Tick = Callable[..., None]


def write_images(folder: Path, name: str, count: int) -> str:
    """An npz of random images, three classes; the same for the same name."""
    file = folder / f"{name}.npz"
    rng = np.random.default_rng(len(name))
    np.savez(file, images=rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8), labels=np.arange(count) % 3)
    return f"npz:{file}"


class Brightness:
    """A segmenter that takes its time."""

    settings = "brightness"

    def __init__(self, tick: Tick) -> None:
        self.tick = tick

    def __call__(self, scene: Any) -> np.ndarray:
        self.tick()
        return np.asarray(scene.image.convert("L")) > 127


def masks(given: Path, out: Path, tick: Tick) -> Any:
    many, mask_module._SHARD = mask_module._SHARD, 10
    try:
        mask_module.build_masks(load_dataset(write_images(given, "a", 60)), Brightness(tick), out / "masks")
    finally:
        mask_module._SHARD = many
    return {file.name: file.read_bytes() for file in (out / "masks").iterdir()}


def concepts(given: Path, out: Path, tick: Tick) -> Any:
    data = load_dataset(write_images(given, "a", 60))
    out.mkdir(exist_ok=True)
    table = build_concepts(data, [ClassLabels(data.classes)], out / "t", batch_size=2, part_rows=8, progress=tick)
    return table.dense().tolist(), table.samples.tolist(), sorted(os.listdir(out))


def lambdas(given: Path, out: Path, tick: Tick) -> Any:
    out.mkdir(exist_ok=True)

    def train(first: float, second: float, seed: int) -> float:
        tick()
        return 1 / (1 + abs(first - 0.1) + abs(second - 0.2) + 0.01 * seed)

    values = (0.0, 0.1, 0.2, 0.3)
    return search_lambdas(train, lambda1=values, lambda2=values, seeds=(0, 1, 2), journal=out / "journal.json")


def transfer(given: Path, out: Path, tick: Tick) -> Any:
    pairs = ["+".join(write_images(given, f"{name}{role}", 24) for role in ("", "-test")) for name in ("a", "bb", "ccc", "dddd")]
    extraction = ExtractSettings(batch_size=4, workers=0, device="cpu")
    return run_transfer(ModelSource("embedded"), pairs, out, LinearSettings(epochs=2), extraction, progress=tick)


def write_step(out: str, tick: Tick) -> None:
    tick()
    Path(f"{out}.tmp").write_text(f"result of {Path(out).name}")
    os.replace(f"{out}.tmp", out)


TICK: list[Tick] = []


def evaluation_step(out: str, progress: Any = None) -> None:
    write_step(out, TICK[-1])


def evaluation(given: Path, out: Path, tick: Tick) -> Any:
    TICK.append(tick)
    out.mkdir(exist_ok=True)
    names = [f"s{number:02d}" for number in range(40)]
    steps = [
        Step(name, evaluation_step, {"out": str(out / name)}, out / name, tuple(names[max(0, n - 1) : n]))
        for n, name in enumerate(names)
    ]
    return Evaluation(out, steps, {"data": "d"}).run(), [(out / name).read_text() for name in names]


def clusterings(given: Path, out: Path, tick: Tick) -> Any:
    stores = []
    for number in range(6):
        folder = given / f"s{number}"
        if not folder.exists():
            write_store(folder, *features(60, seed=number))
        stores.append(f"m{number}={folder}")
    found = {}
    for last in range(1, 7):  # as one command does, with a sign of life between two stores
        tick()
        settings = KMeansSettings(clusters=3, clusterings=1, restarts=2)
        found = cluster_stores(named_stores(stores[:last]), settings, out / "clusterings")
    return {name: (one.assignments.tolist(), one.centroids.tolist()) for name, one in found.items() if one.centroids is not None}


def merge(given: Path, out: Path, tick: Tick) -> Any:
    stores = [given / f"s{number}" for number in range(8)]
    for number, folder in enumerate(stores):
        if not folder.exists():
            write_store(folder, *features(300, seed=number), dataset=f"d{number}")
    write = writer.write_atomically

    def slow(*arguments: Any) -> None:
        tick()
        write(*arguments)

    writer.write_atomically = slow
    try:
        store_merge(stores, out)
    finally:
        writer.write_atomically = write
    return store_bytes(out)


JOBS = (masks, concepts, lambdas, transfer, evaluation, clusterings, merge)


def run_logging(number: int, given: Path, out: Path, log: Path, seconds: float) -> None:
    """A job in a child process: a byte in the log and a rest at every step."""
    torch.set_num_threads(1)
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def tick(*unused: Any) -> None:
        os.write(fd, b".")
        time.sleep(seconds)

    JOBS[number](given, out, tick)
