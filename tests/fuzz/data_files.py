"""Small valid files of images, features, concepts and sets, and how the package reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sslk.concepts import ConceptTable, read_concepts
from sslk.data import load_dataset
from sslk.features import FeatureStore, StoreSpec, StoreWriter
from sslk.interpret.atlas.statistics import collect
from sslk.probes.outputs import ProbeOutputs
from sslk.probes.rows import StoreRows
from sslk.quality.discriminative import DiscriminativeFeatures
from sslk.reverse.quantizer import quantize
from sslk.reverse.settings import KMeansSettings
from sslk.reverse.study import read_assignment


def write_store(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    spec = StoreSpec("m", "0" * 64, "d", "0" * 64, "none", samples=12, num_features=4, shard_rows=8, classes=("cat", "dog", "é"))
    with StoreWriter(folder, spec) as writer:
        for number, rows in enumerate(torch.arange(12).split(8)):
            skipped = ((11, "cannot be read"),) if number else ()
            rows = rows[: len(rows) - len(skipped)]
            writer.write(number, torch.randn(len(rows), 4, generator=generator).relu(), rows % 3, rows, skipped)
    list(FeatureStore(folder).shards())  # leaves the times of its checks


def read_store(folder: Path) -> Any:
    store = FeatureStore(folder)
    rows = [batch.features.tolist() for batch in store.batches(5, shuffle=True)]
    loaded = store.load()
    found = DiscriminativeFeatures.from_counts(torch.tensor([1, 2, 3, 4]), 11, eps=1.0)
    statistics = collect(store, found, torch.arange(2), top=2)
    return (
        rows,
        loaded.features.tolist(),
        loaded.indices.tolist(),
        store.labels().tolist(),
        store.spec.identity,
        StoreRows(store).position.tolist(),
        statistics.class_sizes.tolist(),
        store.manifest.rows,
    )


def write_images(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    np.savez(folder / "images.npz", images=pixels, labels=np.array([0, 1, 2, 0, 1, 2]), classes=np.array(["a", "b", "c"]))
    np.savez_compressed(folder / "grey.npz", images=pixels[..., 0], labels=np.array([0, 1, 2, 0, 1, 2]))


def read_images(name: str, folder: Path) -> Any:
    dataset = load_dataset(f"npz:{folder / name}")
    labels = None if dataset.labels is None else dataset.labels.tolist()
    return [np.array(image).tolist() for image, _ in dataset], labels, dataset.classes, dataset.fingerprint


def write_image_folder(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / name).mkdir()
        Image.new("RGB", (8, 8), "red").save(folder / name / "0.png")


def read_image_folder(folder: Path) -> Any:
    return [np.array(image).tolist() for image, _ in load_dataset(f"folder:{folder}")]


def write_tiny(folder: Path) -> None:
    (folder / "val/images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("n2\nn1\n")
    (folder / "words.txt").write_text("n1\tcat\nn2\tdog\n")
    (folder / "val/val_annotations.txt").write_text("0.png\tn1\t0\t0\t3\t3\n1.png\tn2\t1\t1\t5\t5\n")
    for number in range(2):
        Image.new("RGB", (8, 8), "red").save(folder / f"val/images/{number}.png")


def read_tiny(folder: Path) -> Any:
    dataset = load_dataset(f"tiny-imagenet:{folder}", "val")
    return (
        dataset.labels.tolist(),
        dataset.classes,
        [dataset.annotation(i).boxes.tolist() for i in range(len(dataset))],
        [image.size for image, _ in dataset],
    )


def write_class_list(folder: Path) -> None:
    (folder / "list.txt").write_text("n1 cat\nn2 dog\n")
    for name in ("n1", "n2"):
        (folder / "val" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), "red").save(folder / "val" / name / "0.png")


def read_class_list(folder: Path) -> Any:
    return load_dataset(f"imagenet-100:{folder / 'list.txt'}", "val", root=folder).classes


def write_table(folder: Path) -> None:
    ConceptTable.from_rows([[0], [1, 2], [], [2]], ["red", "blue", "round"], ["colour", "colour", "shape"]).save(
        folder / "t.safetensors"
    )


def read_table(folder: Path) -> Any:
    table = ConceptTable.load(folder / "t.safetensors")
    joined = table.join(table.samples.flip(0))
    return (
        table.dense().tolist(),
        repr(table),
        table.constant(),
        table.counts.tolist(),
        joined.dense().tolist(),
        repr(table.about),
    )


def write_clusterings(folder: Path) -> None:
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    quantize(x, KMeansSettings(clusters=2, clusterings=2, restarts=1)).save(folder / "c.safetensors")


def read_clusterings(folder: Path) -> Any:
    found = read_assignment(str(folder / "c.safetensors"), "given")
    assigned = found.assign(torch.ones(2, 3)).tolist() if found.centroids is not None else None
    return found.sizes().tolist(), found.samples.tolist(), assigned, found.inertia.tolist(), found.about.get("settings")


def write_image_concepts(folder: Path) -> None:
    matrix = np.array([[1, 0], [0, 1], [1, 1]], dtype=bool)
    np.savez(folder / "c.npz", matrix=matrix, names=np.array(["red", "blue"]))
    (folder / "c.csv").write_text("index,red,blue\n1,0,1\n0,1,0\n2,1,1\n")


def read_image_concepts(name: str, folder: Path) -> Any:
    table = read_concepts(folder / name)
    return table.dense().tolist(), list(table.names)


def write_outputs(folder: Path) -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.5, 1.5]])
    ProbeOutputs.from_logits(logits, torch.tensor([3, 7]), torch.tensor([3, 3, 7])).save(folder / "outputs.safetensors")


def read_outputs(folder: Path) -> Any:
    found = ProbeOutputs.load(folder)
    return found.index.tolist(), found.accuracy, found.balanced_accuracy, found.logits.shape, found.source


def write_discriminative(folder: Path) -> None:
    DiscriminativeFeatures.from_counts(torch.tensor([1, 2, 3, 4]), 10, eps=1.0).save(folder / "s.safetensors")


def read_discriminative(folder: Path) -> Any:
    found = DiscriminativeFeatures.load(folder / "s.safetensors")
    return (
        found.summary(),
        found.mask.tolist(),
        found.lower_tail.tolist(),
        found.upper_tail.tolist(),
        found.two_sided,
        found.model,
    )
