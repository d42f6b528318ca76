"""What the commands of reverse probing read and leave: stores, clusterings, tables of numbers, runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslk.commands.console import progress_bar
from sslk.features.store import FeatureStore
from sslk.files.tables import read_rows
from sslk.results.provenance import provenance
from sslk.reverse.concepts import ConceptTable
from sslk.reverse.concepts.same_images import require_same_classes
from sslk.reverse.experiments import ExperimentResult
from sslk.reverse.probe_settings import ProbeSettings
from sslk.reverse.protocol import quantize_store
from sslk.reverse.quantizer import Clusterings, KMeansSettings


def config_of(
    stores: list[str], concepts: str, kmeans: KMeansSettings, probe: ProbeSettings, **more: Any
) -> dict[str, Any]:
    """The settings a run remembers."""
    return {"stores": stores, "concepts": concepts, "kmeans": asdict(kmeans), "probe": asdict(probe), **more}


def save(result: ExperimentResult, out: str, command: str, config: dict[str, Any]) -> None:
    """Leave the run in its folder and print its findings."""
    seed = config.get("seed", config.get("probe", {}).get("seed", 0))
    result.save(out, provenance({"command": f"reverse-probe {command}", "seed": seed, "config": config}))
    print("\n".join(result.findings))
    print(f"{out}: results.json, {len(result.tables)} tables, {len(result.pictures)} figures")


def load_table(path: str, stores: list[str], groups: list[str] | None = None) -> ConceptTable:
    """The concept table, of the given groups only; it must be of the images of the stores.

    Raises:
        ConceptError: an image has one class in the table and another in a store.
    """
    table = ConceptTable.load(path)
    for store in named_stores(stores).values():
        require_same_classes(store, table)
    return table.select(groups) if groups else table


def named_stores(stores: list[str]) -> dict[str, FeatureStore]:
    """Feature stores by their names, from NAME=FOLDER or FOLDER."""
    named: dict[str, FeatureStore] = {}
    for text in stores:
        name, equals, folder = text.partition("=")
        store = FeatureStore(folder if equals else text).require()
        name = name if equals else store.spec.model
        if name in named:
            raise ValueError(f"stores must have different names, got {name!r} twice: write NAME=FOLDER.")
        named[name] = store
    return named


def load_features(stores: list[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """Features and sample numbers of every store."""
    loaded = {name: store.load() for name, store in named_stores(stores).items()}
    return {name: (batch.features.float(), batch.indices) for name, batch in loaded.items()}


def cluster_stores(
    stores: list[str], settings: KMeansSettings, out: str, device: str, quiet: bool
) -> dict[str, Clusterings]:
    """The clusterings of every store, those that the folder has from an earlier run with the same settings reused."""
    found: dict[str, Clusterings] = {}
    for name, store in named_stores(stores).items():
        file = Path(out) / "clusterings" / f"{name.replace('/', '-').replace(':', '-')}.safetensors"
        if file.exists():
            earlier = Clusterings.load(file)
            if earlier.about.get("settings") == asdict(settings) and earlier.about.get("store") == store.spec.identity:
                found[name] = earlier
                continue
        with progress_bar(f"clustering {name}", quiet) as update:
            found[name] = quantize_store(store, settings, device=device, progress=update)
        found[name].about["store"] = store.spec.identity
        found[name].save(file)
    return found


def load_assignment(path: str, title: str) -> Clusterings:
    """Clusterings from a CSV of sample number and cluster, or from their own file."""
    if Path(path).suffix == ".safetensors":
        return Clusterings.load(path)
    rows = read_rows(path, "the assignment")
    try:
        numbers = [[int(cell) for cell in row] for row in rows[1 if not rows[0][0].strip().isdigit() else 0 :]]
        values = torch.tensor(numbers)
        return Clusterings.given(values[:, 1], values[:, 0], title)
    except (ValueError, IndexError, OverflowError, RuntimeError):
        raise ValueError(f"{path} must hold two columns, sample number and cluster, both integers.") from None


def load_accuracies(path: str) -> dict[str, float]:
    """Linear-probe top-1 in percent by model, from a CSV."""
    rows = read_rows(path, "the table of accuracies")
    try:
        return {row[0]: float(row[1]) for row in rows if row[1].replace(".", "", 1).strip().isdigit()}
    except IndexError:
        raise ValueError(f"{path} must hold two columns, model and top-1 in percent.") from None
