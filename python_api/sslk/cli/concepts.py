"""`sslk concepts`: tables of what images show."""

from __future__ import annotations

from typing import Annotated, Literal

from sslk.cli.console import FLAT, Output
from sslk.data.source import DataSource
from sslk.models.source import ModelSource


def build(
    *,
    data: Annotated[DataSource, FLAT],
    experts: list[str],
    out: str,
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
        experts: labels, attributes:CSV, colour, label-maps, classifier:MODEL[@WEIGHTS[@NAMES]], detector:NAME,
            segmenter:NAME, clip:PROMPTS.json or text; GROUP= in front sets the group of the columns.
        out: file of the table.
        threshold: threshold of probability, confidence or share; by default the arg-max of classifiers, 0.5, and 0.1 for colour.
        batch_size: images an expert sees at once.
        device: device of classifiers.
        on_error: an expert that raises on an image ends the build, or the image is left out, counted and listed.
        quiet: show no progress.
    """
    from sslk.concepts import build_concepts, expert_by_name
    from sslk.files.regular import require_file_name

    require_file_name(out)
    dataset = data.load()
    asked = [expert_by_name(name, dataset, threshold=threshold, device=device) for name in experts]
    with Output(quiet=quiet).progress() as update:
        table = build_concepts(dataset, asked, out, batch_size=batch_size, on_error=on_error, progress=update)
    left_out = table.about.get("left_out", [])
    print(f"{out}: {table}" + (f"; {len(left_out)} images left out" if left_out else ""))


def classify(
    store: str, *, out: str, model: str = "efficientnet-lite0", group: str = "objects", threshold: float | None = None
) -> None:
    """Concepts from features that are already stored: what the model's own classifier says about them.

    Examples:
        $ sslk concepts classify runs/lite0-train --out runs/objects.safetensors

    Args:
        store: folder of a feature store of this model.
        out: file of the table.
        model: NAME or NAME@CHECKPOINT of the store's model; its weights must hold a classifier.
        group: group of the columns.
        threshold: every class above this probability in place of the arg-max.
    """
    from sslk.concepts import classify_store
    from sslk.features import FeatureStore
    from sslk.files.regular import require_file_name

    require_file_name(out)
    source = ModelSource(model)
    table = classify_store(FeatureStore(store), source.name, weights=source.weights, group=group, threshold=threshold)
    table.save(out)
    print(f"{out}: {table}")


def info(table: str, *, json: bool = False) -> None:
    """Say what a concept table holds: groups, density, columns that say nothing, images left out.

    Examples:
        $ sslk concepts info runs/concepts.safetensors

    Args:
        table: file of the table.
        json: print one JSON object.
    """
    from sslk.concepts import read_concepts

    fields = read_concepts(table).described()
    groups = ", ".join(f"{group} {size}" for group, size in fields["groups"].items())
    Output(json).fields(fields if json else {**fields, "groups": groups})


def merge(tables: list[str], *, out: str) -> None:
    """Put the columns of several tables of the same images side by side; rows are matched by image.

    Examples:
        $ sslk concepts merge runs/labels.safetensors runs/objects.safetensors --out runs/concepts.safetensors

    Args:
        tables: files of the tables.
        out: file of the result.
    """
    from sslk.concepts import merge as put_together
    from sslk.concepts import read_concepts
    from sslk.files.regular import require_file_name

    require_file_name(out)
    merged = put_together([read_concepts(table) for table in tables])
    merged.save(out)
    print(f"{out}: {merged}")
