"""Concept tables from the command line: concepts build, classify, info and merge."""

from __future__ import annotations

from typing import Literal

from sslk.commands.console import print_fields, progress_bar
from sslk.data import load_dataset
from sslk.features.store import FeatureStore
from sslk.files.regular import require_file_name
from sslk.reverse.concepts import ConceptTable, build_concepts, classify_store
from sslk.reverse.concepts import merge as merge_tables
from sslk.reverse.concepts.by_name import expert_by_name


def build(
    data: str,
    experts: list[str],
    out: str,
    split: str = "train",
    root: str | None = None,
    threshold: float | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    on_error: Literal["raise", "skip"] = "raise",
    quiet: bool = False,
) -> None:
    """Ask experts about every image of a data set and write the concept table; interrupted, the same command goes on.

    Examples:
        $ sslk concepts build --data sample --split test --experts labels colour --out runs/concepts.safetensors
        $ sslk concepts build --data imagenet --split val --experts scene=classifier:torchvision:resnet50@p.pth@p.txt --out c

    Args:
        data: name of a published data set, folder:PATH, npz:PATH, camvid:PATH, sample, ...
        experts: labels, attributes:CSV, colour, label-maps, classifier:MODEL[@WEIGHTS[@NAMES]], detector:NAME,
            segmenter:NAME, clip:PROMPTS.json or text; GROUP= in front sets the group of the columns.
        out: file of the table.
        split: of the data set.
        root: folder of the published data sets; the environment variable SSLK_DATA by default.
        threshold: of probability, confidence or share; by default the arg-max of classifiers, 0.5, and 0.1 for colour.
        batch_size: images an expert sees at once.
        device: of classifiers.
        on_error: an expert that raises on an image ends the build, or the image is left out, counted and listed.
        quiet: no progress bar.
    """
    require_file_name(out)
    dataset = load_dataset(data, split, root=root)
    asked = [expert_by_name(name, dataset, threshold=threshold, device=device) for name in experts]
    with progress_bar("asking experts", quiet) as update:
        table = build_concepts(dataset, asked, out, batch_size=batch_size, on_error=on_error, progress=update)
    left_out = len(table.about.get("left_out", []))
    print(f"{out}: {table}" + (f"; {left_out} images left out" if left_out else ""))


def classify(
    store: str,
    out: str,
    model: str = "efficientnet-lite0",
    weights: str | None = None,
    group: str = "objects",
    threshold: float | None = None,
) -> None:
    """Concepts from features that are already stored: what the model's own classifier says about them.

    Examples:
        $ sslk concepts classify runs/lite0-train --out runs/objects.safetensors

    Args:
        store: folder of a feature store of this model.
        out: file of the table.
        model: as for `sslk extract`; its weights must hold a classifier.
        weights: checkpoint of the model.
        group: of the columns.
        threshold: every class above this probability in place of the arg-max.
    """
    require_file_name(out)
    table = classify_store(FeatureStore(store), model, weights=weights, group=group, threshold=threshold)
    table.save(out)
    print(f"{out}: {table}")


def info(table: str, json: bool = False) -> None:
    """Say what a concept table holds: groups, density, columns that say nothing, images left out.

    Examples:
        $ sslk concepts info runs/concepts.safetensors

    Args:
        table: file of the table.
        json: print one JSON object.
    """
    found = ConceptTable.load(table)
    counts = found.counts
    constant = found.constant()
    commonest = counts.argsort(descending=True)[:5].tolist()
    fields = {
        "samples": len(found),
        "concepts": found.num_concepts,
        "groups": found.group_sizes if json else ", ".join(f"{g} {n}" for g, n in found.group_sizes.items()),
        "ones_per_row": len(found.columns) / max(len(found), 1),
        "rows_without_any": int((found.offsets.diff() == 0).sum()),
        "commonest": ", ".join(f"{found.groups[c]}/{found.names[c]} {int(counts[c])}" for c in commonest),
        "constant_columns": len(constant),
        "left_out": len(found.about.get("left_out", [])),
    }
    print_fields(fields, json)


def merge(tables: list[str], out: str) -> None:
    """Put the columns of several tables of the same images side by side; rows are matched by image.

    Examples:
        $ sslk concepts merge runs/labels.safetensors runs/objects.safetensors --out runs/concepts.safetensors

    Args:
        tables: files.
        out: file of the result.
    """
    require_file_name(out)
    merged = merge_tables([ConceptTable.load(table) for table in tables])
    merged.save(out)
    print(f"{out}: {merged}")
